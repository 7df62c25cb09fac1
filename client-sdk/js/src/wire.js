import { RoostError } from './error.js';

/** The largest frame that the server takes. */
export const FRAME_BYTES_MAX = 65_536;

/** @param {string} text */
export const bytes = (text) => new TextEncoder().encode(text).length;

/**
 * @param {object} frame
 * @returns {string} its text, for every time it is written: the server compares bodies
 */
export function encode(frame) {
  const text = JSON.stringify(frame);
  const size = bytes(text);
  if (size > FRAME_BYTES_MAX) {
    throw new RoostError('too_large', `${size} bytes`);
  }
  return text;
}
