/** @import { Command, CallOptions, Cursor, Cursors, History, Input } from './types.js' */
import { now } from './clock.js';
import { Core } from './core/core.js';
import { isCursor } from './core/place.js';
import { RoostError } from './error.js';
import { newId } from './id.js';
import { name } from './part.js';
import { Tokens, claims } from './token.js';
import { encode, parsed } from './wire.js';

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
const NO_CURSOR = 'not a cursor';

/**
 * @typedef {object} CarrierOptions
 * @property {string} url of a coordinator
 * @property {() => string | Promise<string>} getToken
 * @property {string} [user]
 * @property {string} [device]
 * @property {Cursor} [cursor]
 * @property {Cursors} [cursors]
 * @property {any} [WebSocket]
 */

/** @typedef {AbortController & { what: string }} Attempt `what` is tried */

/** Carries between the core, the sockets, the coordinator, the timer and the application. It decides nothing. */
export class Carrier {
  #options;
  #tokens;
  /** @type {Map<number, Attempt>} */
  #attempts = new Map();
  /** @type {Map<number, WebSocket>} */
  #sockets = new Map();
  /** @type {Map<number, (error: Error | null, ok: any) => void>} */
  #waiting = new Map();
  #tickets = 0;
  /** Of the coordinator. */
  #base = '';
  /** @type {any} */
  #WebSocket;
  /** The cursor that was given to be kept last, and whether it still is being kept. @type {Cursor | null} */
  #saved = null;
  #isSaving = false;
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
    try {
      this.#check();
    } catch (error) {
      this.step('fail', /** @type {RoostError} */ (error));
      throw error;
    }
    for (const event of WAKERS) globalThis.addEventListener?.(event, this.#wake);
    this.step('start');
    return this.ready(options);
  }

  /** What connecting needs; where a page is made on a server it need not be there. */
  #check() {
    const { getToken, user, device, cursor, url, WebSocket = globalThis.WebSocket } = this.#options;
    this.#WebSocket = WebSocket;
    try {
      this.#base = new URL(`${url}`.replace(/\/*$/, '/'), globalThis.location?.href).href;
    } catch {}
    let flaw;
    if (!/^https?:/.test(this.#base)) flaw = `not an http address: ${url}`;
    if (!WebSocket) flaw = 'no WebSocket: give one as an option';
    if (typeof getToken !== 'function') flaw = 'no getToken, or no function';
    if (cursor != null && !isCursor(cursor)) flaw = NO_CURSOR;
    if (flaw) throw new RoostError('bad_options', flaw);
    if (user != null) name('user', user);
    if (device != null) name('device', device);
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
      this.#save();
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
      if (signal?.aborted) throw signal.reason;
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
   * @returns {Promise<any> & { id: string }}
   */
  call({ type, ...fields }, { id = newId(), ...how }, options) {
    const done = async () => {
      if ('to' in fields) name('user', fields.to);
      return this.command({ ...how, id, text: encode({ type, id, ...fields }) }, options);
    };
    return Object.assign(done(), { id });
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
    this.#attempt(conn, async (attempt) => {
      const { user = claims(await this.#tokens.get()).sub } = this.#options;
      if (!user) throw new RoostError('unauthorized', 'the token names no user (sub)');
      const route = new URL('route', this.#base);
      attempt.what = route.href;
      route.searchParams.set('userId', user);
      const answer = await fetch(route, { signal: attempt.signal, cache: 'no-store' });
      const { ok, status, headers } = answer;
      // What breaks off is an error of its own.
      const body = parsed(await answer.text());
      if (ok && body?.url) return this.step('routed', conn, body);
      const { code, message, retry_after_ms: after } = body?.error ?? {};
      // What stands before it answers in its place.
      if (!code && status >= 500) throw `not reached, HTTP ${status}`;
      // A node has no such path.
      if (!code || status === 404) throw `not a coordinator: ${status}, ${headers.get('content-type')}`;
      const fatal = [400, 401, 403].includes(status) ? new RoostError(code, message) : undefined;
      this.step('trouble', conn, { why: `${attempt.what}: ${code}: ${message}`, after, fatal });
    });
  }

  /**
   * @param {number} conn
   * @param {string} url
   * @param {boolean} fresh
   */
  open(conn, url, fresh) {
    this.#attempt(conn, async (attempt) => {
      const token = await this.#tokens.get(fresh);
      const cursor = await this.#load(attempt, token);
      if (attempt.signal.aborted) return;
      attempt.what = url;
      /** @type {WebSocket} */
      const socket = new this.#WebSocket(url, 'roost.v1');
      let trouble = '';
      this.#sockets.set(conn, socket);
      socket.onopen = () => this.step('opened', conn, token, cursor);
      socket.onmessage = ({ data }) => this.#read(conn, data);
      socket.onerror = (event) => (trouble = /** @type {any} */ (event).message ?? '');
      socket.onclose = ({ code, reason }) => this.step('closed', conn, code, reason || trouble || url);
    });
  }

  /**
   * Where the last client of this user was, if the application knows and this one has no place yet.
   * @param {Attempt} attempt
   * @param {string} token
   */
  async #load(attempt, token) {
    const { cursors, user = claims(token).sub } = this.#options;
    if (!cursors || this.core.inbox.received) return;
    attempt.what = 'cursors.load';
    const cursor = await cursors.load(`user:${user}`);
    if (cursor != null && !isCursor(cursor)) throw NO_CURSOR;
    return cursor;
  }

  /** Has the application keep its place in the inbox: one after the other, and of those that wait the last. */
  async #save() {
    const { cursors } = this.#options;
    const { user, inbox } = this.core;
    const { acked } = inbox;
    if (!cursors || !user || !acked || acked === this.#saved || this.#isSaving) return;
    this.#saved = acked;
    this.#isSaving = true;
    try {
      await cursors.save(`user:${user}`, acked);
    } catch (error) {
      this.#mention(plainly('cursors.save', error));
    }
    this.#isSaving = false;
    this.#save();
  }

  /**
   * Trouble that keeps nobody from connecting: no call that is not sent in time is told that it was this.
   * @param {string} why
   */
  #mention(why) {
    this.tell('client', 'error', new RoostError('connection', why));
  }

  /** @param {number} conn */
  token(conn) {
    // Without one the connection ends with the token it has, and the next try meets the same error.
    this.#tokens.get(true).then(
      (token) => this.step('token', conn, token),
      (error) => this.#mention(plainly('getToken', error)),
    );
  }

  /**
   * It takes long: says what is waited for.
   * @param {number} conn
   */
  slow(conn) {
    const what = this.#attempts.get(conn)?.what ?? this.#sockets.get(conn)?.url;
    this.step('met', `${what}: no answer yet`);
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
   * @param {(attempt: Attempt) => Promise<void>} run
   */
  #attempt(conn, run) {
    const attempt = Object.assign(new AbortController(), { what: 'getToken' });
    this.#attempts.set(conn, attempt);
    run(attempt)
      .catch((error) => {
        const fatal = error instanceof RoostError ? error : undefined;
        this.step('trouble', conn, { why: plainly(attempt.what, error), fatal });
      })
      .finally(() => this.#attempts.delete(conn));
  }

  /**
   * @param {number} conn
   * @param {any} data
   */
  #read(conn, data) {
    const frame = parsed(data);
    if (frame) this.step('frame', conn, frame);
    else this.step('broken', conn, 'not JSON');
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

/**
 * What went wrong with what, as one line: of what `fetch` says, the cause, such as `connect ECONNREFUSED 127.0.0.1:7300`.
 * @param {string} what
 * @param {any} error
 */
function plainly(what, error) {
  const cause = error?.cause ?? error;
  return `${what}: ${cause?.message || cause?.code || cause}`;
}
