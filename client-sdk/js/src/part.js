/** @import { Carrier } from './carrier.js' */
import { Emitter } from './emitter.js';
import { RoostError } from './error.js';
import { bytes } from './wire.js';

/**
 * @param {string} what
 * @param {string} text
 * @param {number} [max] bytes
 */
export function name(what, text, max = 128) {
  // Cs: half of a surrogate pair.
  if (text && !/[\p{Cc}\p{Cs}]/u.test(text) && bytes(text) <= max) return text;
  throw new RoostError('bad_request', `not a ${what}'s name: 1 to ${max} bytes, no control characters`);
}

/**
 * A part of the public API: it is told of events, and gives commands.
 * @template {Record<string, any>} Events
 * @extends {Emitter<Events>}
 */
export class Part extends Emitter {
  /** @param {Carrier} carrier */
  constructor(carrier) {
    super();
    /** @internal */
    this.carrier = carrier;
  }
}
