/** Tries before the ceiling grows: 1.5 s on average with 250 ms. */
const QUICK_TRIES = 5;

/**
 * How long to wait before the next try: evenly from nothing to a ceiling ("full jitter", AWS Architecture Blog), so
 * that a crowd that was cut off together does not come back together. The ceiling doubles from `min` to `max`, and
 * stays at twice `min` for the first few tries: a dead node is replaced within two seconds.
 */
export class Backoff {
  tries = 0;

  /**
   * @param {number} min milliseconds
   * @param {number} max milliseconds
   * @param {() => number} random from 0 up to 1
   */
  constructor(min, max, random) {
    this.min = min;
    this.max = max;
    this.random = random;
  }

  get ceiling() {
    const doublings = Math.max(Math.min(this.tries, 1), this.tries - QUICK_TRIES);
    return Math.min(this.min * 2 ** doublings, this.max);
  }

  next() {
    const wait = Math.round(this.random() * this.ceiling);
    this.tries++;
    return wait;
  }

  reset() {
    this.tries = 0;
  }
}
