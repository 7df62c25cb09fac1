/** @import { Command, CallOptions, Cursor, History, Input } from './types.js' */
import { now } from './clock.js';
import { Core } from './core/core.js';
import { RoostError } from './error.js';
import { newId } from './id.js';
import { name } from './part.js';
import { Tokens, claims } from './token.js';
import { encode } from './wire.js';

/** Longer than this no timer can be set (2^31 ms); it looks earlier, in vain. */
const SLEEP_MS_MAX = 3_600_000;
/** A timer that is late by more says that the machine slept, or the page was frozen. */
const LATE_MS = 3_000;
/** Events of a page that say that the network, or the page itself, came back. */
const WAKERS = ['online', 'pageshow', 'visibilitychange'];
/** With so many bytes waiting, signals are not added: they would be old when they are written. */
const BEHIND_BYTES = 64 * 1024;
/** Longest `kind` of a signal. */
const KIND_BYTES_MAX = 64;
/** What a client closes with (RFC 6455 §7.4.1). */
const NORMAL = 1000;

/**
 * @typedef {object} CarrierOptions
 * @property {string} url of a coordinator
 * @property {() => string | Promise<string>} getToken
 * @property {string} [user]
 * @property {any} [WebSocket]
 */

/** Carries between the core, the sockets, the coordinator, the timer and the application. It decides nothing. */
export class Carrier {
  #options;
  #tokens;
  /** @type {Map<number, AbortController>} */
  #attempts = new Map();
  /** @type {Map<number, WebSocket>} */
  #sockets = new Map();
  /** @type {Map<number, (error: Error | null, ok: any) => void>} */
  #waiting = new Map();
  #tickets = 0;
  /** @type {Input[]} */
  #inputs = [];
  #isStepping = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;
  #wake = () => this.step('hurry');

  /**
   * @param {Core} core
   * @param {CarrierOptions} options
   * @param {(to: string, name: string, value: any, ack?: Cursor, settled?: boolean) => void} tell the application
   */
  constructor(core, options, tell) {
    this.core = core;
    this.#options = options;
    this.#tokens = new Tokens(options.getToken);
    this.tell = tell;
  }

  /** @param {CallOptions} [options] */
  start(options) {
    for (const event of WAKERS) globalThis.addEventListener?.(event, this.#wake);
    this.step('start');
    return this.ready(options);
  }

  /**
   * Waits for a connection.
   * @param {CallOptions} [options]
   */
  ready(options) {
    return this.command({ id: '@connect', lane: '', connect: true }, options);
  }

  stop() {
    for (const event of WAKERS) globalThis.removeEventListener?.(event, this.#wake);
    this.step('stop');
  }

  /**
   * Inputs are taken one after the other: what the application does while it is told something comes after that.
   * @param {Input} input
   */
  step(...input) {
    this.#inputs.push(input);
    if (this.#isStepping) return;
    this.#isStepping = true;
    try {
      for (let next; (next = this.#inputs.shift());) {
        for (const [name, ...args] of this.core.step(next, now())) {
          /** @type {any} */ (this)[name](...args);
        }
      }
    } finally {
      this.#isStepping = false;
      this.#sleep();
    }
  }

  /**
   * Has a command carried out.
   * @param {Command} command
   * @param {CallOptions} [options]
   * @returns {Promise<any>} what the server says
   */
  command(command, { timeoutMs = 30_000, signal } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const ticket = ++this.#tickets;
      const aborted = () => {
        this.step('abandon', ticket);
        this.answer(ticket, signal?.reason);
      };
      signal?.addEventListener('abort', aborted);
      this.#waiting.set(ticket, (error, ok) => {
        signal?.removeEventListener('abort', aborted);
        if (error) reject(error);
        else resolve(ok);
      });
      this.step('command', command, ticket, now() + timeoutMs);
    });
  }

  /**
   * Has a command carried out that is always written the same.
   * @param {{ type: string } & Record<string, any>} frame without its id
   * @param {Omit<Command, 'id' | 'text'> & { id?: string }} how
   * @param {CallOptions} [options]
   */
  async call({ type, ...fields }, { id = newId(), ...how }, options) {
    return this.command({ ...how, id, text: encode({ type, id, ...fields }) }, options);
  }

  /**
   * @param {string} stream
   * @param {{ before?: string, limit?: number } & CallOptions} [options]
   * @returns {Promise<History>}
   */
  history(stream, { before, limit, ...options } = {}) {
    return this.call({ type: 'history', stream, before, limit }, { lane: 'history' }, options);
  }

  /**
   * @param {{ room: string } | { to: string }} audience
   * @param {string} kind
   * @param {any} [data]
   */
  signal(audience, kind, data = null) {
    const place = JSON.stringify([audience, name('signal', kind, KIND_BYTES_MAX)]);
    this.step('signal', place, encode({ type: 'signal', ...audience, kind, data }));
  }

  #sleep() {
    clearTimeout(this.#timer);
    const due = Math.min(this.core.wake(), now() + SLEEP_MS_MAX);
    const wake = () => this.step(now() > due + LATE_MS ? 'hurry' : 'tick');
    // A client that is disconnected and idle keeps no process alive.
    if (this.core.wake() < Infinity) this.#timer = setTimeout(wake, due - now());
  }

  // What the core asks for.

  /** @param {number} conn */
  route(conn) {
    this.#attempt(conn, async (signal) => {
      const { url, user = claims(await this.#tokens.get()).sub } = this.#options;
      if (!user) throw new RoostError('unauthorized', 'no sub');
      const route = new URL('route', url);
      route.searchParams.set('userId', user);
      const answer = await fetch(route, { signal, cache: 'no-store' });
      const body = await answer.json();
      if (answer.ok) return this.step('routed', conn, body);
      const { code, message: why, retry_after_ms: after } = body.error;
      const fatal = [400, 401, 403].includes(answer.status) ? new RoostError(code, why) : undefined;
      this.step('trouble', conn, { why, after, fatal });
    });
  }

  /**
   * @param {number} conn
   * @param {string} url
   * @param {boolean} fresh
   */
  open(conn, url, fresh) {
    this.#attempt(conn, async (ended) => {
      const token = await this.#tokens.get(fresh);
      ended.throwIfAborted();
      /** @type {WebSocket} */
      const socket = new this.#options.WebSocket(url, 'roost.v1');
      let trouble = '';
      this.#sockets.set(conn, socket);
      socket.onopen = () => this.step('opened', conn, token);
      socket.onmessage = ({ data }) => this.#read(conn, data);
      socket.onerror = (event) => (trouble = /** @type {any} */ (event).message ?? '');
      socket.onclose = ({ code, reason }) => this.step('closed', conn, code, reason || trouble);
    });
  }

  /** @param {number} conn */
  token(conn) {
    // Without one the connection ends with the token it has, and the next try meets the same error.
    this.#tokens.get(true).then(
      (token) => this.step('token', conn, token),
      () => {},
    );
  }

  /**
   * @param {number} conn
   * @param {string} text
   */
  write(conn, text) {
    this.#sockets.get(conn)?.send(text);
  }

  /**
   * @param {number} conn
   * @param {string} text
   */
  offer(conn, text) {
    if ((this.#sockets.get(conn)?.bufferedAmount ?? 0) < BEHIND_BYTES) this.write(conn, text);
  }

  /**
   * @param {number} ticket
   * @param {Error | null} error
   * @param {any} [ok]
   */
  answer(ticket, error, ok) {
    this.#waiting.get(ticket)?.(error, ok);
    this.#waiting.delete(ticket);
  }

  /**
   * @param {number} conn
   * @param {(ended: AbortSignal) => Promise<void>} attempt
   */
  #attempt(conn, attempt) {
    const ended = new AbortController();
    this.#attempts.set(conn, ended);
    attempt(ended.signal)
      .catch((error) => {
        const fatal = error instanceof RoostError ? error : undefined;
        this.step('trouble', conn, { why: String(error?.cause ?? error), fatal });
      })
      .finally(() => this.#attempts.delete(conn));
  }

  /**
   * @param {number} conn
   * @param {any} data
   */
  #read(conn, data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return this.step('broken', conn, 'not JSON');
    }
    this.step('frame', conn, frame);
  }

  /** @param {number} conn */
  close(conn) {
    const socket = this.#sockets.get(conn);
    this.#attempts.get(conn)?.abort();
    this.#sockets.delete(conn);
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // Closing a socket that is not open yet is an error to some, which somebody must hear.
    socket.onerror = () => {};
    socket.close(NORMAL);
  }
}
