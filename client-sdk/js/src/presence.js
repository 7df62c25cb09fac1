/** @import { CallOptions, Presence as Status } from './types.js' */
import { Part, name } from './part.js';

/**
 * Who is there.
 *
 * - `change`: of a watched user, at first and whenever it changes
 * - `lost`: the server refuses to have this user watched any more
 * @extends {Part<{ change: Status, lost: { user: string, error: import('./error.js').RoostError } }>}
 */
export class Presence extends Part {
  /**
   * Watches users, over reconnects and moves, until `unwatch`.
   * @param {string[]} users
   * @param {CallOptions} [options]
   * @returns {Promise<Status[]>} what each shows now, in the order asked; a `change` has it too, if it is news
   */
  async watch(users, options) {
    return (await this.#ask('watch', users, options)).users;
  }

  /**
   * @param {string[]} users
   * @param {CallOptions} [options]
   */
  async unwatch(users, options) {
    await this.#ask('unwatch', users, options);
  }

  /**
   * Chooses what others see of this user; it holds for all connections and is kept.
   * @param {'online' | 'away' | 'invisible'} status
   * @param {CallOptions} [options]
   */
  async set(status, options) {
    await this.carrier.call({ type: 'status', status }, { lane: 'status', alone: true }, options);
  }

  /**
   * @param {'watch' | 'unwatch'} type
   * @param {string[]} users
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  async #ask(type, users, options) {
    for (const user of users) name('user', user);
    return this.carrier.call({ type, users }, { lane: 'watch', alone: true, [type]: users }, options);
  }
}
