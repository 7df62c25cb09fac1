// The core against a fake cluster that does its worst, from a seed: it loses sockets with all that is on them, answers
// late, refuses, forgets to answer, moves home, loses its data, and the application is slow to acknowledge.
//
// Promises checked: every send is applied exactly once and in order per stream; every message of the inbox and of the
// room is shown exactly once, in order, or told as a gap; nothing is acknowledged that the application does not have;
// and the rules for writing (holding a stream, nothing new over a retiring connection, the limit of unanswered sends).
import assert from 'node:assert/strict';
import { Core } from '../../src/core/core.js';
import { Cluster, INBOX, ROOM, orderOf } from './cluster.js';

/** The last is a room, to which is published. */
const RECIPIENTS = ['bob', 'carol', 'dave', '#lobby'];

/** Mulberry32: small, and the same everywhere. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class World extends Cluster {
  now = 1;
  asked = [];
  sent = [];
  answers = new Map();
  joins = 0;
  joined = 0;
  held = RECIPIENTS.map(() => new Set());
  unanswered = new Set();
  items = [];

  constructor(seed) {
    super(generator(seed));
    const cursor = this.random() < 0.5 ? { generation: 1, offset: 0 } : undefined;
    this.inbox.taken = cursor ?? null;
    this.core = new Core({ cursor, queueMax: 10_000, backoffMs: [20, 500], random: this.random });
    this.step('start');
  }

  step(...input) {
    for (const [name, ...args] of this.core.step(input, this.now)) {
      if (name === 'route' || name === 'open') this.asked.push([name, ...args]);
      else if (name === 'write') this.written(args[0], args[1]);
      else if (name === 'close') this.closedByClient(args[0]);
      else if (name === 'answer') this.answered(...args);
      else if (name === 'tell' && args[0] !== 'client')
        this.items.push({ to: args[0], name: args[1], value: args[2], ack: args[3] });
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
      assert.ok(
        [...held].every((h) => n <= h),
        `${frame.id} was sent past one that was refused`,
      );
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
      const wire = {
        node: Number(url),
        up: [],
        down: [],
        session,
        clientGone: false,
        code: undefined,
        toldMoved: false,
      };
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
    const read = (w) =>
      (w.clientGone || (!w.down.length && !w.up.length && w.code === undefined)) && !w.session.channel.length;
    const done =
      this.answers.size === this.sent.length && this.joined === this.joins && this.core.state === 'connected';
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
      assert.deepEqual(
        order,
        order.toSorted((a, b) => a - b),
        `to ${to} out of order`,
      );
    }
    this.inbox.check();
    if (this.joins) this.room.check();
  }
}
