/** A token that expires sooner than this is not worth a connection. */
const EXPIRY_MARGIN_S = 5;

/** The application's tokens: asked for when there is none, when the last one expired, or when a fresh one is needed. */
export class Tokens {
  /** @type {string | undefined} */
  #last = undefined;

  /** @param {() => string | Promise<string>} ask */
  constructor(ask) {
    this.ask = ask;
  }

  /** @param {boolean} [fresh] */
  async get(fresh) {
    if (fresh || !this.#last || claims(this.#last).exp < Date.now() / 1000 + EXPIRY_MARGIN_S) {
      this.#last = await this.ask();
    }
    return this.#last;
  }
}

/**
 * The second part of a JWT (RFC 7519 §3.1), read without checking the signature: the server does that.
 * @param {string} token
 * @returns {{ sub?: string, exp: number }}
 */
export function claims(token) {
  try {
    const text = atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  } catch {
    return { exp: Infinity };
  }
}
