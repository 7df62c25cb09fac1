/** @import { Core } from './core.js' */
/** @import { Command, Presence } from '../types.js' */
/** @import { RoostError } from '../error.js' */

/** Users in one frame: with the longest names, all to be escaped, that is 52 KB. */
const CHUNK = 200;

/**
 * Whom this client watches. A user is kept from the answer to the application's `watch` until it is unwatched. Over a
 * new connection, and with a fresh token, everyone is watched again, and what differs from what was told is told then.
 */
export class Watches {
  #core;
  /** What was told of each. */
  #users = /** @type {Map<string, string>} */ (new Map());
  /** Unwatched since they were asked for. */
  #declined = /** @type {Set<string>} */ (new Set());

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /**
   * The application changes whom it watches. Nothing more is told at once of whom it unwatches.
   * @param {Command} command
   */
  wants({ watch = [], unwatch = [] }) {
    for (const user of watch) this.#declined.delete(user);
    for (const user of unwatch) {
      this.#users.delete(user);
      this.#declined.add(user);
    }
  }

  /**
   * @param {Command} command
   * @param {boolean} own
   * @param {RoostError | null} error
   * @param {{ users?: Presence[] }} [ok]
   */
  answered({ watch = [], unwatch = [] }, own, error, ok) {
    for (const user of unwatch) this.#declined.delete(user);
    if (error && own) return this.#refused(watch, error);
    if (error) return;
    for (const user of watch) {
      if (!own && !this.#declined.has(user)) this.#users.set(user, this.#users.get(user) ?? '');
    }
    ok?.users?.forEach((presence) => this.changed(presence));
  }

  /**
   * One of these cannot be watched any more; a refusal does not say which.
   * @param {string[]} users
   * @param {RoostError} error
   */
  #refused(users, error) {
    const half = users.length >> 1;
    if (half) for (const part of [users.slice(0, half), users.slice(half)]) this.#ask(part);
    else if (this.#users.delete(users[0])) this.#core.tell('presence', 'lost', { user: users[0], error });
  }

  welcome() {
    const all = [...this.#users.keys()];
    while (all.length) this.#ask(all.splice(0, CHUNK));
  }

  /** @param {string[]} users */
  #ask(users) {
    this.#core.own({ type: 'watch', users }, { lane: 'watch', watch: users });
  }

  /** @param {Presence} presence */
  changed({ user, status, since, last_seen }) {
    const presence = { user, status, since, last_seen };
    const text = JSON.stringify(presence);
    if ((this.#users.get(user) ?? text) === text) return;
    this.#users.set(user, text);
    this.#core.tell('presence', 'change', presence);
  }
}
