/** @import { Command, ErrorBody } from '../types.js' */
/** @import { Backoff } from './backoff.js' */
import { RoostError } from '../error.js';

/** Commands that a session may have unanswered. */
const UNANSWERED_MAX = 256;
/** The server answers `unknown` by itself after 20 s; a connection that says nothing for 10 s more is replaced. */
const REPLY_TIMEOUT_MS = 30_000;
/** How long the server recognises a repeated id: after that a repeat would be a second message. */
const DEDUP_WINDOW_MS = 15 * 60_000;
/** A refused command is not repeated sooner, nor later than this after it may be, whatever the server asks. */
const RETRY_MS_MIN = 10;
const RETRY_MS_MAX = 60_000;

/**
 * - `queued`: to be written, for the first time or again
 * - `written`: over the connection of now, `at`
 * - `refused`: with a retryable error; to be written again `at`
 * - `stored`: an event that was accepted and has no result yet
 * @typedef {object} Pending
 * @property {Command} command
 * @property {{ ticket: number, expires: number }[]} waiters
 * @property {'queued' | 'written' | 'refused' | 'stored'} stage
 * @property {number} at
 * @property {number} first when it was first written; 0 if never
 * @property {boolean} holds whether those of its lane that come after it wait
 * @property {boolean} own nobody asked for it but the core
 * @property {Backoff} backoff
 */

/**
 * The commands that have no final answer yet, in the order in which the application gave them, and the rules for
 * writing and repeating them (docs/PROTOCOL.md, order and moving).
 */
export class Outbox {
  #max;
  #backoff;
  /** @type {Map<string, Pending>} */
  #pending = new Map();

  /**
   * @param {number} max calls that may wait
   * @param {() => Backoff} backoff
   * @param {(p: Pending, error: RoostError | null, ok?: any) => void} answer tells who waits
   */
  constructor(max, backoff, answer) {
    this.#max = max;
    this.#backoff = backoff;
    this.answer = answer;
  }

  /**
   * Takes a command over; its caller waits until `expires`. An id that is still waiting for its answer gets one
   * more caller instead. Without a caller it is the core that wants it, for as long as this connection lasts.
   * @param {Command} command
   * @param {{ ticket: number, expires: number }} [waiter]
   * @returns {RoostError | null} why it was not taken
   */
  push(command, waiter) {
    let waiting = 0;
    for (const p of this.#pending.values()) if (!p.own) waiting += p.waiters.length || 1;
    if (waiter && waiting >= this.#max && !command.connect) return new RoostError('queue_full');
    const p = this.#pending.get(command.id);
    if (p && p.command.text !== command.text) return new RoostError('conflict');
    if (p && waiter) p.waiters.push(waiter);
    if (p) return null;
    const [waiters, holds] = [waiter ? [waiter] : [], !!command.alone];
    const backoff = this.#backoff();
    this.#pending.set(command.id, { command, waiters, stage: 'queued', at: 0, first: 0, holds, own: !waiter, backoff });
    return null;
  }

  /** @param {string} lane */
  has(lane) {
    for (const p of this.#pending.values()) if (p.command.lane === lane) return true;
    return false;
  }

  /**
   * Forgets commands, and tells who waited for them. An event that is told its result before it has an answer stays until
   * it has one: of one whose answer is `unknown` the server wants the repeat before it takes any later event.
   * @param {(p: Pending) => unknown} unwanted
   * @param {(p: Pending) => RoostError | null} [error]
   * @param {any} [ok] the result
   */
  withdraw(unwanted, error = () => null, ok) {
    for (const [id, p] of this.#pending) {
      if (!unwanted(p)) continue;
      const { waiters, first, stage } = p;
      p.waiters = [];
      if (!ok || !first || stage === 'stored') this.#pending.delete(id);
      this.answer({ ...p, waiters }, error(p), ok);
    }
  }

  /**
   * A caller does not wait any more.
   * @param {number} ticket
   */
  abandon(ticket) {
    for (const p of this.#pending.values()) p.waiters = p.waiters.filter((w) => w.ticket !== ticket);
  }

  /**
   * What may be written now over a connection that was welcomed: first what was written before, then the rest, both
   * in order. (Within a lane what was written before always comes first.)
   * @param {number} now
   */
  take(now) {
    const held = new Set();
    /** @type {[Pending[], Pending[]]} */
    const open = [[], []];
    let room = UNANSWERED_MAX;
    for (const p of this.#pending.values()) {
      if (p.stage === 'written') room--;
      if (held.has(p.command.lane)) continue;
      if (p.stage === 'queued' && !p.command.connect) open[p.first ? 0 : 1].push(p);
      if (p.holds) held.add(p.command.lane);
    }
    const taken = open.flat().slice(0, room);
    for (const p of taken) {
      p.stage = 'written';
      p.at = now;
      p.first ||= now;
    }
    return taken.map((p) => p.command);
  }

  /**
   * Takes an answer.
   * @param {{ id: string, error?: ErrorBody }} reply
   * @param {number} now
   * @returns {Pending | null} what it answers for good
   */
  reply({ id, error }, now) {
    const p = this.#pending.get(id);
    if (!p || p.stage === 'stored') return null;
    if (error?.retryable) {
      if (p.stage !== 'written') return null;
      p.stage = 'refused';
      p.at = now + Math.min(Math.max(error.retry_after_ms ?? p.backoff.next(), RETRY_MS_MIN), RETRY_MS_MAX);
      p.holds = true;
      return null;
    }
    if (!error && p.command.result) {
      p.stage = 'stored';
      p.holds = false;
      return null;
    }
    this.#pending.delete(id);
    return p;
  }

  /** Over a new connection everything unanswered is to be written again. */
  requeue() {
    for (const p of this.#pending.values()) if (p.stage === 'written') p.stage = 'queued';
  }

  /**
   * Answers the callers whose time is up.
   * @param {number} now
   * @param {boolean} live whether replies can be expected
   * @returns {boolean} whether the connection owes an answer for too long, or was left waiting for a command that is
   *   given up
   */
  tick(now, live) {
    let renew = false;
    for (const [id, p] of this.#pending) {
      if (p.stage === 'refused' && p.at <= now) p.stage = 'queued';
      const givenUp = isOver(p, now);
      const over = p.waiters.filter((w) => givenUp || w.expires <= now);
      if (over.length) {
        p.waiters = p.waiters.filter((w) => !over.includes(w));
        this.answer({ ...p, waiters: over }, timedOut(p));
      }
      if (givenUp || (!p.waiters.length && !p.own && (!p.first || p.stage === 'stored'))) this.#pending.delete(id);
      if (givenUp || (live && p.stage === 'written' && p.at + REPLY_TIMEOUT_MS <= now)) renew = true;
    }
    return renew;
  }

  /**
   * When {@link tick} may next have something to do.
   * @param {boolean} live
   */
  wake(live) {
    let wake = Infinity;
    for (const p of this.#pending.values()) {
      for (const w of p.waiters) wake = Math.min(wake, w.expires);
      if (p.stage === 'refused') wake = Math.min(wake, p.at);
      if (live && p.stage === 'written') wake = Math.min(wake, p.at + REPLY_TIMEOUT_MS);
      if (p.first && p.stage !== 'stored') wake = Math.min(wake, p.first + DEDUP_WINDOW_MS);
    }
    return wake;
  }
}

/**
 * Whether a repeat might be taken for a new command.
 * @param {Pending} p
 * @param {number} now
 */
const isOver = ({ first, stage }, now) => first > 0 && stage !== 'stored' && now >= first + DEDUP_WINDOW_MS;

/**
 * What never left is withdrawn; what left may have been accepted.
 * @param {Pending} p
 */
function timedOut({ first, stage, command: { id } }) {
  const code = first ? (stage === 'stored' ? 'no_result' : 'unknown') : 'not_sent';
  return new RoostError(code, code, { id, sent: first > 0 });
}
