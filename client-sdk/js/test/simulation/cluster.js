// The fake cluster: sessions, channels to the recipients' homes, the streams that are read, and what goes wrong.
import assert from 'node:assert/strict';
import { Stream } from './stream.js';

export const INBOX = 'user:alice';
export const ROOM = 'room:lobby';

export const orderOf = (id) => Number(id.slice(1));

export class Cluster {
  /** Whether nothing goes wrong any more. */
  quiet = false;
  home = 0;
  epoch = 1;
  wires = new Map();
  /** Channels of sessions that are gone. */
  late = [];
  applied = new Map();
  streams = new Map();
  /** Ids that are refused for good. */
  poison = new Set();
  messages = 0;
  inbox = new Stream();
  room = new Stream();
  acked = null;

  constructor(random) {
    this.random = random;
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
      wire.down.push({
        type: 'message',
        stream: name,
        generation: stream.generation,
        offset,
        id: stream.ids[offset - 1],
        kind: 'message',
        from: 'x',
        at: '',
        data: 1,
      });
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
}
