// What the SDK does with a real cluster beside the scenarios of scenarios.test.js.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Roost as Bundled } from '../../dist/roost.js';
import { createServer } from 'node:net';
import { WebSocket } from 'ws';
import { Roost } from '../../src/index.js';
import { URL_, clients, cluster, numbers, token, until, urlOf } from './cluster.js';

let dev;
before(async () => (dev = await cluster()), { timeout: 120_000 });
after(() => dev?.stop());

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

for (const [name, Client] of [
  ['', Roost],
  [' (bundle)', Bundled],
]) {
  test(`a wrong address is said within three seconds, with what is tried and why it fails${name}`, async (t) => {
    // Takes connections, and says nothing.
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    t.after(() => silent.close());
    await new Promise((resolve) => silent.on('listening', resolve));
    for (const [url, why] of [
      ['http://127.0.0.1:59999', /^http:\/\/127\.0\.0\.1:59999\/route: connect ECONNREFUSED/],
      ['http://localhost:59999', /^http:\/\/localhost:59999\/route: .*ECONNREFUSED/],
      ['http://nohost.invalid', /^http:\/\/nohost\.invalid\/route: .*(ENOTFOUND|EAI_AGAIN|no answer yet)/],
      [urlOf('ws-1'), /\/route: not a coordinator: 404, /],
      [`${URL_}/console/`, /\/console\/route: not a coordinator: 404, /],
      [`http://127.0.0.1:${silent.address().port}`, /\/route: no answer yet$/],
    ]) {
      const roost = new Client(url, { getToken: () => token('zack'), WebSocket });
      const begun = Date.now();
      const error = new Promise((resolve) => roost.once('error', resolve));
      roost.connect().catch(() => {});
      const { code, message } = await error;
      roost.disconnect();
      assert.match(message, why);
      assert.equal(code, 'connection');
      assert.ok(Date.now() - begun < 3000, `${url} took ${Date.now() - begun} ms`);
    }
  });

  test(`a new process goes on from the cursor that the application kept${name}`, async (t) => {
    const kept = new Map();
    const cursors = { load: (stream) => kept.get(stream), save: async (stream, cursor) => kept.set(stream, cursor) };
    const user = `keeper${name && '-b'}`;
    const [first] = clients(t, [user, { Client, cursors }]);
    await first.roost.connect();
    await until('its end is kept', () => kept.has(`user:${user}`));
    first.roost.disconnect();
    const [other] = clients(t, 'yves');
    await other.roost.connect();
    for (const n of [1, 2]) await other.roost.send(user, n);
    const [second] = clients(t, [user, { Client, cursors }]);
    await second.roost.connect();
    await until('what came meanwhile', () => second.got.length === 2);
    await until('it is kept', () => kept.get(`user:${user}`).offset === 2);
    second.roost.disconnect();
    const [third] = clients(t, [user, { Client, cursors }]);
    await third.roost.connect();
    await other.roost.send(user, 3);
    await until('the third', () => third.got.length > 0);
    assert.deepEqual([second.got, third.got], [[1, 2], [3]]);
  });
}

test('a call has its id at once, and the bundle refuses what is not Unicode', async (t) => {
  const [ugo] = clients(t, ['ugo', { Client: Bundled }]);
  await ugo.roost.connect();
  const send = ugo.roost.send('ugo', 'whole 👋');
  assert.equal((await send).id, send.id);
  await assert.rejects(ugo.roost.send('ugo', 'cut \ud83d'), { code: 'bad_request' });
  const heard = [];
  ugo.roost.inbox.once('message', (m) => heard.push(m.data));
  for (const n of [1, 2]) await ugo.roost.send('ugo', n);
  await until('both', () => ugo.got.length === 3);
  assert.equal(heard.length, 1);
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
