/** @import { Cursor, Joined } from '../types.js' */
import { Place, compare } from './place.js';

/** An ack is cumulative, so one in this time is enough: 5/s of the 50 commands/s that a session may use. */
const ACK_EVERY_MS = 200;

/**
 * Something the server is told of: up to where, and up to where it knows.
 * @typedef {{ at: Cursor | null, told: Cursor | null }} Mark
 */

/** Where this client stands in its inbox: also what the application took and the user saw of it. */
export class InboxPlace extends Place {
  #marks = {
    ack: /** @type {Mark} */ ({ at: null, told: null }),
    read: /** @type {Mark} */ ({ at: null, told: null }),
  };
  #tellFrom = 0;

  /** @param {Cursor | null} [cursor] */
  constructor(cursor) {
    super(cursor);
    this.#marks.ack.at = this.received;
  }

  /**
   * Where an earlier client was, if this one is nowhere yet.
   * @param {Cursor | null} [cursor]
   */
  begin(cursor) {
    if (cursor && !this.received) this.received = this.#marks.ack.at = cursor;
  }

  /** What the application took or acknowledged. */
  get acked() {
    return this.#marks.ack.at;
  }

  /**
   * `connect` counts as an ack, so it must not be ahead of the application: messages that it has not acknowledged
   * come again and are dropped as old.
   */
  hello() {
    const { ack, read } = this.#marks;
    ack.told = ack.at;
    read.told = null;
    return super.hello(ack.at);
  }

  /** @param {Joined} told */
  welcome(told) {
    const { ack } = this.#marks;
    const isNew = !this.received;
    const missed = super.welcome(told);
    if (missed) this.#wentOn();
    else if (isNew) ack.at = ack.told = this.received;
    return missed;
  }

  /** @param {Cursor} cursor */
  reset(cursor) {
    const missed = super.reset(cursor);
    if (missed) this.#wentOn();
    return missed;
  }

  /** A cursor that this stream never had must not be shown again. */
  #wentOn() {
    for (const mark of Object.values(this.#marks)) if (compare(mark.at, this.received) > 0) mark.at = null;
  }

  /**
   * The application has everything up to `cursor`, or with `read` the user saw it: never goes back, nor beyond what
   * was received.
   * @param {'ack' | 'read'} type
   * @param {Cursor} cursor
   */
  mark(type, cursor) {
    const mark = this.#marks[type];
    if (compare(cursor, this.received) <= 0 && compare(cursor, mark.at) > 0) mark.at = cursor;
  }

  #untold() {
    return Object.entries(this.#marks).filter(
      ([, { at, told }]) => at && at.generation === this.received?.generation && compare(at, told) > 0,
    );
  }

  /**
   * The frames to write now.
   * @param {number} now
   * @param {boolean} [last] nothing is written after it
   */
  take(now, last) {
    if (!last && this.due() > now) return [];
    this.#tellFrom = now + ACK_EVERY_MS;
    return this.#untold().map(([type, mark]) => ({ type, cursor: (mark.told = mark.at) }));
  }

  /** When the next frame is to be written. */
  due() {
    return this.#untold().length ? this.#tellFrom : Infinity;
  }
}
