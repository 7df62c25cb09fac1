/** @import { Core } from './core.js' */
/** @import { Presence } from '../types.js' */

/** Users in one frame: with the longest names, all to be escaped, that is 52 KB. */
const CHUNK = 200;
/** Users that one session may watch. */
const WATCHED_MAX = 1000;

/**
 * The users whose presence this client watches. A user is watched from the call on until it is unwatched or the
 * server refuses; after each `welcome` the core asks for all of them again.
 */
export class Watches {
  #core;
  /** @type {Set<string>} */
  users = new Set();

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /** @param {string[]} users */
  isFullFor(users) {
    return new Set([...this.users, ...users]).size > WATCHED_MAX;
  }

  /** @param {string[]} users */
  add(users) {
    for (const user of users) this.users.add(user);
  }

  /** @param {string[]} users */
  remove(users) {
    for (const user of users) this.users.delete(user);
  }

  welcome() {
    const all = [...this.users];
    for (let i = 0; i < all.length; i += CHUNK) {
      const users = all.slice(i, i + CHUNK);
      this.#core.own({ type: 'watch', users }, { lane: 'watch', watch: users });
    }
  }

  /** @param {Presence} presence */
  changed({ user, status, since, last_seen }) {
    if (this.users.has(user)) this.#core.tell('presence', 'change', { user, status, since, last_seen });
  }
}
