/** @import { Core } from './core.js' */
/** @import { ErrorBody, Joined, Member, Members, RoomAt } from '../types.js' */
import { RoostError } from '../error.js';
import { Place } from './place.js';
import { bytes } from '../wire.js';

/** Rooms that one session may be in. */
const ROOMS_MAX = 200;

/**
 * @typedef {object} Room
 * @property {RoomAt} at as the application joined it last; without a cursor
 * @property {Place} place
 * @property {boolean} auto the server has everyone join it
 */

/**
 * The rooms of a client: where it is in each, and how it stays in them over connections. A room is kept from the
 * answer to the application's `join` until it is left: `connect` names it with the cursor up to which messages were
 * received, and what `welcome` does not grant is joined again, by a command of the core's own.
 */
export class Rooms {
  #core;
  /** @type {Map<string, Room>} */
  #rooms = new Map();
  /** What the last `connect` named. */
  #asked = /** @type {Set<string>} */ (new Set());
  /** Rooms that the server has everyone join, and the application left. */
  #declined = /** @type {Set<string>} */ (new Set());

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /** @param {string} room */
  get(room) {
    return this.#rooms.get(room);
  }

  /**
   * The rooms for a `connect` frame, as many as there is space for; the others are joined after it.
   * @param {number} space bytes
   */
  hello(space) {
    this.#asked.clear();
    const named = [];
    for (const [room, { at, place }] of this.#rooms) {
      const shown = { ...at, cursor: place.hello() ?? undefined };
      space -= bytes(JSON.stringify(shown)) + 1;
      if (space < 0) break;
      this.#asked.add(room);
      named.push(shown);
    }
    return named;
  }

  /**
   * The frame of a join that is written now.
   * @param {string} id
   * @param {RoomAt} at
   */
  frame(id, at) {
    const cursor = this.#rooms.get(at.room)?.place.hello() ?? at.cursor;
    return JSON.stringify({ type: 'join', id, ...at, cursor });
  }

  /** @param {string} room */
  isFullFor(room) {
    return this.#rooms.size >= ROOMS_MAX && !this.#rooms.has(room);
  }

  /**
   * At once: nothing more of it is shown, and no later connection names it.
   * @param {string} room
   */
  leave(room) {
    if (this.#rooms.get(room)?.auto) this.#declined.add(room);
    this.#rooms.delete(room);
  }

  /**
   * A join was accepted.
   * @param {RoomAt} at
   * @param {boolean} own
   * @param {Joined} joined
   */
  joined(at, own, joined) {
    const { cursor, ...kept } = at;
    const room = this.#rooms.get(at.room);
    this.#declined.delete(at.room);
    // In place: a join of the core's own that waits is to be written like this, too.
    if (room && !own) Object.assign(room.at, kept);
    if (!room && own) return;
    if (!room) this.#rooms.set(at.room, { at: kept, place: new Place(cursor), auto: false });
    this.#placed(at.room, joined);
  }

  /**
   * @param {string} name
   * @param {Joined} joined
   */
  #placed(name, joined) {
    const stream = `room:${name}`;
    this.#core.missed(stream, stream, this.#rooms.get(name)?.place.welcome(joined), joined.through);
    const members = membersOf(joined);
    if (members) this.#core.tell(stream, 'members', members);
  }

  /**
   * What `welcome` says of rooms. Those that it does not name are joined again.
   * @param {(Joined & { room: string, error?: ErrorBody })[]} [told]
   */
  welcome(told = []) {
    const missing = new Set(this.#rooms.keys());
    for (const w of told) {
      if (!missing.delete(w.room)) this.#unasked(w);
      else if (!w.error) this.#placed(w.room, w);
      else if (w.error.retryable) this.#again(w.room);
      else this.lose(w.room, new RoostError(w.error.code, w.error.message));
    }
    // Not named in `connect`: joined over the last connection meanwhile, or there was no space for it. Or there was no
    // `connect` but a fresh token, which may allow less.
    for (const room of missing) this.#again(room);
  }

  /**
   * A room that the client is not in: left since it was asked for, or one that everyone joins.
   * @param {Joined & { room: string, error?: ErrorBody }} w
   */
  #unasked(w) {
    const { room, error } = w;
    if (this.#asked.has(room) || this.#declined.has(room)) {
      // A command that is under way knows better.
      if (!error && !this.#core.outbox.has(`in:${room}`)) {
        this.#core.own({ type: 'leave', room }, { lane: `in:${room}`, leave: room });
      }
    } else if (!error || error.retryable) {
      this.#rooms.set(room, { at: { room }, place: new Place(), auto: true });
      if (error) this.#again(room);
      else this.#placed(room, w);
    }
  }

  /** @param {string} room */
  #again(room) {
    this.#core.own(null, { lane: `in:${room}`, join: this.#rooms.get(room)?.at });
  }

  /**
   * A room that cannot be kept.
   * @param {string} room
   * @param {RoostError} error
   */
  lose(room, error) {
    if (this.#rooms.delete(room)) this.#core.tell(`room:${room}`, 'lost', error);
  }
}

/**
 * As an answer says it, if it does.
 * @param {{ members?: Member[], member_count?: number }} answer
 * @returns {Members | null}
 */
export function membersOf({ members, member_count: count = members?.length }) {
  return count === undefined ? null : { listed: members ?? null, count };
}
