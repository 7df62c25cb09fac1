import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client } from './client.js';

const shown = (user, status) => ({ user, status, since: 'then', last_seen: null });

function ask(c, type, users) {
  const id = `${type}-${c.tickets}`;
  return c.command({ id, lane: 'watch', alone: true, text: JSON.stringify({ type, id, users }), [type]: users });
}

const answer = (c, conn, ...users) => c.reply(conn, c.frames('watch')[0].id, { users });
const changes = (c) => c.events('change').map((e) => [e.value.user, e.value.status]);

/** Watches bob (online) and carol (away). */
function watching() {
  const c = new Client();
  const conn = c.connected();
  ask(c, 'watch', ['bob', 'carol']);
  c.frame(conn, { type: 'presence', ...shown('bob', 'away') });
  answer(c, conn, shown('bob', 'online'), shown('carol', 'away'));
  assert.deepEqual(changes(c), [
    ['bob', 'online'],
    ['carol', 'away'],
  ]);
  return { c, conn };
}

function again(c, conn) {
  c.step('closed', conn, 1006, '').pass(500);
  const next = c.dial();
  c.welcome(next);
  return next;
}

test('who is watched is watched again and only what differs is told', () => {
  const { c, conn } = watching();
  c.frame(conn, { type: 'presence', ...shown('carol', 'online') });
  const next = again(c, conn);
  answer(c, next, shown('bob', 'offline'), shown('carol', 'online'));
  c.frame(next, { type: 'presence', ...shown('bob', 'online') });
  assert.deepEqual(changes(c), [
    ['carol', 'online'],
    ['bob', 'offline'],
    ['bob', 'online'],
  ]);
});

test('nothing is told of who is not watched any more', () => {
  const { c, conn } = watching();
  ask(c, 'watch', ['dave']);
  ask(c, 'unwatch', ['bob', 'dave']);
  c.frame(conn, { type: 'presence', ...shown('bob', 'away') });
  answer(c, conn, shown('dave', 'online'));
  c.frame(conn, { type: 'presence', ...shown('dave', 'away') });
  assert.deepEqual(changes(c), []);
  c.reply(conn, c.frames('unwatch')[0].id);
  again(c, conn);
  assert.deepEqual(c.frames('watch')[0].users, ['carol']);
});

test('a refusal leaves who was watched before', () => {
  const { c, conn } = watching();
  const ticket = ask(c, 'watch', ['bob', 'eve']);
  c.refuse(conn, c.frames('watch')[0].id, 'forbidden');
  assert.equal(c.answers.get(ticket).code, 'forbidden');
  again(c, conn);
  assert.deepEqual(c.frames('watch')[0].users, ['bob', 'carol']);
});

test('who may not be watched any more is told and the others stay', () => {
  const { c, conn } = watching();
  const next = again(c, conn);
  c.refuse(next, c.frames('watch')[0].id, 'forbidden');
  const [bob] = c.frames('watch');
  assert.deepEqual(bob.users, ['bob']);
  c.refuse(next, bob.id, 'forbidden');
  answer(c, next, shown('carol', 'away'));
  c.frame(next, { type: 'presence', ...shown('carol', 'offline') });
  assert.deepEqual(
    c.events('lost').map((e) => [e.value.user, e.value.error.code]),
    [['bob', 'forbidden']],
  );
  assert.deepEqual(changes(c), [['carol', 'offline']]);
});

test('with a fresh token everyone is watched again, and who may not be is lost', () => {
  const { c, conn } = watching();
  c.refresh(conn);
  answer(c, conn, shown('bob', 'online'), shown('carol', 'online'));
  assert.deepEqual(changes(c), [['carol', 'online']]);
  c.refresh(conn).refuse(conn, c.frames('watch')[0].id, 'forbidden');
  const [bob, carol] = c.frames('watch');
  assert.equal(carol, undefined, 'one after the other');
  c.refuse(conn, bob.id, 'forbidden');
  answer(c, conn, shown('carol', 'online'));
  assert.deepEqual(
    c.events('lost').map((e) => e.value.user),
    ['bob'],
  );
});

test('a token that is refused ends nothing', () => {
  const { c, conn } = watching();
  c.step('token', conn, 'bad').refuse(conn, c.frames('refresh')[0].id, 'unauthorized');
  assert.deepEqual(c.frames('watch'), []);
});

test('more than a frame holds is watched again in parts', () => {
  const c = new Client();
  const conn = c.connected();
  const all = Array.from({ length: 1000 }, (_, i) => '"'.repeat(124) + String(i).padStart(4, '0'));
  for (let i = 0; i < 5; i++) {
    ask(c, 'watch', all.slice(200 * i, 200 * i + 200));
    answer(c, conn);
  }
  const next = again(c, conn);
  const named = [];
  for (let i = 0; i < 5; i++) {
    const [{ text, frame }] = c.written.filter((w) => w.frame.type === 'watch');
    assert.ok(text.length <= 65_536);
    named.push(...frame.users);
    answer(c, next);
  }
  assert.deepEqual(named, all);
});
