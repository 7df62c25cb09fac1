// The core against a fake cluster that does its worst, from a seed: it loses sockets with all that is on them, answers
// late, refuses, forgets to answer, moves home, loses its data, and the application is slow to acknowledge.
//
// Promises checked: every send is applied exactly once and in order per stream; every message of the inbox and of the
// room is shown exactly once, in order, or told as a gap; nothing is acknowledged that the application does not have;
// and the rules for writing (holding a stream, nothing new over a retiring connection, the limit of unanswered sends).
import assert from 'node:assert/strict';
import { Core } from '../../src/core/core.js';

/** The last is a room, to which is published. */
const RECIPIENTS = ['bob', 'carol', 'dave', '#lobby'];
const INBOX = 'user:alice';
const ROOM = 'room:lobby';

/** Mulberry32: small, and the same everywhere. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const orderOf = (id) => Number(id.slice(1));

/** A stream that is read: the inbox, or the room. */
class Stream {
  generation = 1;
  ids = [];
  trimmed = 0;
  /** What the application has, by its own cursor, and how often it was told of a gap. */
  taken = null;
  shown = new Set();
  gaps = 0;
  toldGaps = 0;
  history = new Map([[1, this.ids]]);

  tail() {
    return { generation: this.generation, offset: this.ids.length };
  }

  /** What a session is told that shows `cursor`, and where it goes on. */
  place(cursor) {
    const tail = this.tail();
    const from = cursor ?? tail;
    const recovered = from.generation === tail.generation && from.offset >= this.trimmed && from.offset <= tail.offset;
    if (!recovered) this.toldGaps++;
    const position = recovered ? from.offset : tail.offset;
    return { position, joined: { cursor: tail, recovered, replayed: tail.offset - position, through: 'p' } };
  }

  /** A new generation begins, and some of what was there comes again. */
  lose(again) {
    const kept = this.ids.slice(Math.max(this.ids.length - again, 0));
    this.generation++;
    this.ids = kept;
    this.trimmed = 0;
    this.history.set(this.generation, kept);
    return { generation: this.generation, offset: 0 };
  }

  /** The application takes what it was told. */
  took({ name, value, ack }) {
    if (name === 'gap') {
      if (this.taken && value.from) {
        assert.equal(value.from.generation, this.taken.generation, 'a gap from elsewhere');
        this.#known(value.from.offset);
      }
      this.gaps++;
      this.taken = value.cursor;
    } else {
      const cursor = value ?? ack;
      if (this.taken) {
        assert.equal(cursor.generation, this.taken.generation, 'not the next');
        this.#known(cursor.offset - 1);
      }
      if (value) assert.ok(!this.shown.has(value.id), `${value.id} was shown twice`);
      if (value) this.shown.add(value.id);
      this.taken = { generation: cursor.generation, offset: cursor.offset };
    }
  }

  /** All after what was taken and up to `offset` were shown before, under another generation. */
  #known(offset) {
    const ids = this.history.get(this.taken.generation) ?? [];
    for (let i = this.taken.offset; i < offset; i++) assert.ok(this.shown.has(ids[i]), `${ids[i]} was passed over`);
  }

  check() {
    assert.equal(this.taken?.generation, this.generation);
    this.#known(this.ids.length);
    assert.ok(this.gaps <= this.toldGaps, 'a gap that nobody told of');
  }
}

export class World {
  now = 1;
  quiet = false;
  home = 0;
  epoch = 1;
  wires = new Map();
  /** Channels of sessions that are gone. */
  late = [];
  applied = new Map();
  streams = new Map();
  messages = 0;
  inbox = new Stream();
  room = new Stream();
  acked = null;
  asked = [];
  sent = [];
  poison = new Set();
  answers = new Map();
  joins = 0;
  joined = 0;
  held = RECIPIENTS.map(() => new Set());
  unanswered = new Set();
  items = [];

  constructor(seed) {
    this.random = generator(seed);
    const cursor = this.random() < 0.5 ? { generation: 1, offset: 0 } : undefined;
    this.inbox.taken = cursor ?? null;
    this.core = new Core({ cursor, queueMax: 10_000, backoffMs: [20, 500], random: this.random });
    this.step('start');
  }

  chance(p) {
    return !this.quiet && this.random() < p;
  }

  below(n) {
    return Math.floor(this.random() * n);
  }

  pick(wanted) {
    const found = [...this.wires].filter(([, wire]) => wanted(wire));
    return found[this.below(found.length)] ?? [0, null];
  }

  step(...input) {
    for (const [name, ...args] of this.core.step(input, this.now)) {
      if (name === 'route' || name === 'open') this.asked.push([name, ...args]);
      else if (name === 'write') this.written(args[0], args[1]);
      else if (name === 'close') this.closedByClient(args[0]);
      else if (name === 'answer') this.answered(...args);
      else if (name === 'tell' && args[0] !== 'client') this.items.push({ to: args[0], name: args[1], value: args[2], ack: args[3] });
    }
    assert.notEqual(this.core.state, 'failed', String(this.core.failure));
    assert.ok(this.core.wake() > this.now, 'something is due that a step should have done');
  }

  answered(ticket, error) {
    if (ticket < 0) {
      assert.equal(error, null, 'joins are repeated until they succeed');
      this.joined++;
      return;
    }
    assert.ok(!this.answers.has(ticket), 'answered twice');
    this.answers.set(ticket, error);
  }

  send() {
    const n = this.sent.length;
    const to = this.below(RECIPIENTS.length);
    const id = `s${n}`;
    if (this.random() < 0.03) this.poison.add(id);
    const room = RECIPIENTS[to].startsWith('#') && RECIPIENTS[to].slice(1);
    const frame = room ? { type: 'publish', id, room, data: n } : { type: 'send', id, to: RECIPIENTS[to], data: n };
    this.sent.push({ to, id });
    const lane = room ? `room:${room}` : `to:${RECIPIENTS[to]}`;
    this.step('command', { id, lane, text: JSON.stringify(frame) }, n, Infinity);
  }

  join() {
    const start = { generation: 1, offset: 0 };
    const cursor = !this.joins && this.random() < 0.5 ? start : undefined;
    this.room.taken ??= cursor ?? null;
    this.joins++;
    const command = { id: `j${this.joins}`, lane: 'in:lobby', alone: true, join: { room: 'lobby', cursor } };
    this.step('command', command, -this.joins, Infinity);
  }

  /** Checks what the client writes against the rules, then puts it on the wire. */
  written(conn, text) {
    const wire = this.wires.get(conn);
    if (!wire) return;
    const frame = JSON.parse(text);
    if (wire.toldMoved) assert.ok(['pong', 'ping'].includes(frame.type), `over a retiring connection: ${text}`);
    if (frame.type === 'send' || frame.type === 'publish') {
      const n = orderOf(frame.id);
      const { to } = this.sent[n];
      const held = this.held[to];
      assert.ok([...held].every((h) => n <= h), `${frame.id} was sent past one that was refused`);
      const last = wire.last.get(to) ?? -1;
      wire.last.set(to, n);
      assert.ok(held.has(n) || last < n, `${frame.id} was sent after s${last}`);
      if (!this.unanswered.has(n)) {
        const missed = [...this.unanswered].find((u) => !this.held[this.sent[u].to].size && !wire.written.has(u));
        assert.equal(missed, undefined, `before ${frame.id}, which is new`);
        this.unanswered.add(n);
      }
      wire.written.add(n);
    }
    if (!wire.clientGone && wire.code === undefined) wire.up.push(text);
  }

  closedByClient(conn) {
    this.asked = this.asked.filter((a) => a[1] !== conn);
    const wire = this.wires.get(conn);
    const lossy = this.chance(0.5);
    if (!wire) return;
    wire.clientGone = true;
    wire.down = [];
    if (lossy) wire.up = [];
  }

  /** The coordinator and the network answer one question. */
  answerAsked() {
    const [question] = this.asked.splice(this.below(this.asked.length), 1);
    if (!question) return;
    const [name, conn, url] = question;
    if (this.chance(0.2)) return this.step('trouble', conn, { why: 'refused' });
    if (name === 'open') {
      const session = { welcomed: false, position: 0, room: null, unanswered: 0, refused: new Map(), channel: [] };
      const wire = { node: Number(url), up: [], down: [], session, clientGone: false, code: undefined, toldMoved: false };
      this.wires.set(conn, { ...wire, written: new Set(), last: new Map() });
      return this.step('opened', conn, 'token');
    }
    // It may know an older home than the one there is.
    const node = this.chance(0.2) ? this.below(3) : this.home;
    this.step('routed', conn, { url: String(node), epoch: this.epoch, connect_after_ms: this.below(50) });
  }

  /** One frame, or the end of a wire, reaches the client. */
  clientReads() {
    const [conn, wire] = this.pick((w) => !w.clientGone && (w.down.length || w.code !== undefined));
    if (!wire) return;
    const frame = wire.down.shift();
    if (!frame) {
      wire.clientGone = true;
      return this.step('closed', conn, wire.code, 'cut');
    }
    if (frame.type === 'moved' && this.core.link.isCurrent(conn)) wire.toldMoved = true;
    if (frame.type === 'reply' && frame.id?.startsWith('s')) {
      const n = orderOf(frame.id);
      const held = this.held[this.sent[n].to];
      if (frame.error?.retryable) held.add(n);
      else {
        held.delete(n);
        this.unanswered.delete(n);
      }
    }
    this.step('frame', conn, structuredClone(frame));
  }

  /** The application takes one item, and acknowledges it. */
  take() {
    const item = this.items.shift();
    if (!item) return;
    if (item.to === ROOM) {
      assert.equal(item.ack, undefined, 'a room is not acknowledged');
      return this.room.took(item);
    }
    this.inbox.took(item);
    this.step('mark', 'ack', item.ack);
  }

  /** Time flies when nothing is on its way; now and then it does anyway. */
  passTime() {
    const wake = Math.max(this.core.wake() - this.now, 0);
    const moving = (w) => w.up.length || w.down.length || w.session.channel.length;
    const busy = this.asked.length > 0 || [...this.wires.values()].some(moving);
    // The 15 minutes in which a repeat is safe are tested elsewhere: here they must not pass.
    const longest = this.now < 600_000 ? 40_000 : 100;
    this.now += busy && !this.chance(0.02) ? this.below(10) : Math.min(wake, longest);
    this.step(this.chance(0.1) ? 'hurry' : 'tick');
  }

  // The cluster.

  serverReads() {
    const [, wire] = this.pick((w) => w.up.length && w.code === undefined);
    if (!wire) return;
    const frame = JSON.parse(wire.up.shift());
    if (frame.type === 'connect') this.serverConnects(wire, frame);
    else if (frame.type === 'send') this.serverAccepts(wire, frame.id, frame.to, frame.data);
    else if (frame.type === 'publish') this.serverAccepts(wire, frame.id, `#${frame.room}`, frame.data);
    else if (frame.type === 'join') this.serverJoins(wire, frame);
    else if (frame.type === 'ack') this.ack(frame.cursor);
    else if (frame.type === 'ping') wire.down.push({ type: 'pong' });
    else assert.equal(frame.type, 'pong');
  }

  ack(cursor) {
    const { taken } = this.inbox;
    const has = taken && (cursor.generation - taken.generation || cursor.offset - taken.offset) <= 0;
    assert.ok(has, 'acknowledged before it was taken');
    this.acked = cursor;
  }

  serverConnects(wire, { cursor, rooms }) {
    assert.ok(!wire.session.welcomed, 'a second connect');
    if (wire.node !== this.home) return wire.down.push(this.moved());
    const error = { code: 'unavailable', message: '', retryable: true };
    if (this.chance(0.1)) return wire.down.push({ type: 'reply', id: null, error });
    if (cursor && this.inbox.taken) this.ack(cursor);
    const { position, joined } = this.inbox.place(cursor ?? this.acked);
    wire.session.welcomed = true;
    wire.session.position = position;
    const told = rooms.map(({ room, cursor }) => {
      // At the end too: the last connection must be in the room by itself.
      if (this.random() < 0.2) return { room, error };
      const { position, joined } = this.room.place(cursor);
      wire.session.room = position;
      return { room, ...joined };
    });
    const about = { session: 's', user: 'alice', node: 'n', vnode: 1, epoch: this.epoch, ping_interval_ms: 25_000 };
    wire.down.push({ type: 'welcome', ...about, ...joined, rooms: told });
    this.feed(wire);
  }

  serverJoins(wire, { id, cursor }) {
    assert.ok(wire.session.welcomed, 'a join before the welcome');
    wire.session.room = null;
    const error = { code: 'unavailable', message: '', retryable: true };
    if (this.chance(0.2)) return wire.down.push({ type: 'reply', id, error });
    const { position, joined } = this.room.place(cursor);
    wire.session.room = position;
    wire.down.push({ type: 'reply', id, ok: joined });
    this.feed(wire);
  }

  /** A session is a cursor: it is sent the next message and nothing else. */
  feed(wire) {
    const { session } = wire;
    if (!session.welcomed || wire.clientGone || wire.code !== undefined) return;
    const message = (stream, name, offset) =>
      wire.down.push({ type: 'message', stream: name, generation: stream.generation, offset, id: stream.ids[offset - 1], kind: 'message', from: 'x', at: '', data: 1 });
    if (wire.node === this.home) {
      while (session.position < this.inbox.ids.length) message(this.inbox, INBOX, ++session.position);
    }
    while (session.room !== null && session.room < this.room.ids.length) message(this.room, ROOM, ++session.room);
  }

  feedAll() {
    for (const wire of this.wires.values()) this.feed(wire);
  }

  serverAccepts(wire, id, to, data) {
    const { session } = wire;
    assert.ok(session.welcomed, 'a send before the welcome');
    assert.ok(++session.unanswered <= 256, 'too many unanswered');
    const n = orderOf(id);
    const unblock = () => session.refused.get(to) === n && session.refused.delete(to);
    const queued = session.channel.find((q) => q.id === id);
    if (queued) {
      queued.awaited = true;
      return unblock();
    }
    if (this.poison.has(id)) return this.refuse(wire, id, { code: 'too_large', retryable: false });
    if (session.refused.get(to) < n || this.chance(0.15)) {
      this.block(session, to, n);
      const after = this.random() < 0.5 ? { retry_after_ms: this.below(300) } : {};
      return this.refuse(wire, id, { code: 'rate_limited', retryable: true, ...after });
    }
    unblock();
    session.channel.push({ id, to, data, awaited: true });
  }

  /** Nothing that came after the earliest refused is taken until that was repeated. */
  block(session, to, n) {
    session.refused.set(to, Math.min(session.refused.get(to) ?? n, n));
  }

  refuse(wire, id, error) {
    wire.session.unanswered--;
    wire.down.push({ type: 'reply', id, error: { message: '', ...error } });
  }

  /** The oldest item of some channel is applied, or answered `unknown` and applied some time later. */
  channelMoves() {
    const [, wire] = this.pick((w) => w.session.channel.length);
    const [queued] = wire?.session.channel ?? [];
    if (queued?.awaited && this.chance(0.1)) {
      queued.awaited = false;
      this.block(wire.session, queued.to, orderOf(queued.id));
      this.refuse(wire, queued.id, { code: 'unknown', retryable: true });
    } else if (queued) {
      this.apply(wire.session.channel.shift());
      if (queued.awaited) {
        wire.session.unanswered--;
        wire.down.push({ type: 'reply', id: queued.id, ok: { at: 'then' } });
      }
    }
    const at = this.below(this.late.length);
    if (this.late[at]?.length) this.apply(this.late[at].shift());
    else this.late.splice(at, 1);
    this.feedAll();
  }

  /** The recipient's home: one message per id, and another body is a fault of the client. */
  apply({ id, to, data }) {
    if (this.applied.has(id)) return assert.equal(this.applied.get(id), data, 'an id with another body');
    this.applied.set(id, data);
    this.streams.set(to, [...(this.streams.get(to) ?? []), id]);
    if (to.startsWith('#')) this.room.ids.push(id);
  }

  moved() {
    return { type: 'moved', node: 'n', url: String(this.home), epoch: this.epoch, after_ms: this.below(300) };
  }

  homeMoves(told) {
    const old = this.home;
    this.epoch++;
    this.home = (old + 1 + this.below(2)) % 3;
    for (const wire of this.wires.values()) {
      if (wire.node !== old || wire.code !== undefined) continue;
      if (told && wire.session.welcomed) wire.down.push(this.moved());
      else Object.assign(wire, { code: 1006, down: [] });
    }
  }

  /** A socket ends: with all that is on it, or with a goodbye after what is on its way down. */
  cut() {
    const [conn, wire] = this.pick((w) => w.code === undefined);
    if (!wire) return;
    const codes = [1006, 3001, 1012];
    // A second 3501 before a welcome would be final.
    if (this.core.state === 'connected' && this.core.link.isCurrent(conn)) codes.push(3501);
    wire.code = codes[this.below(codes.length)];
    wire.up = [];
    if (wire.code === 1006) wire.down = [];
  }

  dataIsLost(stream, name) {
    const cursor = stream.lose(this.below(5));
    for (const wire of this.wires.values()) {
      const { session } = wire;
      if (name === ROOM ? session.room === null : !session.welcomed || wire.node !== this.home) continue;
      session[name === ROOM ? 'room' : 'position'] = 0;
      if (wire.clientGone || wire.code !== undefined) continue;
      wire.down.push({ type: 'reset', stream: name, cursor, through: 'p' });
      stream.toldGaps++;
    }
    this.feedAll();
  }

  /** What is over on both sides leaves only what is in its channel. */
  sweep() {
    const dropped = this.chance(0.3);
    for (const [conn, wire] of this.wires) {
      if (!wire.clientGone || (wire.up.length && wire.code === undefined)) continue;
      this.wires.delete(conn);
      if (!dropped) this.late.push(wire.session.channel);
    }
  }

  arrives(stream) {
    stream.ids.push(`m${++this.messages}`);
    this.feedAll();
  }

  mishap() {
    const [which, half] = [this.below(10), this.random() < 0.5];
    if (which === 0) this.dataIsLost(...(half ? [this.inbox, INBOX] : [this.room, ROOM]));
    else if (which === 1) (half ? this.inbox : this.room).trimmed = (half ? this.inbox : this.room).ids.length;
    else if (which < 6) this.homeMoves(which < 4);
    else if (which === 6 && this.sent.length < 5000) for (let i = 0; i < 300; i++) this.send();
    else this.cut();
  }

  act() {
    const n = this.below(100);
    if (n < 20) this.clientReads();
    else if (n < 40) this.serverReads();
    else if (n < 55) this.channelMoves();
    else if (n < 65) this.take();
    else if (n < 72) this.passTime();
    else if (n < 80) this.answerAsked();
    else if (n < 84) this.sweep();
    else if (this.quiet) return;
    else if (n < 90) this.send();
    else if (n < 95) this.arrives(n < 93 ? this.inbox : this.room);
    else if (n === 96) this.mishap();
    else if (n === 97 && this.random() < 0.2) this.join();
  }

  isSettled() {
    const read = (w) => (w.clientGone || (!w.down.length && !w.up.length && w.code === undefined)) && !w.session.channel.length;
    const done = this.answers.size === this.sent.length && this.joined === this.joins && this.core.state === 'connected';
    return done && !this.items.length && !this.late.length && [...this.wires.values()].every(read);
  }

  run(steps) {
    for (let i = 0; i < steps; i++) this.act();
    this.quiet = true;
    this.settle();
    // The last connection must be where it belongs by itself.
    this.arrives(this.inbox);
    this.arrives(this.room);
    this.settle();
    this.check();
  }

  settle() {
    for (let i = 0; i < 400_000 && !this.isSettled(); i++) this.act();
    assert.ok(this.isSettled(), 'it does not come to rest');
  }

  check() {
    for (const [ticket, { id }] of this.sent.entries()) {
      const error = this.answers.get(ticket);
      if (error) assert.ok(this.poison.has(id), `${id}: ${error.code}`);
      else assert.ok(this.applied.has(id), `${id} was confirmed and is not there`);
    }
    for (const [to, ids] of this.streams) {
      const order = ids.map(orderOf);
      assert.deepEqual(order, order.toSorted((a, b) => a - b), `to ${to} out of order`);
    }
    this.inbox.check();
    if (this.joins) this.room.check();
  }
}
