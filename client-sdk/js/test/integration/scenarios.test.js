// docs/SDK-SCENARIOS.md with this SDK: a test for each.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { clients, cluster, numbers, roost, service, token, until, urlOf } from './cluster.js';

/** Messages in the hot window. */
const WINDOW = 200;

let dev;
before(
  async () => {
    const env = {
      EVENT_TIMEOUT_MS: 15_000,
      LEASE_TTL_MS: 1500,
      PRESENCE_LINGER_MS: 300,
      SESSIONS_PER_USER_MAX: 2,
      STREAM_MAX_LEN: WINDOW,
    };
    dev = await cluster(env);
  },
  { timeout: 120_000 },
);
after(() => dev?.stop());

const connected = async (t, ...users) => {
  const made = clients(t, ...users);
  await Promise.all(made.map((c) => c.roost.connect()));
  return made;
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Sends that many numbers, one every few milliseconds, and does something after some of them. */
async function stream(from, to, n, disturb) {
  const sends = [];
  for (const i of numbers(n)) {
    sends.push(from.roost.send(to, i));
    disturb(i);
    await pause(15);
  }
  await Promise.all(sends);
}

/** Sends numbers to a user as the application. */
async function serve(to, n) {
  for (let from = 0; from < n; from += 100) {
    const commands = numbers(Math.min(100, n - from), from).map((i) => ({ type: 'send', id: `n${i}`, to, data: i }));
    await service('/api/batch', { commands });
  }
}

/** Tokens one after the other; the last one again and again. */
function tokens(...made) {
  const ask = () => (ask.asked++, made.length > 1 ? made.shift() : made[0])();
  ask.asked = 0;
  return ask;
}

test('the list of scenarios is what is tested', async () => {
  const listed = await readFile(new URL('../../../../docs/SDK-SCENARIOS.md', import.meta.url), 'utf8');
  const tested = await readFile(new URL(import.meta.url), 'utf8');
  const ids = (text, pattern) => [...text.matchAll(pattern)].map(([, id]) => id);
  assert.deepEqual(ids(tested, /^test\('([a-z-]+)'/gm), ids(listed, /^## (.+)$/gm));
});

test('connect', async (t) => {
  const [{ roost, states }] = await connected(t, 'alice');
  assert.deepEqual([roost.user, roost.state, states], ['alice', 'connected', ['connecting', 'connected']]);
  assert.match(roost.node, /^ws-\d$/);
});

test('send-and-receive', async (t) => {
  const [carol, dave] = await connected(t, 'carol', 'dave');
  const first = await carol.roost.send('dave', { text: 'grüß dich 👋' }, { id: 'the-same' });
  assert.ok(first.id === 'the-same' && Date.parse(first.at) > 0);
  assert.deepEqual(await carol.roost.send('dave', { text: 'grüß dich 👋' }, { id: 'the-same' }), first);
  await assert.rejects(carol.roost.send('dave', 2, { id: 'the-same' }), { name: 'RoostError', code: 'conflict' });
  await carol.roost.send('dave', 3);
  await until('both', () => dave.got.length === 2);
  assert.deepEqual(dave.got, [{ text: 'grüß dich 👋' }, 3]);
});

test('offline-queue', async (t) => {
  const [frank] = await connected(t, 'frank');
  const [erin] = clients(t, 'erin');
  const sends = numbers(50).map((n) => erin.roost.send('frank', n));
  await erin.roost.connect();
  await Promise.all(sends);
  await until('all', () => frank.got.length === 50);
  assert.deepEqual(frank.got, numbers(50));
});

test('queue-overflow', async (t) => {
  const [otto] = await connected(t, 'otto');
  const [nina] = clients(t, ['nina', { queueMax: 2 }]);
  const sends = numbers(2).map((n) => nina.roost.send('otto', n));
  await assert.rejects(nina.roost.send('otto', 2), { code: 'queue_full', sent: false });
  await nina.roost.connect();
  await Promise.all(sends);
  await nina.roost.send('otto', 3);
  await until('three', () => otto.got.length === 3);
  assert.deepEqual(otto.got, [0, 1, 3]);
});

test('resume', async (t) => {
  const [ida] = await connected(t, 'ida');
  await service('/api/send', { id: 'i1', to: 'ida', data: 1 });
  await until('the first', () => ida.got.length === 1);
  ida.roost.disconnect();
  assert.equal(ida.roost.state, 'disconnected');
  await service('/api/send', { id: 'i2', to: 'ida', data: 2 });
  const [again] = await connected(t, ['ida', { cursor: ida.roost.inbox.cursor }]);
  await until('the second', () => again.got.length === 1);
  assert.deepEqual(again.got, [2]);
  await ida.roost.connect();
  await until('the second, here too', () => ida.got.length === 2);
});

test('gap', async (t) => {
  const [kim] = await connected(t, 'kim');
  await service('/api/send', { id: 'k1', to: 'kim', data: 'first' });
  await until('the first', () => kim.got.length === 1);
  const { cursor } = kim.roost.inbox;
  kim.roost.disconnect();
  await serve('kim', WINDOW + 1);
  const gaps = [];
  kim.roost.inbox.on('gap', (gap) => gaps.push(gap));
  await kim.roost.connect();
  await until('the gap', () => gaps.length === 1);
  assert.deepEqual([gaps[0].stream, gaps[0].from], ['user:kim', cursor]);
  assert.equal(typeof gaps[0].through, 'string');
  await service('/api/send', { id: 'k2', to: 'kim', data: 'last' });
  await until('the last', () => kim.got.length === 2);
  assert.deepEqual(kim.got, ['first', 'last']);
});

test('cut-sockets', async (t) => {
  const [gina, hugo] = await connected(t, 'gina', 'hugo');
  await stream(gina, 'hugo', 120, (n) => {
    if (n % 40 === 20) gina.cut();
    if (n % 40 === 30) hugo.cut();
  });
  await until('all', () => hugo.got.length >= 120);
  assert.deepEqual(hugo.got, numbers(120));
  assert.ok(gina.states.includes('reconnecting') && hugo.states.includes('reconnecting'));
});

test('retry-after-lost-reply', async (t) => {
  const [jack, kate] = await connected(t, 'jack', 'kate');
  jack.deafen(true);
  const sent = jack.roost.send('kate', 1);
  const reply = () => jack.unheard.find((frame) => frame.type === 'reply');
  await until('the reply', reply);
  jack.deafen(false);
  jack.cut();
  const { id, at } = await sent;
  assert.deepEqual([id, at], [reply().id, reply().ok.at]);
  await jack.roost.send('kate', 2);
  await until('both', () => kate.got.length === 2);
  assert.deepEqual(kate.got, [1, 2]);
});

test('moved', async (t) => {
  const [walt, xena] = await connected(t, 'walt', 'xena');
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
      await pause(40);
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
test('failover', async (t) => {
  const [liam, mona] = await connected(t, 'liam', 'mona');
  let back;
  await stream(liam, 'mona', 100, (n) => {
    if (n === 50) back = dev.crash();
  });
  await back;
  await until('all', () => mona.got.length >= 100);
  assert.deepEqual(mona.got, numbers(100));
  const way = ['connecting', 'connected', 'reconnecting', 'connected'];
  assert.deepEqual([liam.states, mona.states], [way, way]);
});

test('slow-reader', async (t) => {
  const [noah, olga] = await connected(t, 'noah', 'olga');
  olga.pause();
  const padding = 'x'.repeat(50_000);
  await Promise.all(numbers(150).map((i) => noah.roost.send('olga', { i, padding })));
  assert.deepEqual(olga.got, []);
  olga.resume();
  await until('all', () => olga.got.length >= 150);
  assert.deepEqual(
    olga.got.map(({ i }) => i),
    numbers(150),
  );
});

/** Answers an event as a processor does. */
const answer = (user, event, data) =>
  service('/api/result', { type: 'event_accepted', client_id: user, event_id: event, data });

test('event-result', async (t) => {
  const [paul] = await connected(t, 'paul');
  const results = [];
  paul.roost.inbox.on('result', ({ data }) => results.push(data.event_id));
  const disturb = { e1: async () => paul.cut(), e2: () => dev.crash() };
  for (const [id, away] of Object.entries(disturb)) {
    const asked = paul.roost.event({ order: 17 }, { id });
    await until('it is with the processor', async () => {
      const { ok } = await service('/api/tickets?userId=paul', undefined, urlOf(paul.roost.node));
      return JSON.stringify(ok).includes(id);
    });
    await away();
    await answer('paul', id, 7);
    const { type, event_id: event, data } = await asked;
    assert.deepEqual([type, event, data], ['event_accepted', id, 7]);
  }
  assert.deepEqual(results, ['e1', 'e2']);
});

test('event-timeout', async (t) => {
  const [quin] = await connected(t, 'quin');
  const results = [];
  quin.roost.inbox.on('result', ({ data }) => results.push(data.type));
  const { code, id, sent } = await quin.roost.event(1).catch((error) => error);
  assert.deepEqual([code, sent], ['timeout', true]);
  await answer('quin', id);
  await until('the result', () => results.length === 2);
  assert.deepEqual(results, ['event_timeout', 'event_accepted']);
});

test('room-resume', async (t) => {
  const [pete, rita] = await connected(t, 'pete', 'rita');
  const got = [];
  rita.roost.room('den').on('message', (m) => got.push(m.data));
  await rita.roost.room('den').join();
  for (const n of numbers(30)) {
    if (n === 10) rita.cut();
    await pete.roost.room('den').publish(n);
  }
  await until('all', () => got.length >= 30);
  assert.deepEqual(got, numbers(30));
  assert.deepEqual(rita.states, ['connecting', 'connected', 'reconnecting', 'connected']);
});

test('presence-watch', async (t) => {
  const [yves, zara] = await connected(t, 'yves', 'zara');
  const changes = [];
  yves.roost.presence.on('change', ({ user, status }) => changes.push(`${user} ${status}`));
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

test('signals-latest-wins', async (t) => {
  const [sean, tess] = await connected(t, 'sean', 'tess');
  const signals = [];
  tess.roost.inbox.on('signal', ({ from, data }) => signals.push([from, data]));
  await until('the last', () => {
    // A signal may be lost, so they are given again.
    if (signals.at(-1)?.[1] !== 199) for (const n of numbers(200)) sean.roost.signal('tess', 'cursor', n);
    return signals.at(-1)?.[1] === 199;
  });
  assert.equal(signals.at(-1)[0], 'sean');
  assert.ok(!signals.some(([, n]) => n === 100), 'what was overtaken while it waited');
});

test('token-expiry', async (t) => {
  const getToken = tokens(
    () => token('tina', 7),
    () => token('tina', 600),
  );
  const [tina] = await connected(t, ['tina', { getToken }]);
  await until('a fresh token was asked for', () => getToken.asked === 2);
  await pause(7500);
  await tina.roost.send('tina', 'still here');
  assert.deepEqual(tina.states, ['connecting', 'connected']);
});

test('narrower-token', async (t) => {
  const wide = (lives) => () => token('uri', lives, { rooms: ['*'], watch: ['*'] });
  const getToken = tokens(wide(7), () => token('uri', 7, { rooms: [], watch: [] }), wide(600));
  const [uri, vito] = await connected(t, ['uri', { getToken }], 'vito');
  const room = uri.roost.room('garden');
  const [got, lost] = [[], []];
  room.on('message', (m) => got.push(m.data));
  room.on('lost', ({ code }) => lost.push(`room ${code}`));
  uri.roost.presence.on('lost', ({ user, error }) => lost.push(`${user} ${error.code}`));
  await Promise.all([room.join(), uri.roost.presence.watch(['vito'])]);
  await until('both are lost', () => lost.length === 2);
  assert.deepEqual(lost.sort(), ['room forbidden', 'vito forbidden']);
  await until('a wider token was asked for', () => getToken.asked === 3);
  await until('it may join again', () =>
    room.join().then(
      () => true,
      ({ code }) => code !== 'forbidden',
    ),
  );
  await uri.roost.presence.watch(['vito']);
  await vito.roost.room('garden').publish('again');
  await until('the message', () => got.length === 1);
  assert.deepEqual(uri.states, ['connecting', 'connected']);
});

test('bad-token', async (t) => {
  const getToken = tokens(() => token('uma', 600).replace(/.{5}$/, 'AAAAA'));
  const [uma] = clients(t, ['uma', { getToken }]);
  await assert.rejects(uma.roost.connect(), { name: 'RoostError', code: 'unauthorized' });
  assert.deepEqual([uma.roost.state, getToken.asked], ['failed', 2]);
});

test('too-many-sessions', async (t) => {
  const others = await connected(t, 'wendy', 'wendy');
  const [third] = clients(t, 'wendy');
  await assert.rejects(third.roost.connect(), { code: 'stopped', closeCode: 3504 });
  assert.equal(third.roost.state, 'failed');
  await others[0].roost.send('wendy', 1);
  await until('both have it', () => others.every(({ got }) => got.length === 1));
});

test('disconnected-by-server', async (t) => {
  const [vera] = await connected(t, 'vera');
  await service('/api/disconnect', { user: 'vera', reason: 'closed account' });
  await until('it stopped', () => vera.roost.state === 'failed');
  const { code, closeCode, message } = vera.reasons.at(-1);
  assert.deepEqual([code, closeCode], ['stopped', 3503]);
  assert.match(message, /closed account/);
});
