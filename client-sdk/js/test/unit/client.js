// A core with a clock of its own, and what it asked for, by name.
import { Core } from '../../src/core/core.js';

export const at = (generation, offset) => ({ generation, offset });

export class Client {
  now = 1000;
  told = [];
  answers = new Map();
  written = [];
  asked = [];
  tickets = 0;

  constructor(config = {}) {
    this.core = new Core({ random: () => 0.5, ...config });
  }

  step(...input) {
    for (const [name, ...args] of this.core.step(input, this.now)) {
      if (name === 'tell') this.told.push({ to: args[0], name: args[1], value: args[2], ack: args[3] });
      else if (name === 'answer') this.answers.set(args[0], args[1] ?? { ok: args[2] });
      else if (name === 'write' || name === 'offer')
        this.written.push({ conn: args[0], frame: JSON.parse(args[1]), text: args[1] });
      else this.asked.push([name, ...args]);
    }
    return this;
  }

  /** Lets time pass, with every tick that is due on the way. */
  pass(ms) {
    const end = this.now + ms;
    for (let wake; (wake = this.core.wake()) <= end;) {
      this.now = Math.max(this.now, wake);
      this.step('tick');
    }
    this.now = end;
    return this;
  }

  /** What was asked for and not looked at, of this name. */
  take(name) {
    const found = this.asked.filter((a) => a[0] === name);
    this.asked = this.asked.filter((a) => a[0] !== name);
    return found.map(([, ...args]) => args);
  }

  frames(type) {
    const found = this.written.filter((w) => !type || w.frame.type === type);
    this.written = this.written.filter((w) => !found.includes(w));
    return found.map((w) => w.frame);
  }

  events(name) {
    const found = this.told.filter((e) => e.name === name);
    this.told = this.told.filter((e) => e.name !== name);
    return found;
  }

  states() {
    return this.events('state').map((e) => e.value.current);
  }

  frame(conn, frame) {
    return this.step('frame', conn, frame);
  }

  /** Goes through route and open, up to the frame `connect`. */
  dial(url = 'ws://a', epoch = 1) {
    const [[routing]] = this.take('route');
    this.step('routed', routing, { url, epoch, connect_after_ms: 0 });
    return this.socket();
  }

  socket() {
    const [[conn]] = this.take('open');
    this.step('opened', conn, 'token');
    return conn;
  }

  welcome(conn, fields = {}) {
    return this.frame(conn, {
      type: 'welcome',
      session: 's',
      user: 'alice',
      node: 'ws-1',
      vnode: 1,
      epoch: 1,
      ping_interval_ms: 25_000,
      cursor: at(1, 0),
      recovered: true,
      replayed: 0,
      rooms: [],
      ...fields,
    });
  }

  connected(fields) {
    this.step('start');
    const conn = this.dial();
    this.welcome(conn, fields);
    this.frames('connect');
    return conn;
  }

  /** Shows the server a fresh token, which it takes. */
  refresh(conn) {
    this.step('token', conn, 'fresh');
    return this.reply(conn, this.frames('refresh')[0].id);
  }

  /** Gives a command, and the ticket to look for its answer under. */
  command(command, timeout = 30_000) {
    const ticket = ++this.tickets;
    this.step('command', command, ticket, this.now + timeout);
    return ticket;
  }

  send(id, to = 'bob', timeout) {
    return this.command({ id, lane: `to:${to}`, text: JSON.stringify({ type: 'send', id, to, data: 1 }) }, timeout);
  }

  event(id, timeout = 60_000) {
    const text = JSON.stringify({ type: 'event', id, data: 1 });
    return this.command({ id, lane: 'event', result: true, text }, timeout);
  }

  /** The next message of the inbox is the result of an event. */
  result(conn, offset, data) {
    return this.message(conn, at(1, offset), `r${offset}`, 'user:alice', { kind: 'result', from: '#processor', data });
  }

  join(room, options = {}) {
    // As `Room.join` does: what is not asked for is named, too.
    const join = { room, presence: undefined, info: undefined, ...options };
    return this.command({ id: `j${this.tickets}`, lane: `in:${room}`, alone: true, join });
  }

  leave(room) {
    const id = `l${this.tickets}`;
    const text = JSON.stringify({ type: 'leave', id, room });
    return this.command({ id, lane: `in:${room}`, alone: true, text, leave: room });
  }

  reply(conn, id, ok = {}) {
    return this.frame(conn, { type: 'reply', id, ok });
  }

  refuse(conn, id, code, more = {}) {
    return this.frame(conn, { type: 'reply', id, error: { code, message: code, retryable: false, ...more } });
  }

  message(conn, cursor, id, stream = 'user:alice', more = {}) {
    return this.frame(conn, {
      type: 'message',
      stream,
      ...cursor,
      id,
      kind: 'message',
      from: 'bob',
      at: '',
      data: 1,
      ...more,
    });
  }
}
