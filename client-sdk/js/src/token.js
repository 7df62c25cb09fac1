/** A token that expires sooner than this is not worth a connection. */
const EXPIRY_MARGIN_S = 5;
/** A JWT in its compact form (RFC 7519 §3.1). */
const THREE_PARTS = /^[^.\s]+\.[^.\s]+\.[^.\s]+$/;

/**
 * The application's tokens: asked for when there is none, when the last one expired, or when a fresh one is needed.
 * Whoever wants one while it is being asked for waits for the same: it may be a person who is asked.
 */
export class Tokens {
  #ask;
  #last = '';
  /** @type {Promise<string> | null} */
  #asking = null;

  /** @param {() => string | Promise<string>} ask */
  constructor(ask) {
    this.#ask = ask;
  }

  /** @param {boolean} [fresh] */
  async get(fresh) {
    const isOver = claims(this.#last).exp < Date.now() / 1000 + EXPIRY_MARGIN_S;
    if (this.#last && !isOver && !fresh) return this.#last;
    this.#asking ??= (async () => this.#ask())();
    try {
      const token = await this.#asking;
      if (THREE_PARTS.test(token)) return (this.#last = token);
      // What it says instead may be a secret.
      const isText = typeof token === 'string';
      const what = isText ? (token ? 'not three parts' : 'empty') : `not a string but ${token && typeof token}`;
      throw `no token: ${what}`;
    } finally {
      this.#asking = null;
    }
  }
}

/**
 * The second part of a JWT (RFC 7519 §3.1), read without checking the signature: the server does that.
 * @param {string} token
 * @returns {{ sub?: string, exp: number }} a token that cannot be read is taken to last
 */
export function claims(token) {
  try {
    const bytes = atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    // As UTF-8, also where there is no TextDecoder.
    return Object(JSON.parse(decodeURIComponent(escape(bytes))));
  } catch {
    return { exp: Infinity };
  }
}
