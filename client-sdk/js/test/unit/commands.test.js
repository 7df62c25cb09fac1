import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, at } from './client.js';

const ids = (frames) => frames.map((f) => f.id);

test('what is sent without a connection waits for one, in order', () => {
  const c = new Client();
  c.send('m1');
  c.send('m2', 'carol');
  c.send('m3');
  const conn = c.connected();
  assert.deepEqual(ids(c.frames('send')), ['m1', 'm2', 'm3']);
  c.reply(conn, 'm1', { at: 'then' });
  assert.deepEqual(c.answers.get(1).ok, { id: 'm1', at: 'then' });
});

test('over a new connection everything unanswered is repeated before anything new', () => {
  const c = new Client();
  const conn = c.connected();
  ['m1', 'm2', 'm3'].forEach((id) => c.send(id));
  const before = c.written.filter((w) => w.frame.type === 'send').map((w) => w.text);
  c.frames();
  c.reply(conn, 'm2');
  c.step('closed', conn, 1006, '');
  c.send('m4');
  c.pass(500).welcome(c.dial());
  const after = c.written.filter((w) => w.frame.type === 'send').map((w) => w.text);
  assert.deepEqual(ids(c.frames('send')), ['m1', 'm3', 'm4']);
  assert.deepEqual(after.slice(0, 2), [before[0], before[2]], 'equal to the byte');
});

test('after a retryable error nothing later goes to that receiver until the repeat is answered', () => {
  const c = new Client();
  const conn = c.connected();
  c.send('m1');
  c.send('m2');
  c.frames();
  c.refuse(conn, 'm1', 'rate_limited', { retryable: true, retry_after_ms: 300 });
  c.refuse(conn, 'm2', 'rate_limited', { retryable: true, retry_after_ms: 10 });
  c.send('m3');
  c.send('x1', 'carol');
  c.pass(299);
  assert.deepEqual(ids(c.frames('send')), ['x1'], 'other receivers do not wait');
  c.pass(1);
  assert.deepEqual(ids(c.frames('send')), ['m1']);
  c.reply(conn, 'm1');
  assert.deepEqual(ids(c.frames('send')), ['m2']);
  c.reply(conn, 'm2');
  assert.deepEqual(ids(c.frames('send')), ['m3']);
});

test('a hold lasts over a new connection', () => {
  const c = new Client();
  const conn = c.connected();
  c.send('m1');
  c.send('m2');
  c.frames();
  c.refuse(conn, 'm1', 'unavailable', { retryable: true, retry_after_ms: 10 });
  c.step('closed', conn, 1006, '').pass(500);
  const next = c.dial();
  c.welcome(next);
  assert.deepEqual(ids(c.frames('send')), ['m1']);
  c.reply(next, 'm1');
  assert.deepEqual(ids(c.frames('send')), ['m2']);
});

test('256 commands at most are unanswered', () => {
  const c = new Client();
  const conn = c.connected();
  for (let i = 0; i < 300; i++) c.send(`m${i}`);
  assert.equal(c.frames('send').length, 256);
  c.reply(conn, 'm0');
  assert.deepEqual(ids(c.frames('send')), ['m256']);
});

test('the queue is bounded, and what does not fit is not kept', () => {
  const c = new Client({ queueMax: 2 });
  c.send('m1');
  c.send('m2');
  assert.equal(c.answers.get(c.send('m3')).code, 'queue_full');
  c.connected();
  assert.deepEqual(ids(c.frames('send')), ['m1', 'm2']);
});

test('what never left is withdrawn when its time is up, and what left may have been accepted', () => {
  const c = new Client();
  const conn = c.connected();
  const sent = c.send('m1', 'bob', 1000);
  c.step('closed', conn, 1006, '');
  const waiting = c.send('m2', 'bob', 1000);
  c.pass(1000);
  assert.deepEqual([c.answers.get(sent).code, c.answers.get(sent).sent], ['unknown', true]);
  assert.deepEqual([c.answers.get(waiting).code, c.answers.get(waiting).sent], ['not_sent', false]);
  c.frames();
  c.welcome(c.dial());
  assert.deepEqual(ids(c.frames('send')), ['m1'], 'it is repeated all the same: what follows must not overtake it');
});

test('the same id again waits for the same answer', () => {
  const c = new Client();
  const conn = c.connected();
  const first = c.send('m1', 'bob', 10);
  c.pass(10);
  assert.equal(c.answers.get(first).code, 'unknown');
  const again = c.send('m1');
  assert.equal(c.answers.get(c.send('m1', 'carol')).code, 'conflict');
  c.reply(conn, 'm1', { at: 'then' });
  assert.equal(c.answers.get(again).ok.at, 'then');
  assert.equal(c.frames('send').length, 1);
});

test('a caller that goes away takes back only what was not written', () => {
  const c = new Client();
  const waiting = c.send('m1');
  c.step('abandon', waiting);
  const conn = c.connected();
  const sent = c.send('m2');
  c.step('abandon', sent);
  assert.deepEqual(ids(c.frames('send')), ['m2']);
  c.reply(conn, 'm2');
  assert.equal(c.answers.size, 0);
});

test('nothing is repeated when the server may have forgotten its id', () => {
  const c = new Client();
  c.step('closed', (c.connected(), c.send('m1', 'bob', 3_600_000), 2), 1006, '');
  c.take('route');
  c.frames();
  c.pass(15 * 60_000);
  assert.equal(c.answers.get(1).code, 'unknown');
  c.take('route');
  c.step('stop').step('start');
  c.welcome(c.dial());
  assert.deepEqual(c.frames('send'), []);
});

test('a connection that owes an answer for half a minute is replaced', () => {
  const c = new Client();
  const conn = c.connected();
  c.send('m1', 'bob', 60_000);
  c.pass(20_000).frame(conn, { type: 'ping' }).pass(10_000);
  assert.equal(c.core.state, 'reconnecting');
});

test('a final refusal is given to the caller and frees what waits behind it', () => {
  const c = new Client();
  const conn = c.connected();
  const ticket = c.send('m1');
  c.refuse(conn, 'm1', 'too_large');
  assert.equal(c.answers.get(ticket).code, 'too_large');
});

test('one status is on the way at a time', () => {
  const c = new Client();
  const conn = c.connected();
  const status = (id) => c.command({ id, lane: 'status', alone: true, text: JSON.stringify({ type: 'status', id }) });
  status('s1');
  status('s2');
  assert.deepEqual(ids(c.frames('status')), ['s1']);
  c.reply(conn, 's1');
  assert.deepEqual(ids(c.frames('status')), ['s2']);
});

test('an event is answered by its result, however the reply fares', () => {
  for (const replied of [true, false]) {
    const c = new Client();
    const conn = c.connected();
    const ticket = c.event('e1');
    if (replied) c.reply(conn, 'e1');
    assert.equal(c.answers.size, 0, 'stored is not done');
    c.result(conn, 1, { event_id: 'e1', status: 'ok' });
    assert.deepEqual(c.answers.get(ticket).ok, { event_id: 'e1', status: 'ok' });
    assert.equal(c.events('result').length, 1, 'it is a message of the inbox, too');
  }
});

test('a result is what its event waits for, over connections, and no other is', () => {
  const c = new Client();
  const conn = c.connected();
  const ticket = c.event('e1');
  c.step('closed', conn, 1006, '').pass(500);
  const next = c.dial();
  c.welcome(next);
  assert.deepEqual(ids(c.frames('event')), ['e1', 'e1'], 'an unanswered one is repeated');
  c.send('m1');
  c.result(next, 1, { type: 'event_accepted', event_id: 'e0' }).result(next, 2, { type: 'x', event_id: 'm1' });
  assert.equal(c.answers.size, 0, 'of another process, and of what is no event');
  c.result(next, 3, { type: 'event_accepted', event_id: 'e1' }).result(next, 3, { type: 'again', event_id: 'e1' });
  assert.equal(c.answers.get(ticket).ok.type, 'event_accepted');
  assert.equal(c.events('result').length, 3);
});

test('a timeout that the cluster tells ends the waiting, and a later result is a message', () => {
  const c = new Client();
  const conn = c.connected();
  const ticket = c.event('e1');
  c.reply(conn, 'e1').result(conn, 1, { type: 'event_timeout', event_id: 'e1' });
  const { code, id, sent } = c.answers.get(ticket);
  assert.deepEqual([code, id, sent], ['timeout', 'e1', true]);
  c.result(conn, 2, { type: 'event_accepted', event_id: 'e1' });
  assert.deepEqual(
    c.events('result').map((e) => e.value.data.type),
    ['event_timeout', 'event_accepted'],
  );
});

test('an event whose result came first is repeated if its answer is unknown', () => {
  for (const resultFirst of [true, false]) {
    const c = new Client();
    const conn = c.connected();
    const ticket = c.event('e1');
    const frames = [
      () => c.result(conn, 1, { type: 'event_timeout', event_id: 'e1' }),
      () => c.refuse(conn, 'e1', 'unknown', { retryable: true }),
    ];
    for (const frame of resultFirst ? frames : frames.reverse()) frame();
    assert.equal(c.answers.get(ticket).code, 'timeout', 'its caller has what there is to have');
    c.pass(10_000);
    assert.deepEqual(ids(c.frames('event')), ['e1', 'e1'], `result first: ${resultFirst}`);
    const later = c.event('e2');
    c.result(conn, 2, { type: 'event_accepted', event_id: 'e1' });
    c.reply(conn, 'e1').reply(conn, 'e2').result(conn, 3, { type: 'event_accepted', event_id: 'e2' });
    assert.equal(c.answers.get(later).ok.type, 'event_accepted');
    assert.deepEqual([ids(c.frames('event')), c.answers.size], [['e2'], 2]);
    c.step('closed', conn, 1006, '').pass(500).welcome(c.dial());
    assert.deepEqual(c.frames('event'), [], 'nothing is left of either');
  }
});

test('a stopped client repeats no event later', () => {
  const c = new Client();
  c.connected();
  const ticket = c.event('e1');
  c.frames();
  c.step('stop').step('start');
  c.welcome(c.dial());
  assert.deepEqual([c.answers.get(ticket).code, c.frames('event')], ['closed', []]);
});

test('a result that no caller waits for any more is not told as settled', () => {
  const c = new Client();
  const conn = c.connected();
  c.step('abandon', c.event('e1'));
  const told = c.core.step(
    ['frame', conn, { type: 'message', stream: 'user:alice', ...at(1, 1), id: 'r', kind: 'result', data: { event_id: 'e1' } }],
    c.now,
  );
  const [, , , , , settled] = told.find(([name, , what]) => name === 'tell' && what === 'result');
  assert.equal(settled, undefined);
});

test('a stored event is not repeated, and its missing result is told as such', () => {
  const c = new Client();
  const conn = c.connected();
  const ticket = c.event('e1', 40_000);
  c.reply(conn, 'e1').frames();
  c.step('closed', conn, 1006, '').pass(500);
  const next = c.dial();
  c.welcome(next);
  assert.deepEqual(c.frames('event'), []);
  for (let i = 0; i < 4; i++) c.pass(10_000).frame(next, { type: 'ping' });
  assert.deepEqual([c.answers.get(ticket).code, c.answers.get(ticket).sent], ['no_result', true]);
  assert.equal(c.core.state, 'connected');
});

test('a later signal takes the place of one that waits, fifty go in a second, and none without a connection', () => {
  const c = new Client();
  c.step('signal', 'lobby cursor', '{"type":"signal","n":0}');
  c.connected();
  for (let ms = 0; ms < 1000; ms++) c.step('signal', 'lobby cursor', `{"type":"signal","n":${ms}}`).pass(1);
  c.pass(20);
  const signals = c.frames('signal');
  assert.ok(signals.length >= 50 && signals.length <= 51, `${signals.length}`);
  assert.equal(signals[0].n, 0);
  assert.equal(signals.at(-1).n, 999);
});
