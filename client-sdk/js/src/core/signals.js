/** Between two signals: 50/s where the server takes 60/s, so that what it takes is the latest and not the first. */
const EVERY_MS = 20;
/** Signals that wait, each of another place or kind: five seconds of them. With more the oldest is dropped. */
const WAITING_MAX = 256;

/** Signals on their way out: the latest of each place and kind, no faster than the server takes them. */
export class Signals {
  /** @type {Map<string, string>} */
  #waiting = new Map();
  #next = 0;

  /**
   * Takes a signal over, in the place of one that waits and that it makes old.
   * @param {string} place whom it tells, and its kind
   * @param {string} text the frame
   */
  signal(place, text) {
    this.#waiting.set(place, text);
    if (this.#waiting.size > WAITING_MAX) this.#waiting.delete(String(this.#waiting.keys().next().value));
  }

  /**
   * What may be written now.
   * @param {number} now
   * @returns {string | undefined}
   */
  take(now) {
    if (this.due() > now) return;
    const [[place, text]] = this.#waiting;
    this.#waiting.delete(place);
    this.#next = now + EVERY_MS;
    return text;
  }

  /** When the next may be written. */
  due() {
    return this.#waiting.size ? this.#next : Infinity;
  }

  /** Without a connection they are of no use: when there is one again they are old. */
  clear() {
    this.#waiting.clear();
  }
}
