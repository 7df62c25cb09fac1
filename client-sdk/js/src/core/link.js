/** @import { Backoff } from './backoff.js' */
/** @import { Core } from './core.js' */
/** @import { Cursor, ErrorBody, Route, Trouble } from '../types.js' */
import { CLOSE_BAD_TOKEN, CLOSE_TOKEN_EXPIRED, reconnects } from '../codes.js';
import { RoostError } from '../error.js';
import { FRAME_BYTES_MAX, bytes } from '../wire.js';

/** A connection that lasted this long makes the next wait a short one again. */
const STABLE_MS = 10_000;
/** For each of: the answer of `/route`, an open socket; getting a token counts in. */
const TRY_TIMEOUT_MS = 10_000;
/** A node holds `connect` up to 5 s while it activates; the rest is for the way. */
const WELCOME_TIMEOUT_MS = 15_000;
/** The longest delay that a server may ask for. */
const SERVER_DELAY_MS_MAX = 60_000;
/** `moved` answers to `connect` in a row before the coordinator is asked again: two views may differ for a moment. */
const HOPS_MAX = 3;
/** A server that says nothing for this long after its ping was due is asked, and has as long again to answer. */
const PROBE_MS = 5_000;
/** A part of a try that takes longer is told, while it goes on. */
const SLOW_MS = 2_500;

/** @typedef {{ url: string, epoch: number }} Target */

/**
 * The try to get the next connection.
 * - `wait`: until `at`; `asked` if the server named the time. Then to `target`, or through the coordinator
 * - `route`, `open`, `greet`: an answer is due by `until`; at `at` it is told that it is late, if it was not
 * @typedef {{ step: 'wait' | 'route' | 'open' | 'greet', at: number, until: number, conn: number,
 *   target: Target | null, asked?: boolean }} Try
 */

/**
 * The connection in use. `retiring`: after `moved` it is read, and nothing new is written to it. `answerBy`: when
 * the answer to a probe is due, else 0.
 * @typedef {{ conn: number, retiring: boolean, since: number, heard: number, quiet: number, answerBy: number }} Current
 */

/**
 * The connections of a client: the one in use, and the try to get the next one. There is a try only while the
 * connection in use is gone or retiring. A retiring connection is still read, and closed when the next one is
 * welcomed: make before break.
 */
export class Link {
  #core;
  #backoff;
  /** @type {Current | null} */
  #current = null;
  /** @type {Try | null} */
  #next = null;
  #last = 0;
  #hops = 0;
  /** Whether a fresh token is asked for: the last was not accepted. */
  #askedFresh = false;

  /**
   * @param {Core} core
   * @param {Backoff} backoff
   */
  constructor(core, backoff) {
    this.#core = core;
    this.#backoff = backoff;
  }

  start() {
    this.#backoff.reset();
    this.#askedFresh = false;
    this.#wait(0, null);
  }

  /** The connection that commands go over; 0 if there is none. */
  get writes() {
    return this.#current && !this.#current.retiring ? this.#current.conn : 0;
  }

  /** @param {number} conn */
  isCurrent(conn) {
    return this.#current?.conn === conn;
  }

  /**
   * Whether `conn` waits for its `welcome`.
   * @param {number} conn
   */
  greets(conn) {
    return this.#next?.step === 'greet' && this.#next.conn === conn;
  }

  wake() {
    const c = this.#current;
    return Math.min(this.#next?.at ?? Infinity, c ? c.answerBy || c.heard + c.quiet : Infinity);
  }

  tick() {
    const { now } = this.#core;
    const c = this.#current;
    if (c?.answerBy && c.answerBy <= now) this.broken(c.conn, 'no pong');
    else if (c && c.heard + c.quiet <= now) this.#probe(c);
    const next = this.#next;
    if (!next || next.at > now) return;
    if (next.step === 'wait') this.#begin(next.target);
    else if (next.until > now) {
      next.at = next.until;
      this.#core.act('slow', next.conn);
    } else this.broken(next.conn, `no answer (${next.step}${next.target ? ` ${next.target.url}` : ''})`);
  }

  /** The network or the machine came back: nothing is waited for that only time was to bring. */
  hurry() {
    if (this.#next?.step === 'wait' && !this.#next.asked) this.#next.at = this.#core.now;
    if (this.#current) this.#probe(this.#current);
  }

  /** @param {Current} c */
  #probe(c) {
    if (c.answerBy) return;
    c.answerBy = this.#core.now + PROBE_MS;
    this.#core.write(c.conn, { type: 'ping' });
  }

  /**
   * @param {number} ms
   * @param {Target | null} target
   * @param {boolean} [asked]
   */
  #wait(ms, target, asked) {
    this.#next = { step: 'wait', at: this.#core.now + ms, until: 0, conn: 0, target, asked };
  }

  /** @param {Target | null} target */
  #begin(target) {
    const conn = ++this.#last;
    this.#next = { step: target ? 'open' : 'route', ...this.#within(TRY_TIMEOUT_MS), conn, target };
    if (target) this.#core.act('open', conn, target.url, this.#askedFresh);
    else this.#core.act('route', conn);
  }

  /** @param {number} ms */
  #within(ms) {
    const { now } = this.#core;
    return { at: now + SLOW_MS, until: now + ms };
  }

  /**
   * @param {number} conn
   * @param {Route} route
   */
  routed(conn, route) {
    if (this.#next?.conn === conn) this.#goto(route, route.connect_after_ms);
  }

  /**
   * @param {Target} target
   * @param {number} [after]
   */
  #goto(target, after = 0) {
    this.#wait(Math.min(after, SERVER_DELAY_MS_MAX), target, true);
  }

  /**
   * @param {number} conn
   * @param {string} token
   * @param {Cursor | null} [cursor] that the application kept
   */
  opened(conn, token, cursor) {
    const core = this.#core;
    const next = this.#next;
    if (next?.step !== 'open' || next.conn !== conn) return core.act('close', conn);
    this.#next = { ...next, step: 'greet', ...this.#within(WELCOME_TIMEOUT_MS) };
    core.inbox.begin(cursor);
    const place = core.inbox.hello() ?? undefined;
    const epoch = next.target?.epoch;
    const connect = { type: 'connect', token, device: core.device, epoch, cursor: place, rooms: /** @type {any[]} */ ([]) };
    connect.rooms = core.rooms.hello(FRAME_BYTES_MAX - bytes(JSON.stringify(connect)));
    core.write(conn, connect);
  }

  /**
   * `conn` was welcomed: it takes the place of the one in use.
   * @param {number} conn
   * @param {number} pingInterval milliseconds
   */
  promote(conn, pingInterval) {
    this.#drop();
    const { now } = this.#core;
    const quiet = pingInterval + PROBE_MS;
    this.#current = { conn, retiring: false, since: now, heard: now, quiet, answerBy: 0 };
    this.#next = null;
    this.#hops = 0;
    this.#askedFresh = false;
  }

  /**
   * Home moves: the next connection goes straight there.
   * @param {Target & { after_ms: number }} moved
   */
  retire(moved) {
    const next = this.#next;
    if (next?.target && next.target.epoch >= moved.epoch) return;
    if (this.#current) this.#current.retiring = true;
    this.#abandon();
    this.#goto(moved, moved.after_ms);
  }

  /**
   * `moved` in place of `welcome`.
   * @param {number} conn
   * @param {Target & { after_ms: number }} moved
   */
  movedOn(conn, moved) {
    this.#core.act('close', conn);
    if (++this.#hops <= HOPS_MAX) return this.#goto(moved, moved.after_ms);
    this.#hops = 0;
    this.#failed({ why: 'too many moves' });
  }

  /**
   * An error in place of `welcome`.
   * @param {number} conn
   * @param {ErrorBody} error
   */
  notWelcome(conn, { code, message, retryable, retry_after_ms: after }) {
    this.#core.act('close', conn);
    const token = code === 'unauthorized';
    const fatal = token || retryable ? undefined : new RoostError(code, message);
    this.#failed({ why: `${code}: ${message}`, after, token, fatal });
  }

  /** @param {number} conn */
  heard(conn) {
    if (this.#current?.conn !== conn) return;
    this.#current.heard = this.#core.now;
    this.#current.answerBy = 0;
  }

  /**
   * Gives a connection up that cannot be relied on.
   * @param {number} conn
   * @param {string} why
   */
  broken(conn, why) {
    this.#core.act('close', conn);
    this.trouble(conn, { why });
  }

  /**
   * @param {number} conn
   * @param {number} code
   * @param {string} reason
   */
  closed(conn, code, reason) {
    const why = `closed with ${code}${reason && `: ${reason}`}`;
    const token = code === CLOSE_BAD_TOKEN || code === CLOSE_TOKEN_EXPIRED;
    const fatal = token || reconnects(code) ? undefined : new RoostError('stopped', why, { closeCode: code });
    this.trouble(conn, { why, token, fatal, closeCode: code });
  }

  /**
   * @param {number} conn
   * @param {Trouble} trouble
   */
  trouble(conn, trouble) {
    if (this.#next?.conn === conn) this.#failed(trouble);
    else if (this.isCurrent(conn)) this.#lost(trouble);
  }

  /** @param {Trouble} trouble */
  #lost(trouble) {
    this.#drop();
    const core = this.#core;
    // A move goes on by itself, and meets the same trouble if it is one.
    if (trouble.fatal || !this.#next) this.#failed(trouble);
    if (core.isRunning) {
      core.setState('reconnecting', new RoostError('connection', trouble.why, { closeCode: trouble.closeCode }));
    }
  }

  /**
   * Schedules the next try, through the coordinator.
   * @param {Trouble} trouble
   */
  #failed({ why, after = 0, token, fatal, closeCode }) {
    const core = this.#core;
    this.#next = null;
    if (token && this.#askedFresh) fatal = new RoostError('unauthorized', why, { closeCode });
    if (fatal) return core.fail(fatal);
    if (token) this.#askedFresh = true;
    core.met(why);
    after = Math.min(after, SERVER_DELAY_MS_MAX);
    const wait = after + Math.max(core.random() * after, this.#backoff.next());
    // Never now: what is due now has been looked at.
    this.#wait(Math.max(wait, 1), null, after > 0);
  }

  #abandon() {
    if (this.#next?.conn) this.#core.act('close', this.#next.conn);
    this.#next = null;
  }

  #drop() {
    const old = this.#current;
    if (!old) return;
    this.#core.act('close', old.conn);
    if (this.#core.now - old.since >= STABLE_MS) this.#backoff.reset();
    this.#current = null;
  }

  close() {
    this.#abandon();
    this.#drop();
  }
}
