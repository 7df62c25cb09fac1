/** @import { Action, Command, Cursor, Input, State } from '../types.js' */
import { backoff } from './backoff.js';
import { RoostError } from '../error.js';
import { InboxPlace } from './inbox.js';
import { Link } from './link.js';
import { Outbox } from './outbox.js';
import { Rooms } from './rooms.js';
import { Signals } from './signals.js';
import { Watches } from './watches.js';

/**
 * The protocol of a client as plain state: `step(input, now) -> actions`, without a socket, a clock or a timer. It
 * owns what is unanswered, what was received and which connections there are. The carrier carries; it decides
 * nothing.
 */
export class Core {
  now = 1;
  /** @type {Action[]} */
  #actions = [];
  /** @type {State} */
  state = 'disconnected';
  /** Why the client failed. @type {RoostError | null} */
  failure = null;
  /** What the last try to connect met. */
  lastTrouble = 'no try yet';
  /** Known from the first `welcome` on; later ones must name the same. @type {string | undefined} */
  user = undefined;
  #owned = 0;
  /** The user's home as of the last welcome. */
  node = '';

  /**
   * @param {object} config
   * @param {string} [config.device]
   * @param {Cursor} [config.cursor]
   * @param {number} [config.queueMax]
   * @param {[number, number]} [config.backoffMs]
   * @param {() => number} [config.random]
   */
  constructor({ device, cursor, queueMax = 1024, backoffMs: [min, max] = [250, 20_000], random = Math.random }) {
    const waits = () => backoff(min, max, random);
    this.device = device;
    this.random = random;
    this.outbox = new Outbox(queueMax, waits, (p, error, ok) => {
      if (error?.code === 'not_sent') {
        error.message = this.lastTrouble;
        // No later connection names the room, so it is left.
        if (p.command.leave) error = null;
      }
      for (const { ticket } of p.waiters) this.act('answer', ticket, error, ok);
    });
    this.inbox = new InboxPlace(cursor);
    this.rooms = new Rooms(this);
    this.watches = new Watches(this);
    this.signals = new Signals();
    this.link = new Link(this, waits());
  }

  /**
   * Takes one input at `now`, in ms of a clock that never goes back.
   * @param {Input} input
   * @param {number} now
   * @returns {Action[]}
   */
  step([name, ...args], now) {
    this.now = Math.max(now, this.now);
    const { link, inbox, outbox, signals } = this;
    /** @type {any} */
    const part = [this, link, inbox, outbox, signals].find((part) => name in part);
    part[name](...args);
    this.tick();
    const actions = this.#actions;
    this.#actions = [];
    return actions;
  }

  /** When `tick` is due next. */
  wake() {
    const live = this.link.writes > 0;
    const told = live ? Math.min(this.inbox.due(), this.signals.due()) : Infinity;
    return Math.min(this.link.wake(), this.outbox.wake(live), told);
  }

  get isRunning() {
    return this.state !== 'disconnected' && this.state !== 'failed';
  }

  /** What time and the last input made possible. */
  tick() {
    const { link, outbox, signals, now } = this;
    if (this.isRunning) link.tick();
    if (outbox.tick(now, link.writes > 0) && link.writes) link.broken(link.writes, 'no reply');
    const conn = link.writes;
    if (!conn) return signals.clear();
    for (const { id, text, join } of outbox.take(now)) {
      this.act('write', conn, text ?? this.rooms.frame(id, /** @type {any} */ (join)));
    }
    const signal = signals.take(now);
    if (signal) this.act('offer', conn, signal);
    for (const frame of this.inbox.take(now)) this.write(conn, frame);
  }

  start() {
    if (this.isRunning) return;
    this.failure = null;
    this.link.start();
    this.setState('connecting', null);
  }

  stop() {
    const { link } = this;
    if (link.writes) for (const frame of this.inbox.take(this.now, true)) this.write(link.writes, frame);
    this.#end('disconnected', null);
  }

  /**
   * @param {Command} command
   * @param {number} ticket
   * @param {number} expires
   */
  command(command, ticket, expires) {
    const { join, leave } = command;
    if (command.connect && this.state === 'connected') return this.act('answer', ticket, null);
    const error = this.failure
      ? new RoostError('closed', this.failure.message, { cause: this.failure })
      : join && this.rooms.isFullFor(join.room)
        ? new RoostError('too_many')
        : this.outbox.push(command, { ticket, expires });
    if (error) return this.act('answer', ticket, error);
    this.watches.wants(command);
    if (!leave) return;
    this.rooms.leave(leave);
    this.outbox.withdraw(
      (p) => p.command.join?.room === leave,
      () => new RoostError('left'),
    );
  }

  /**
   * @param {number} conn
   * @param {any} f the frame
   */
  frame(conn, f) {
    const { link } = this;
    link.heard(conn);
    if (f.type === 'ping') return this.write(conn, { type: 'pong' });
    if (link.greets(conn)) {
      if (f.type === 'welcome') this.#welcome(conn, f);
      else if (f.type === 'moved') link.movedOn(conn, f);
      else if (f.type === 'reply' && f.error && f.id == null) link.notWelcome(conn, f.error);
    } else if (link.isCurrent(conn)) {
      switch (f.type) {
        case 'reply':
          return this.#reply(f);
        case 'message':
          return this.#message(conn, f);
        case 'reset':
          return this.#reset(f);
        case 'moved':
          return link.retire(f);
        case 'member':
        case 'signal':
          if (!f.room) this.tell('inbox', f.type, f);
          else if (this.rooms.get(f.room)) this.tell(`room:${f.room}`, f.type, f);
          return;
        case 'presence':
          return this.watches.changed(f);
        case 'token_expiring':
          return this.act('token', conn);
      }
    }
  }

  /**
   * @param {number} conn
   * @param {any} w
   */
  #welcome(conn, w) {
    this.user ??= w.user;
    if (w.user !== this.user) {
      return this.fail(new RoostError('other_user'));
    }
    this.link.promote(conn, w.ping_interval_ms);
    this.outbox.withdraw((p) => p.own || p.command.connect);
    this.outbox.requeue();
    this.node = w.node;
    this.setState('connected', null);
    this.missed('inbox', `user:${this.user}`, this.inbox.welcome(w), w.through);
    this.#again(w.rooms);
  }

  /**
   * What the server told of rooms, or a fresh token, may have ended is asked for again.
   * @param {any[]} [told]
   */
  #again(told) {
    this.rooms.welcome(told);
    this.watches.welcome();
  }

  /** @param {any} reply */
  #reply(reply) {
    const p = this.outbox.reply(reply, this.now);
    if (!p) return;
    const { id, ok } = reply;
    const { join, leave } = p.command;
    let error = reply.error ? new RoostError(reply.error.code, reply.error.message, { id }) : null;
    if (join && !error) this.rooms.joined(join, p.own, ok);
    else if (join && p.own) this.rooms.lose(join.room, /** @type {RoostError} */ (error));
    if (leave) {
      this.rooms.leave(leave);
      // It was not in the room: over this connection, or by a first copy of this command.
      if (error?.code === 'not_found') error = null;
    }
    this.watches.answered(p.command, p.own, error, ok);
    // The server does not say what the fresh token does not allow; a refusal does.
    if (p.command.lane === 'refresh' && !error) this.#again();
    this.outbox.answer(p, error, { id, ...ok });
  }

  /**
   * Whom a stream is told to, and where this client is in it.
   * @param {string} stream
   */
  #reader(stream) {
    if (stream === `user:${this.user}`) return { to: 'inbox', place: this.inbox };
    return { to: stream, place: this.rooms.get(stream.slice('room:'.length))?.place };
  }

  /**
   * @param {number} conn
   * @param {any} m
   */
  #message(conn, m) {
    const { to, place } = this.#reader(m.stream);
    const verdict = place?.message(m);
    // What is taken of a room is not acknowledged to anybody.
    const ack = (to === 'inbox' && place?.received) || undefined;
    if (verdict === 'hole') this.link.broken(conn, 'a hole');
    if (verdict === 'shown' && ack) this.tell(to, '', null, ack);
    if (verdict !== 'show') return;
    let settled;
    if (ack && m.kind === 'result') {
      const { type, event_id: id } = m.data;
      this.outbox.withdraw(
        (p) => p.command.result && p.command.id === id && p.waiters.length,
        () => {
          settled = true;
          return type === 'event_timeout' ? new RoostError('timeout', type, { id, sent: true }) : null;
        },
        m.data,
      );
    }
    this.tell(to, m.kind, m, ack, settled);
  }

  /** @param {any} reset */
  #reset({ stream, cursor, through }) {
    const { to, place } = this.#reader(stream);
    this.missed(to, stream, place?.reset(cursor), through);
  }

  /**
   * @param {string} to
   * @param {string} stream
   * @param {{ from: Cursor | null, cursor: Cursor } | null | undefined} missed
   * @param {string} [through]
   */
  missed(to, stream, missed, through) {
    if (missed) this.tell(to, 'gap', { stream, ...missed, through }, to === 'inbox' ? missed.cursor : undefined);
  }

  /**
   * A fresh token for a connection that goes on. If it is refused the connection ends with the one it has, and the
   * way back asks again.
   * @param {number} conn
   * @param {string} token
   */
  token(conn, token) {
    // After `moved` the next connection shows it.
    if (this.link.writes === conn) this.own({ type: 'refresh', token }, { lane: 'refresh' });
  }

  /**
   * Trouble that ends nothing: the application may want to know of it.
   * @param {string} why
   */
  met(why) {
    this.lastTrouble = why;
    this.tell('client', 'error', new RoostError('connection', why));
  }

  /**
   * Stops for good, or until the application connects again.
   * @param {RoostError} failure
   */
  fail(failure) {
    this.failure = failure;
    this.#end('failed', failure);
  }

  /**
   * @param {State} state
   * @param {RoostError | null} reason
   */
  #end(state, reason) {
    this.link.close();
    this.node = '';
    this.outbox.withdraw(
      () => true,
      ({ first, command: { id, connect } }) =>
        (connect && reason) || new RoostError('closed', reason?.message, { id, sent: first > 0, cause: reason }),
    );
    this.setState(state, reason);
  }

  /**
   * Asks for something that nobody called for.
   * @param {object | null} frame without its id
   * @param {Omit<Command, 'id'>} command
   */
  own(frame, command) {
    const id = `:sdk:${++this.#owned}`;
    this.outbox.push({ ...command, id, alone: true, text: frame ? JSON.stringify({ ...frame, id }) : undefined });
  }

  /**
   * @param {number} conn
   * @param {object} frame
   */
  write(conn, frame) {
    this.act('write', conn, JSON.stringify(frame));
  }

  /** @param {[to: string, name: string, value: any, ack?: Cursor, settled?: boolean]} event */
  tell(...event) {
    this.act('tell', ...event);
  }

  /** @param {Action} action */
  act(...action) {
    this.#actions.push(action);
  }

  /**
   * @param {State} state
   * @param {RoostError | null} reason
   */
  setState(state, reason) {
    const previous = this.state;
    if (state === previous) return;
    this.state = state;
    this.tell('client', 'state', { previous, current: state, reason });
  }
}
