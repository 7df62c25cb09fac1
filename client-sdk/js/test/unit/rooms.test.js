import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, at } from './client.js';

const room = (cursor, more = {}) => ({ cursor, recovered: true, replayed: 0, ...more });

/** A client in the room `lobby`, at (1, 7). */
function inLobby(options) {
  const c = new Client();
  const conn = c.connected();
  c.join('lobby', options);
  const [join] = c.frames('join');
  c.reply(conn, join.id, room(at(1, 7)));
  return { c, conn, join };
}

test('a room is kept over connections, with the cursor of the last message', () => {
  const { c, conn, join } = inLobby({ presence: true, info: { name: 'Alice' } });
  assert.deepEqual(join, { type: 'join', id: 'j0', room: 'lobby', presence: true, info: { name: 'Alice' } });
  c.message(conn, at(1, 8), 'a', 'room:lobby');
  c.step('closed', conn, 1006, '').pass(500);
  const next = c.dial();
  assert.deepEqual(c.frames('connect')[0].rooms, [
    { room: 'lobby', presence: true, info: { name: 'Alice' }, cursor: at(1, 8) },
  ]);
  c.welcome(next, { rooms: [{ room: 'lobby', ...room(at(1, 9), { replayed: 1 }) }] });
  c.message(next, at(1, 8), 'a', 'room:lobby').message(next, at(1, 9), 'b', 'room:lobby');
  assert.deepEqual(
    c.events('message').map((e) => [e.to, e.value.id]),
    [
      ['room:lobby', 'a'],
      ['room:lobby', 'b'],
    ],
  );
});

test('what a room missed is a gap', () => {
  const { c, conn } = inLobby();
  c.step('closed', conn, 1006, '').pass(500);
  c.welcome(c.dial(), { rooms: [{ room: 'lobby', cursor: at(1, 2000), recovered: false, through: 'p' }] });
  const gap = { stream: 'room:lobby', from: at(1, 7), cursor: at(1, 2000), through: 'p' };
  assert.deepEqual(
    c.events('gap').map((e) => [e.to, e.value]),
    [['room:lobby', gap]],
  );
});

test('a reset of a room is a gap, too', () => {
  const { c, conn } = inLobby();
  c.frame(conn, { type: 'reset', stream: 'room:lobby', cursor: at(2, 0), through: 'p' });
  c.frame(conn, { type: 'reset', stream: 'room:lobby', cursor: at(2, 0), through: 'p' });
  assert.equal(c.events('gap').length, 1);
  c.message(conn, at(2, 1), 'x', 'room:lobby');
  assert.equal(c.events('message').length, 1);
});

test('a room that welcome could not grant is joined again, and one that it refuses is lost', () => {
  const { c, conn } = inLobby();
  c.step('closed', conn, 1006, '').pass(500);
  const error = (code, retryable) => ({ code, message: code, retryable });
  const next = c.dial();
  c.welcome(next, { rooms: [{ room: 'lobby', error: error('unavailable', true) }] });
  const [join] = c.frames('join');
  assert.deepEqual([join.room, join.cursor], ['lobby', at(1, 7)]);
  c.refuse(next, join.id, 'forbidden');
  assert.deepEqual(
    c.events('lost').map((e) => [e.to, e.value.code]),
    [['room:lobby', 'forbidden']],
  );
  c.message(next, at(1, 8), 'a', 'room:lobby');
  assert.equal(c.events('message').length, 0);
});

test('with a fresh token every room is joined again, and one that it does not allow is lost', () => {
  const { c, conn } = inLobby({ presence: true });
  c.message(conn, at(1, 8), 'a', 'room:lobby').refresh(conn);
  const [join] = c.frames('join');
  assert.deepEqual([join.room, join.presence, join.cursor], ['lobby', true, at(1, 8)]);
  c.reply(conn, join.id, room(at(1, 9), { replayed: 1 }));
  c.message(conn, at(1, 9), 'b', 'room:lobby');
  assert.equal(c.events('message').length, 2);
  c.refresh(conn).refuse(conn, c.frames('join')[0].id, 'forbidden');
  assert.deepEqual(
    c.events('lost').map((e) => [e.to, e.value.code]),
    [['room:lobby', 'forbidden']],
  );
  c.refresh(conn);
  assert.deepEqual(c.frames('join'), [], 'what was lost is joined by the application');
  c.join('lobby', { cursor: at(1, 9) });
  c.reply(conn, c.frames('join')[0].id, room(at(1, 10), { replayed: 1 }));
  c.message(conn, at(1, 10), 'c', 'room:lobby');
  assert.equal(c.events('message').length, 1);
});

test('joined again behind a join that is under way, a room is joined as that asked', () => {
  const { c, conn } = inLobby({ info: 'old' });
  c.join('lobby', { presence: true });
  const [join] = c.frames('join');
  c.refresh(conn);
  assert.deepEqual(c.frames('join'), []);
  c.reply(conn, join.id, room(at(1, 7)));
  const [again] = c.frames('join');
  assert.deepEqual([again.presence, again.info], [true, undefined]);
  c.reply(conn, again.id, room(at(1, 7)));
  c.step('closed', conn, 1006, '').pass(500);
  c.dial();
  assert.deepEqual(c.frames('connect')[0].rooms, [{ room: 'lobby', presence: true, cursor: at(1, 7) }]);
});

test('after leave nothing of a room is shown and no connection names it', () => {
  const { c, conn } = inLobby();
  const ticket = c.leave('lobby');
  c.message(conn, at(1, 8), 'a', 'room:lobby');
  assert.equal(c.events('message').length, 0);
  c.step('closed', conn, 1006, '').pass(500);
  const next = c.dial();
  assert.deepEqual(c.frames('connect')[0].rooms, []);
  c.welcome(next);
  c.refuse(next, c.frames('leave').at(-1).id, 'not_found');
  assert.ok('ok' in c.answers.get(ticket), 'it was left by a first copy of the command');
});

test('a join that waits is withdrawn by leave', () => {
  const c = new Client();
  const join = c.join('lobby');
  c.leave('lobby');
  assert.equal(c.answers.get(join).code, 'left');
  c.connected();
  assert.deepEqual(
    c.frames().map((f) => f.type),
    ['leave'],
  );
});

test('join, leave and join of one room go one after the other', () => {
  const { c, conn } = inLobby();
  c.leave('lobby');
  c.join('lobby');
  const [leave] = c.frames('leave');
  assert.deepEqual(c.frames('join'), []);
  c.reply(conn, leave.id);
  assert.equal(c.frames('join').length, 1);
});

test('a room that everyone is in needs no call, and stays left', () => {
  const c = new Client();
  const auto = { rooms: [{ room: 'public', ...room(at(1, 3)) }] };
  let conn = c.connected(auto);
  c.message(conn, at(1, 4), 'a', 'room:public');
  assert.equal(c.events('message').length, 1);
  c.leave('public');
  c.reply(conn, c.frames('leave')[0].id);
  c.step('closed', conn, 1006, '').pass(500);
  conn = c.dial();
  c.welcome(conn, auto);
  assert.equal(c.frames('leave').length, 1, 'the server is told again');
  c.message(conn, at(1, 4), 'a', 'room:public');
  assert.equal(c.events('message').length, 0);
});

test('rooms for which connect has no space are joined after it', () => {
  const c = new Client();
  const conn = c.connected();
  const info = 'x'.repeat(1000);
  for (let i = 0; i < 80; i++) {
    c.join(`room-${i}`, { presence: true, info });
    c.reply(conn, c.frames('join')[0].id, room(at(1, 1)));
  }
  c.step('closed', conn, 1006, '').pass(500);
  const next = c.dial();
  const [{ text, frame }] = c.written.filter((w) => w.frame.type === 'connect').slice(-1);
  assert.ok(text.length <= 65_536 && frame.rooms.length > 50 && frame.rooms.length < 80);
  c.frames();
  c.welcome(next, { rooms: frame.rooms.map((r) => ({ room: r.room, ...room(at(1, 1)) })) });
  assert.equal(c.frames('join').length, 80 - frame.rooms.length);
});

test('members and signals are told of rooms that the client is in', () => {
  const { c, conn } = inLobby({ presence: true });
  c.frame(conn, { type: 'member', room: 'lobby', user: 'bob', change: 'join' });
  c.frame(conn, { type: 'signal', room: 'lobby', from: 'bob', kind: 'typing', data: true });
  c.frame(conn, { type: 'signal', from: 'bob', kind: 'typing', data: true });
  c.frame(conn, { type: 'signal', room: 'elsewhere', from: 'bob', kind: 'typing', data: true });
  assert.deepEqual(
    c.events('member').map((e) => e.to),
    ['room:lobby'],
  );
  assert.deepEqual(
    c.events('signal').map((e) => e.to),
    ['room:lobby', 'inbox'],
  );
});

test('a client is in 200 rooms at most', () => {
  const c = new Client();
  const conn = c.connected();
  for (let i = 0; i < 200; i++) {
    c.join(`r${i}`);
    c.reply(conn, c.frames('join')[0].id, room(at(1, 0)));
  }
  assert.equal(c.answers.get(c.join('one more')).code, 'too_many');
});

test('a room is left without a connection, too', () => {
  const { c, conn } = inLobby();
  c.step('closed', conn, 1006, '');
  const ticket = c.leave('lobby');
  c.pass(30_000);
  assert.ok('ok' in c.answers.get(ticket));
});
