// The promises of the SDK against a real cluster: what is sent arrives once and in order, over lost sockets, moves and
// tokens that end.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Roost as Bundled } from '../../dist/roost.js';
import { URL_, client, cluster, roost, service, token, until } from './cluster.js';

let dev;
before(async () => (dev = await cluster({ TOKEN_EXPIRING_MS: '1500' })), { timeout: 120_000 });
after(() => dev?.stop());

/** Clients that are ended with the test. */
function clients(t, ...users) {
  const made = users.map((user) => (typeof user === 'string' ? client(user) : client(...user)));
  t.after(() => made.forEach((c) => c.roost.disconnect()));
  return made;
}

const numbers = (n, from = 0) => Array.from({ length: n }, (_, i) => from + i);

test('a message arrives, and its sender is told when', async (t) => {
  const [alice, bob] = clients(t, 'alice', 'bob');
  await Promise.all([alice.roost.connect(), bob.roost.connect()]);
  const { id, at } = await alice.roost.send('bob', { text: 'grüß dich 👋' });
  assert.ok(id && Date.parse(at) > 0);
  await until('the message', () => bob.got.length === 1);
  assert.deepEqual(bob.got, [{ text: 'grüß dich 👋' }]);
  assert.deepEqual(
    [alice.roost.user, alice.roost.state, alice.states],
    ['alice', 'connected', ['connecting', 'connected']],
  );
  assert.match(alice.roost.node, /^ws-\d$/);
});

test('a repeated id is one message, and the same answer', async (t) => {
  const [carol, dave] = clients(t, 'carol', 'dave');
  await Promise.all([carol.roost.connect(), dave.roost.connect()]);
  const first = await carol.roost.send('dave', 1, { id: 'the-same' });
  assert.deepEqual(await carol.roost.send('dave', 1, { id: 'the-same' }), first);
  await assert.rejects(carol.roost.send('dave', 2, { id: 'the-same' }), { name: 'RoostError', code: 'conflict' });
  await carol.roost.send('dave', 3);
  await until('both', () => dave.got.length === 2);
  assert.deepEqual(dave.got, [1, 3]);
});

test('what is sent while offline goes out in order when there is a connection', async (t) => {
  const [erin, frank] = clients(t, 'erin', 'frank');
  await frank.roost.connect();
  const sends = numbers(50).map((n) => erin.roost.send('frank', n));
  await erin.roost.connect();
  await Promise.all(sends);
  await until('all', () => frank.got.length === 50);
  assert.deepEqual(frank.got, numbers(50));
});

test('lost sockets lose nothing, double nothing and keep the order', async (t) => {
  const [gina, hugo] = clients(t, 'gina', 'hugo');
  await Promise.all([gina.roost.connect(), hugo.roost.connect()]);
  const sends = [];
  for (const n of numbers(120)) {
    sends.push(gina.roost.send('hugo', n));
    if (n % 40 === 20) gina.cut();
    if (n % 40 === 30) hugo.cut();
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  await Promise.all(sends);
  await until('all', () => hugo.got.length >= 120);
  assert.deepEqual(hugo.got, numbers(120));
  assert.ok(gina.states.includes('reconnecting') && hugo.states.includes('reconnecting'));
});

test('a client that comes back with its cursor gets what it missed', async (t) => {
  const [ida] = clients(t, 'ida');
  await ida.roost.connect();
  await service('/api/send', { id: 'i1', to: 'ida', from: 'app', data: 1 });
  await until('the first', () => ida.got.length === 1);
  ida.roost.disconnect();
  assert.equal(ida.roost.state, 'disconnected');
  await service('/api/send', { id: 'i2', to: 'ida', from: 'app', data: 2 });
  const [again] = clients(t, ['ida', { cursor: ida.roost.inbox.cursor }]);
  await again.roost.connect();
  await until('the second', () => again.got.length === 1);
  assert.deepEqual(again.got, [2]);
  await ida.roost.connect();
  await until('the second, here too', () => ida.got.length === 2);
});

test('a device starts at what it acknowledged, by hand', async (t) => {
  const [first] = clients(t, ['jack', { device: 'phone', ack: 'manual' }]);
  const messages = [];
  first.roost.inbox.on('message', (m) => messages.push(m));
  await first.roost.connect();
  for (const n of [1, 2, 3]) await first.roost.send('jack', n);
  await until('three', () => messages.length === 3);
  first.roost.inbox.ack(messages[1]);
  first.roost.disconnect();
  const [second] = clients(t, ['jack', { device: 'phone' }]);
  await second.roost.connect();
  await until('the third', () => second.got.length === 1);
  assert.deepEqual(second.got, [3]);
});

test('a cursor that cannot be gone on from is a gap', async (t) => {
  const [kim] = clients(t, ['kim', { cursor: { generation: 1, offset: 7 } }]);
  const gaps = [];
  kim.roost.inbox.on('gap', (gap) => gaps.push(gap));
  await kim.roost.connect();
  await until('the gap', () => gaps.length === 1);
  assert.equal(gaps[0].stream, 'user:kim');
  assert.deepEqual(gaps[0].from, { generation: 1, offset: 7 });
  assert.equal(typeof gaps[0].through, 'string');
});

test('a room is read by its members, in order, and left', async (t) => {
  const [lena, mike] = clients(t, 'lena', 'mike');
  await Promise.all([lena.roost.connect(), mike.roost.connect()]);
  const room = mike.roost.room('lobby');
  const got = [];
  const seen = new Set();
  room.on('message', (m) => got.push(m.data));
  room.on('member', ({ user, change }) => change === 'join' && seen.add(user));
  room.on('members', ({ listed }) => listed?.forEach(({ user }) => seen.add(user)));
  await room.join({ presence: true });
  await lena.roost.room('lobby').join({ presence: true, info: { name: 'Lena' } });
  await until('both are seen', () => seen.has('lena') && seen.has('mike'));
  const sent = numbers(30).map((n) => lena.roost.room('lobby').publish(n));
  mike.cut();
  const [{ cursor }] = await Promise.all(sent);
  assert.equal(cursor?.offset, 1);
  await until('all', () => got.length >= 30);
  assert.deepEqual(got, numbers(30));
  const { count, listed } = await mike.roost.room('lobby').members();
  assert.equal(count, 2);
  assert.deepEqual(listed?.find(({ user }) => user === 'lena')?.info, { name: 'Lena' });
  await room.leave();
  await lena.roost.room('lobby').publish('after');
  await mike.roost.send('mike', 'later than that');
  await until('the message', () => mike.got.length === 1);
  assert.equal(got.length, 30);
});

test('the bundle says the same to the server, with the names it has', async (t) => {
  const [yuri, zoe] = clients(t, ['yuri', { Client: Bundled, device: 'page' }], 'zoe');
  await Promise.all([yuri.roost.connect(), zoe.roost.connect()]);
  const room = yuri.roost.room('bundled');
  const seen = [];
  room.on('message', (m) => seen.push(m.data));
  const { members } = await room.join({ presence: true, info: 1 });
  assert.ok(Array.isArray(members?.listed));
  await zoe.roost.room('bundled').publish('a');
  await until('the first', () => seen.length === 1);
  const sends = numbers(10).map((n) => yuri.roost.send('zoe', n));
  yuri.cut();
  await zoe.roost.room('bundled').publish('b');
  await Promise.all(sends);
  await zoe.roost.send('yuri', 'hello');
  await until('all', () => seen.length === 2 && zoe.got.length === 10 && yuri.got.length === 1);
  assert.deepEqual([seen, zoe.got], [['a', 'b'], numbers(10)]);
  assert.equal((await yuri.roost.inbox.history()).messages.length, 1);
  assert.ok(yuri.roost.inbox.cursor?.offset >= 1);
  const { count } = await room.members();
  assert.equal(count, 1);
  await room.leave();
  await assert.rejects(zoe.roost.send('yuri', 'x'.repeat(70_000)), { code: 'too_large' });
});

test('signals reach those who are there', async (t) => {
  const [nina, otto] = clients(t, 'nina', 'otto');
  await Promise.all([nina.roost.connect(), otto.roost.connect()]);
  const signals = [];
  otto.roost.inbox.on('signal', ({ from, kind, data }) => signals.push([from, kind, data]));
  otto.roost.room('den').on('signal', ({ from, kind, data }) => signals.push([from, kind, data]));
  await Promise.all([nina.roost.room('den').join(), otto.roost.room('den').join()]);
  await until('both', () => {
    nina.roost.signal('otto', 'wave', true);
    nina.roost.room('den').signal('cursor', { x: 1 });
    return signals.length >= 2;
  });
  assert.ok(signals.some(([from, kind]) => from === 'nina' && kind === 'wave'));
  assert.ok(signals.some(([from, kind, data]) => from === 'nina' && kind === 'cursor' && data.x === 1));
});

test('history gives pages of the inbox, newest first', async (t) => {
  const [paul] = clients(t, 'paul');
  await paul.roost.connect();
  for (const n of numbers(5)) await paul.roost.send('paul', n);
  const page = await paul.roost.inbox.history({ limit: 3 });
  assert.deepEqual(
    page.messages.map((m) => m.data),
    [4, 3, 2],
  );
  const rest = await paul.roost.inbox.history({ before: page.before });
  assert.deepEqual(
    rest.messages.map((m) => m.data),
    [1, 0],
  );
});

test('a chosen status is what others see', async (t) => {
  const [quinn] = clients(t, 'quinn');
  await quinn.roost.connect();
  await quinn.roost.presence.set('away');
  await until('away', async () => {
    const { users } = await fetch(`${URL_}/presence?userIds=quinn`).then((r) => r.json());
    return users[0].status === 'away';
  });
});

test('who is watched is told of, over a lost connection too', async (t) => {
  const [yves, zara] = clients(t, 'yves', 'zara');
  const changes = [];
  yves.roost.presence.on('change', ({ user, status }) => changes.push(`${user} ${status}`));
  await Promise.all([yves.roost.connect(), zara.roost.connect()]);
  await zara.roost.presence.set('online');
  const shown = await yves.roost.presence.watch(['zara', 'nobody-yet']);
  assert.deepEqual(
    shown.map(({ user }) => user),
    ['zara', 'nobody-yet'],
  );
  await until('zara is there', () => changes.includes('zara online'));
  yves.cut();
  await zara.roost.presence.set('away');
  await until('zara is away', () => changes.at(-1) === 'zara away');
  await yves.roost.presence.unwatch(['zara']);
  assert.equal(changes.filter((change) => change === 'nobody-yet offline').length, 1);
});

test('a refusal is told with its code', async (t) => {
  const [rosa] = clients(t, 'rosa');
  await rosa.roost.connect();
  await assert.rejects(rosa.roost.send('bob', 'x'.repeat(70_000)), { code: 'too_large' });
  await assert.rejects(rosa.roost.send('#bob', 1), { code: 'bad_request' });
  await assert.rejects(rosa.roost.send('', 1), { code: 'bad_request' });
  await assert.rejects(async () => rosa.roost.room('x'.repeat(200)), { code: 'bad_request' });
});

test('a call can be given up', async (t) => {
  const [sam] = clients(t, 'sam');
  const ended = new AbortController();
  const waiting = sam.roost.send('bob', 1, { signal: ended.signal });
  ended.abort(new Error('changed my mind'));
  await assert.rejects(waiting, { message: 'changed my mind' });
  await assert.rejects(sam.roost.send('bob', 1, { signal: ended.signal }), { message: 'changed my mind' });
  await assert.rejects(sam.roost.send('bob', 1, { timeoutMs: 20 }), { code: 'not_sent', sent: false });
  await assert.rejects(sam.roost.connect({ signal: ended.signal }), { message: 'changed my mind' });
});

test('a token is refreshed before it ends, over the same connection', async (t) => {
  let asked = 0;
  const [tina] = clients(t, ['tina', { getToken: () => token('tina', ++asked === 1 ? 7 : 600) }]);
  await tina.roost.connect();
  await until('a fresh token was asked for', () => asked === 2);
  await new Promise((resolve) => setTimeout(resolve, 8000));
  await tina.roost.send('tina', 'still here');
  assert.deepEqual(tina.states, ['connecting', 'connected']);
});

test('a token that is not accepted is asked for once more, and then the client stops', async (t) => {
  let asked = 0;
  const [uma] = clients(t, ['uma', { getToken: () => (++asked, token('uma', 600).replace(/.{5}$/, 'AAAAA')) }]);
  await assert.rejects(uma.roost.connect(), { name: 'RoostError', code: 'unauthorized' });
  assert.deepEqual([uma.roost.state, asked], ['failed', 2]);
});

test('a disconnect by the server stops the client and says so', async (t) => {
  const [vera] = clients(t, 'vera');
  const reasons = [];
  vera.roost.on('state', ({ reason }) => reason && reasons.push(reason));
  await vera.roost.connect();
  await service('/api/disconnect', { user: 'vera', reason: 'closed account' });
  await until('it stopped', () => vera.roost.state === 'failed');
  assert.deepEqual([reasons[0].code, reasons[0].closeCode], ['stopped', 3503]);
});

test('a planned move loses nothing and is not seen as a lost connection', async (t) => {
  const [walt, xena] = clients(t, 'walt', 'xena');
  await Promise.all([walt.roost.connect(), xena.roost.connect()]);
  const home = xena.roost.node;
  const room = xena.roost.room('moving');
  const published = [];
  room.on('message', (m) => published.push(m.data));
  await room.join();
  const calls = [];
  let moving = true;
  const talk = (async () => {
    for (let n = 0; moving || n < 50; n++) {
      calls.push(walt.roost.send('xena', n), walt.roost.room('moving').publish(n));
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  })();
  await roost('drain', home);
  await until('xena moved', () => xena.roost.node !== home);
  moving = false;
  await talk;
  await Promise.all(calls);
  await until('all', () => xena.got.length >= calls.length / 2 && published.length >= calls.length / 2);
  assert.deepEqual(xena.got, numbers(calls.length / 2));
  assert.deepEqual(published, numbers(calls.length / 2));
  assert.deepEqual(xena.states, ['connecting', 'connected']);
  await roost('drain', home, '--undo');
});
