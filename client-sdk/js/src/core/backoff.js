/** Tries before the ceiling grows: 1.5 s on average with 250 ms. */
const QUICK_TRIES = 5;

/** @typedef {ReturnType<typeof backoff>} Backoff */

/**
 * How long to wait before the next try: evenly from nothing to a ceiling ("full jitter", AWS Architecture Blog), so
 * that a crowd that was cut off together does not come back together. The ceiling doubles from `min` to `max`, and
 * stays at twice `min` for the first few tries: a dead node is replaced within two seconds.
 * @param {number} min milliseconds
 * @param {number} max milliseconds
 * @param {() => number} random from 0 up to 1
 */
export function backoff(min, max, random) {
  let tries = 0;
  return {
    next() {
      const doublings = Math.max(Math.min(tries, 1), tries - QUICK_TRIES);
      tries++;
      return Math.round(random() * Math.min(min * 2 ** doublings, max));
    },
    reset() {
      tries = 0;
    },
  };
}
