import { RoostError } from './error.js';

/** The largest frame that the server takes. */
export const FRAME_BYTES_MAX = 65_536;

/**
 * As JSON.stringify writes half a surrogate pair, and U+0000: after a backslash that is not itself written by one.
 */
const UNFIT = /(?:^|[^\\])(?:\\\\)*\\u(?:0000|d[89a-f])/;

/**
 * Its length in UTF-8. TextEncoder would do, where there is one: in Jest's jsdom there is none.
 * @param {string} text that is well-formed
 */
export const bytes = (text) => unescape(encodeURIComponent(text)).length;

/**
 * @param {any} value
 * @returns {string} its JSON. The server refuses what is not Unicode as a whole, wherever it stands
 */
export function json(value) {
  const text = JSON.stringify(value);
  if (UNFIT.test(text)) {
    throw new RoostError('bad_request', 'half a surrogate pair (a cut emoji), or U+0000');
  }
  return text;
}

/**
 * What is read, unless it is no JSON.
 * @param {string} text
 * @returns {any}
 */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * @param {object} frame
 * @returns {string} its text, for every time it is written: the server compares bodies
 */
export function encode(frame) {
  const text = json(frame);
  const size = bytes(text);
  if (size > FRAME_BYTES_MAX) {
    throw new RoostError('too_large', `${size} bytes`);
  }
  return text;
}
