/** @import { CallOptions, Cursor, Cursors, EventResult, State, StateChange } from './types.js' */
import { Carrier } from './carrier.js';
import { Core } from './core/core.js';
import { Emitter } from './emitter.js';
import { Inbox } from './inbox.js';
import { name } from './part.js';
import { Presence } from './presence.js';
import { Room } from './room.js';

/**
 * @typedef {object} RoostOptions
 * @property {() => string | Promise<string>} getToken gives a token (a JWT): the first one, and fresh ones before the
 *   last expires or when it is not accepted. An error, and what is no token, count as a failed
 *   try; a {@link RoostError} stops the client
 * @property {string} [user] the user the tokens are for; read from their `sub` if absent
 * @property {string} [device] the device, which has an acknowledged cursor of its own on the server
 * @property {Cursor} [cursor] where to go on in the inbox: an earlier client's `inbox.cursor`
 * @property {Cursors} [cursors] keeps that cursor for the next client
 * @property {'automatic' | 'manual'} [ack] whether a message counts as dealt with once listeners returned, or when
 *   the application says so with `inbox.ack`
 * @property {number} [queueMax] calls that may wait for a connection or an answer (1,024)
 * @property {[number, number]} [backoffMs] bounds of the ceiling of the waits before a new try (250 ms, 20 s)
 * @property {any} [WebSocket] where there is none: `ws` in Node
 */

/**
 * A client of Roost: one user's connection, which it keeps over failures and moves.
 *
 * What it promises: of what is sent to one user or published to one room nothing is lost, nothing comes twice and the
 * order is kept, as long as the calls are not given up; what arrives is shown once and in order, or told as a `gap`.
 *
 * - `state`: the state changed
 * - `error`: what a try to connect met: what was tried, and why it failed. It is no state: the client goes on trying
 * @extends {Emitter<{ state: StateChange, error: import('./error.js').RoostError }>}
 */
export class Roost extends Emitter {
  #carrier;
  /** @type {Map<string, Room>} */
  #rooms = new Map();
  #acks;
  /** Whether the last message came while nothing listened for one. @type {boolean | undefined} */
  #unheard;
  /** Whether an error was said on the console, which nobody else heard, before there ever was a connection. */
  #warned = false;

  /**
   * @param {string} url of a coordinator; in a page it may be relative
   * @param {RoostOptions} options
   */
  constructor(url, options) {
    super();
    options ??= /** @type {any} */ ({});
    this.#carrier = new Carrier(new Core(options), { ...options, url }, (...event) => this.#tell(...event));
    this.#acks = options.ack !== 'manual';
    this.inbox = new Inbox(this.#carrier);
    this.presence = new Presence(this.#carrier);
  }

  /** @returns {State} */
  get state() {
    return this.#carrier.core.state;
  }

  /** The node that this client is connected to. */
  get node() {
    return this.#carrier.core.node;
  }

  /** Known from the first connection on. */
  get user() {
    return this.#carrier.core.user;
  }

  /**
   * Connects, and stays connected until `disconnect()`.
   *
   * The promise is for the wait alone. It is fulfilled when the client is connected, and rejected when it failed for
   * good, with why, at once if it cannot even try (`bad_options`); with `not_sent` after `timeoutMs`, with what the
   * last try met as the message; with `closed` by `disconnect()`; and by `signal`. After `timeoutMs` and `signal` the
   * client goes on trying: only `disconnect()` and a failure end that. What each try meets is an `error` event.
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  async connect(options) {
    await this.#carrier.start(options);
  }

  /** Ends the connection and every call that waits. `connect()` goes on from where it was. */
  disconnect() {
    this.#carrier.stop();
  }

  /**
   * Sends to a user's inbox and waits until the message is confirmed. Sends to one user arrive in the order of these
   * calls. A repeat under the same `id` is never a second message.
   * @param {string} to a user, who need not be connected
   * @param {any} [data] any JSON value
   * @param {{ id?: string, receipt?: boolean } & CallOptions} [options] `receipt`: be told when it was seen
   * @returns {Promise<{ id: string, at: string }> & { id: string }} its id is there at once
   */
  send(to, data = null, { id, receipt, ...options } = {}) {
    return this.#carrier.call({ type: 'send', to, data, receipt }, { id, lane: `to:${to}` }, options);
  }

  /**
   * Gives an event to the application's processor and waits for its result, over lost connections and moves. Events
   * come to the processor in the order of these calls. A repeat under the same `id` is never a second event.
   *
   * Every result is a message of the inbox, too (`inbox.on('result')`): also one that nobody waits for, because it
   * came too late, or is of an earlier process or of another device.
   * @param {any} [data] any JSON value
   * @param {{ id?: string } & CallOptions} [options] `timeoutMs`: how long to wait for the result (60 s)
   * @returns {Promise<EventResult> & { id: string }} its id, by which a late result is known, is there at once. Fails
   *   with `timeout` if the cluster says that no result came in its time, with `no_result` after `timeoutMs`; the
   *   result may still come
   */
  event(data = null, { id, ...options } = {}) {
    const how = { id, lane: 'event', result: true };
    return this.#carrier.call({ type: 'event', data }, how, { timeoutMs: 60_000, ...options });
  }

  /**
   * Tells every connection of a user something that is not kept; like {@link Room.signal}.
   * @param {string} to
   * @param {string} kind at most 64 bytes
   * @param {any} [data] any JSON value
   */
  signal(to, kind, data) {
    this.#carrier.signal({ to: name('user', to) }, kind, data);
  }

  /**
   * @param {string} id 1 to 128 bytes
   * @returns {Room} the same for the same id
   */
  room(id) {
    const room = this.#rooms.get(id) ?? new Room(name('room', id), this.#carrier);
    this.#rooms.set(id, room);
    return room;
  }

  /**
   * @param {string} to
   * @param {string} name
   * @param {any} value
   * @param {Cursor} [ack]
   * @param {boolean} [settled]
   */
  #tell(to, name, value, ack, settled) {
    /** @type {Emitter<any>} */
    const target =
      { client: this, inbox: this.inbox, presence: this.presence }[to] ?? this.room(to.slice('room:'.length));
    const isHeard = target.emit(name, value);
    if (name === 'error' && !(this.user || isHeard || this.#warned)) {
      this.#warned = true;
      console.warn(`Roost: ${value.message}`);
    }
    if (!ack || !this.#acks) return;
    /** @type {unknown} */
    let isTaken = this.inbox.isHeard('message');
    // An ack is for all before it, too: a result's must not be for messages that nobody was told.
    if (name === 'message') this.#unheard = !(isTaken = isHeard);
    if (name === 'result' && !this.#unheard) isTaken ||= settled || isHeard;
    if (isTaken) this.#carrier.step('mark', 'ack', ack);
  }
}
