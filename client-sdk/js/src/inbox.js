/** @import { CallOptions, Cursor, EventResult, Gap, History, Message, Signal } from './types.js' */
import { Part } from './part.js';
import { cursorOf } from './core/place.js';

/**
 * The user's inbox: every message once, in order.
 *
 * - `message`: somebody sent something
 * - `result`: the result of an `event` (`data` is an {@link EventResult}), which its promise has too if it waits
 * - `receipt`: about messages that were sent with `receipt`
 * - `gap`: messages were missed
 * - `signal`: something that is not kept
 *
 * Add listeners before `connect()`: what comes while nobody listens for `message` is not shown later, and not
 * acknowledged. A result that an `event` or a listener waits for is, unless the last message before it was not shown.
 * @extends {Part<{ message: Message, result: Message, receipt: Message, gap: Gap, signal: Signal }>}
 */
export class Inbox extends Part {
  /** Where another client of this device would go on (the option `cursor`). */
  get cursor() {
    return this.carrier.core.inbox.acked;
  }

  /**
   * With `ack: 'manual'`: the application has dealt with everything up to this message, or cursor of a gap. One is due
   * every few hundred messages at least: what left the server's hot window by the next reconnect is a gap.
   * @param {Cursor} place
   */
  ack(place) {
    this.carrier.step('mark', 'ack', cursorOf(place));
  }

  /**
   * The user has seen everything up to this message: those who asked for a receipt are told.
   * @param {Cursor} place
   */
  read(place) {
    this.carrier.step('mark', 'read', cursorOf(place));
  }

  /**
   * Messages that are still in the hot window, newest first; `before` of a page asks for what is older.
   * @param {{ before?: string, limit?: number } & CallOptions} [options]
   * @returns {Promise<History>}
   */
  async history(options) {
    // Whose inbox it is, the first welcome says.
    await this.carrier.ready(options);
    return this.carrier.history(`user:${this.carrier.core.user}`, options);
  }
}
