/** @import { CallOptions, Cursor, Gap, History, JoinOptions, MemberChange } from './types.js' */
/** @import { Members, Message, Signal } from './types.js' */
/** @import { Carrier } from './carrier.js' */
import { Part } from './part.js';
import { membersOf } from './core/rooms.js';
import { RoostError } from './error.js';
import { newId } from './id.js';
import { bytes, json } from './wire.js';

/** Largest `info` of a member. */
const INFO_BYTES_MAX = 1024;

/**
 * A room. Between `join` and `leave` the client stays in it over reconnects and moves.
 *
 * - `message`: each message once, in order
 * - `gap`: messages were missed
 * - `members`: who is there; at every join with `presence`, those after a reconnect included
 * - `member`: somebody came, changed `info`, or left
 * - `signal`: something that is not kept
 * - `lost`: the server refuses to have this client in the room any more
 * @extends {Part<{ message: Message, gap: Gap, members: Members, member: MemberChange, signal: Signal,
 *   lost: RoostError }>}
 */
export class Room extends Part {
  /**
   * @param {string} name
   * @param {Carrier} carrier
   */
  constructor(name, carrier) {
    super(carrier);
    this.name = name;
  }

  /**
   * Comes into the room; in a room that the client is in already this changes `presence` and `info`.
   * @param {JoinOptions & CallOptions} [options]
   * @returns {Promise<{ cursor: Cursor, recovered: boolean, through?: string, members: Members | null }>}
   */
  async join({ presence, info, cursor, timeoutMs, signal } = {}) {
    if (bytes(json(info ?? null)) > INFO_BYTES_MAX) throw new RoostError('too_large');
    const join = { room: this.name, presence, info, cursor };
    const ok = await this.carrier.command({ ...this.#within(), id: newId(), join }, { timeoutMs, signal });
    return { cursor: ok.cursor, recovered: ok.recovered, through: ok.through, members: membersOf(ok) };
  }

  /**
   * Leaves it: from this call on nothing of it is shown.
   * @param {CallOptions} [options]
   */
  async leave(options) {
    const { name } = this;
    await this.carrier.call({ type: 'leave', room: name }, { ...this.#within(), leave: name }, options);
  }

  /**
   * Publishes to the room, in which the client need not be, and waits until it is confirmed. Publishes to one room
   * come into it in the order of these calls. A repeat under the same `id` is never a second message.
   * @param {any} [data] any JSON value
   * @param {{ id?: string } & CallOptions} [options]
   * @returns {Promise<{ id: string, at: string, cursor?: Cursor }> & { id: string }} its id is there at once
   */
  publish(data = null, { id, ...options } = {}) {
    return this.carrier.call({ type: 'publish', room: this.name, data }, { id, lane: `room:${this.name}` }, options);
  }

  /**
   * Who is in the room, in which the client need not be.
   * @param {CallOptions} [options]
   * @returns {Promise<Members>}
   */
  async members(options) {
    const ok = await this.carrier.call({ type: 'members', room: this.name }, this.#within(), options);
    return /** @type {Members} */ (membersOf(ok));
  }

  /**
   * Messages that are still in the hot window, newest first; `before` of a page asks for what is older.
   * @param {{ before?: string, limit?: number } & CallOptions} [options]
   * @returns {Promise<History>}
   */
  history(options) {
    return this.carrier.history(`room:${this.name}`, options);
  }

  /**
   * Tells everyone in the room, in which the client must be: a cursor, typing, a reaction. It is not kept and not
   * confirmed; without a connection it is dropped, and of several of a kind that wait only the latest goes out.
   * @param {string} kind at most 64 bytes
   * @param {any} [data] any JSON value
   */
  signal(kind, data) {
    this.carrier.signal({ room: this.name }, kind, data);
  }

  /** Coming in, leaving and asking who is there depend on each other, so one is on the way at a time. */
  #within() {
    return { lane: `in:${this.name}`, alone: true };
  }
}
