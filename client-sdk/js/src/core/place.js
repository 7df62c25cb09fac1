/** @import { Cursor, Joined, Message } from '../types.js' */

/**
 * Ids kept to recognise messages that come again in a new generation: a little more than the server's hot window
 * of 1,000, which is the most that can come again at once.
 */
const SHOWN_MAX = 1024;

/**
 * @param {Cursor | null | undefined} a
 * @param {Cursor | null | undefined} b
 * @returns {number} below, at or above zero as `a` is before, at or after `b`; none is before all
 */
export function compare(a, b) {
  if (!a || !b) return Number(!!a) - Number(!!b);
  return a.generation - b.generation || a.offset - b.offset;
}

/**
 * What an application gives may be anything: a text that it kept, say, or a cursor that JSON made null of.
 * @param {any} place
 */
export const isCursor = (place) =>
  [place.generation, place.offset].every((n) => Number.isSafeInteger(n) && n >= 0);

/** @param {Cursor} place of a message, say */
export const cursorOf = ({ generation, offset }) => ({ generation, offset });

/**
 * Where this client is in one stream, an inbox or a room: what it received, what it was told it missed, and what it
 * showed before.
 */
export class Place {
  /** What the server was shown last. @type {Cursor | null} */
  showed = null;
  welcomed = false;
  /** The messages shown last, by sender and id, with the generation under which they were shown. */
  #shown = /** @type {Map<string, number>} */ (new Map());

  /** @param {Cursor | null} [cursor] */
  constructor(cursor) {
    /** @type {Cursor | null} */
    this.received = cursor ?? null;
  }

  /** The cursor to show to the server, which will go on from there. */
  hello(cursor = this.received) {
    this.showed = cursor;
    return cursor;
  }

  /**
   * Takes the verdict on the cursor that was shown. With an answer, messages were missed.
   * @param {Joined} told
   */
  welcome({ cursor, recovered, replayed = 0 }) {
    const start = { generation: cursor.generation, offset: cursor.offset - replayed };
    const have = this.received;
    const first = !this.welcomed;
    this.welcomed = true;
    if (!have) {
      if (!recovered) return this.#adopt(cursor);
      this.received = start;
      return null;
    }
    let complete;
    if (have.generation !== cursor.generation) {
      // Unless it was given before an older connection told of a new life: the reset comes here too.
      complete = this.showed?.generation === cursor.generation;
    } else if (compare(have, cursor) > 0) {
      // An older connection may have overtaken it; a cursor that only the application knows may not.
      complete = !first;
    } else {
      // Not recovered: all up to here was received, or told as missed.
      complete = recovered ? compare(start, have) <= 0 : compare(have, cursor) === 0;
    }
    return complete ? null : this.#adopt(cursor);
  }

  /**
   * The stream began a new life, or its hot window was passed. No answer if that was told before, over another
   * connection.
   * @param {Cursor} cursor
   */
  reset(cursor) {
    const have = this.received;
    const known = have?.generation === cursor.generation && compare(have, cursor) >= 0;
    return known ? null : this.#adopt(cursor);
  }

  /**
   * The stream goes on after `cursor`, whatever was before.
   * @param {Cursor} cursor
   */
  #adopt(cursor) {
    const from = this.received;
    this.received = cursor;
    return { from, cursor };
  }

  /**
   * - `show`: the next one
   * - `shown`: the next one, but it was shown under an older generation: only count it
   * - `old`: a repeat
   * - `hole`: not the next one: something between was lost on the way
   * @param {Message} m
   */
  message(m) {
    const have = this.received;
    if (have && compare(m, have) <= 0) return 'old';
    if (m.generation !== have?.generation || m.offset !== have.offset + 1) return 'hole';
    this.received = cursorOf(m);
    // Within one generation the offset decides: an id may be used again after the dedup window.
    const key = `${m.from}\n${m.id}`;
    const before = this.#shown.get(key);
    this.#shown.set(key, m.generation);
    if (this.#shown.size > SHOWN_MAX) this.#shown.delete(String(this.#shown.keys().next().value));
    return before === undefined || before === m.generation ? 'show' : 'shown';
  }
}
