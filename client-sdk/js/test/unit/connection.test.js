import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoff } from '../../src/core/backoff.js';
import { Client, at } from './client.js';

test('waits stay short for a few tries and then double up to the cap', () => {
  const wait = backoff(250, 20_000, () => 1);
  const waits = Array.from({ length: 13 }, () => wait.next());
  assert.deepEqual(waits, [250, 500, 500, 500, 500, 500, 500, 1000, 2000, 4000, 8000, 16_000, 20_000]);
  for (let i = 0; i < 2000; i++) wait.next();
  assert.equal(wait.next(), 20_000);
  wait.reset();
  assert.equal(wait.next(), 250);
  assert.equal(backoff(250, 20_000, () => 0).next(), 0, 'full jitter begins at nothing');
});

test('connect shows token, device, epoch and cursor', () => {
  const c = new Client({ device: 'phone', cursor: at(1, 41) });
  c.step('start').dial('ws://a', 7);
  const [connect] = c.frames('connect');
  assert.deepEqual(connect, {
    type: 'connect',
    token: 'token',
    device: 'phone',
    epoch: 7,
    cursor: at(1, 41),
    rooms: [],
  });
});

test('the states of a connection are told with what led to them', () => {
  const c = new Client();
  const conn = c.connected();
  c.step('closed', conn, 1006, 'gone');
  c.pass(500);
  c.welcome(c.dial());
  c.step('stop');
  const states = c.events('state').map(({ value }) => [value.previous, value.current, value.reason?.code]);
  assert.deepEqual(states, [
    ['disconnected', 'connecting', undefined],
    ['connecting', 'connected', undefined],
    ['connected', 'reconnecting', 'connection'],
    ['reconnecting', 'connected', undefined],
    ['connected', 'disconnected', undefined],
  ]);
});

test('the wait that a coordinator asks for is kept, whatever wakes the client', () => {
  const c = new Client().step('start');
  const [[routing]] = c.take('route');
  c.step('routed', routing, { url: 'ws://a', epoch: 1, connect_after_ms: 5000 });
  c.pass(4000).step('hurry');
  assert.deepEqual(c.take('open'), []);
  c.pass(1000);
  assert.equal(c.take('open').length, 1);
});

test('retry_after_ms is the least that is waited before the next route', () => {
  const c = new Client().step('start');
  const [[routing]] = c.take('route');
  c.step('trouble', routing, { why: 'no home', after: 3000 });
  c.pass(2999).step('hurry');
  assert.deepEqual(c.take('route'), []);
  c.pass(1501);
  assert.equal(c.take('route').length, 1);
});

test('a client that comes online tries at once', () => {
  const c = new Client({ backoffMs: [20_000, 20_000] });
  c.step('closed', c.connected(), 1006, '');
  assert.deepEqual(c.take('route'), []);
  c.step('hurry');
  assert.equal(c.take('route').length, 1);
});

test('a silent server is asked, and replaced when it does not answer', () => {
  const c = new Client();
  const conn = c.connected();
  c.pass(29_999);
  assert.deepEqual(c.frames('ping'), []);
  c.pass(1);
  assert.equal(c.frames('ping').length, 1);
  c.frame(conn, { type: 'pong' });
  c.pass(30_000);
  assert.equal(c.frames('ping').length, 1);
  c.pass(5000);
  assert.equal(c.core.state, 'reconnecting');
});

test('a client that wakes up asks whether its connection still lives', () => {
  const c = new Client();
  c.connected();
  c.pass(5000).step('hurry').step('hurry');
  assert.equal(c.frames('ping').length, 1);
  c.pass(5000);
  assert.equal(c.core.state, 'reconnecting');
});

test('pings are answered on every connection', () => {
  const c = new Client();
  c.frame(c.connected(), { type: 'ping' });
  assert.equal(c.frames('pong').length, 1);
});

test('each part of a try has a limit', () => {
  const c = new Client({ backoffMs: [1, 1] }).step('start');
  c.pass(10_000);
  assert.equal(c.take('close').length, 1, 'no answer of /route');
  c.pass(1);
  const [, [routing]] = c.take('route');
  c.step('routed', routing, { url: 'ws://a', epoch: 1 });
  c.pass(10_000);
  assert.equal(c.take('close').length, 1, 'no open socket');
  c.take('open');
  c.pass(1).dial();
  c.pass(15_000);
  assert.equal(c.take('close').length, 1, 'no welcome');
  assert.equal(c.core.state, 'connecting');
});

test('a part of a try that takes long is told once, and the try goes on', () => {
  const c = new Client().step('start');
  c.pass(2499);
  assert.deepEqual(c.take('slow'), []);
  c.pass(1);
  assert.equal(c.take('slow').length, 1);
  c.pass(7499);
  assert.deepEqual([c.take('slow'), c.take('close')], [[], []]);
  c.pass(1);
  assert.equal(c.take('close').length, 1);
  assert.deepEqual(
    c.events('error').map(({ value }) => [value.code, value.message]),
    [['connection', 'no answer (route)']],
  );
});

test('after moved the old connection is read until the new one is welcomed', () => {
  const c = new Client();
  const old = c.connected();
  c.frame(old, { type: 'moved', node: 'ws-2', url: 'ws://b', epoch: 2, after_ms: 350 });
  c.send('m1');
  assert.deepEqual(c.frames('send'), [], 'nothing new goes over it');
  c.message(old, at(1, 1), 'x');
  assert.equal(c.events('message').length, 1);
  c.pass(350);
  const [[conn, url]] = c.take('open');
  assert.equal(url, 'ws://b');
  c.step('opened', conn, 'token');
  assert.deepEqual(c.take('close'), []);
  c.welcome(conn, { cursor: at(1, 1), node: 'ws-2' });
  assert.deepEqual(c.take('close'), [[old]]);
  assert.equal(c.frames('send').length, 1);
  assert.deepEqual(c.states(), ['connecting', 'connected'], 'a move changes no state');
  assert.equal(c.core.node, 'ws-2');
});

test('an older moved does not turn a move back', () => {
  const c = new Client();
  const old = c.connected();
  c.frame(old, { type: 'moved', url: 'ws://b', epoch: 5, after_ms: 0 });
  c.frame(old, { type: 'moved', url: 'ws://c', epoch: 4, after_ms: 0 });
  assert.deepEqual(
    c.take('open').map(([, url]) => url),
    ['ws://b'],
  );
});

test('a try that is sent from node to node asks the coordinator again', () => {
  const c = new Client().step('start');
  let conn = c.dial();
  for (let i = 0; i < 3; i++) {
    c.frame(conn, { type: 'moved', url: `ws://${i}`, epoch: i, after_ms: 0 });
    conn = c.socket();
  }
  c.frame(conn, { type: 'moved', url: 'ws://x', epoch: 9, after_ms: 0 });
  assert.deepEqual(c.take('open'), []);
  c.pass(500);
  assert.equal(c.take('route').length, 1);
});

test('a close code of 3500 to 3999 stops the client and says why', () => {
  const c = new Client();
  const conn = c.connected();
  const ticket = c.send('m1');
  c.step('closed', conn, 3504, 'too many');
  assert.equal(c.core.state, 'failed');
  const { reason } = c.events('state').at(-1).value;
  assert.deepEqual([reason.code, reason.closeCode], ['stopped', 3504]);
  assert.deepEqual([c.answers.get(ticket).code, c.answers.get(ticket).sent], ['closed', true]);
  assert.equal(c.answers.get(c.send('m2')).cause, reason, 'later calls are told as well');
  c.step('start');
  assert.equal(c.core.state, 'connecting', 'the application may try again');
});

test('a token that is not accepted is replaced once', () => {
  const c = new Client().step('start');
  c.step('closed', c.dial(), 3500, '');
  c.pass(500);
  const [[routing]] = c.take('route');
  c.step('routed', routing, { url: 'ws://a', epoch: 1 });
  const [[conn, , fresh]] = c.take('open');
  assert.equal(fresh, true);
  c.step('opened', conn, 'fresh').step('closed', conn, 3500, '');
  assert.equal(c.core.failure?.code, 'unauthorized');
});

test('a token that ends soon is refreshed over the same connection', () => {
  const c = new Client();
  const conn = c.connected();
  c.frame(conn, { type: 'token_expiring', in_ms: 60_000 });
  assert.deepEqual(c.take('token'), [[conn]]);
  c.step('token', conn, 'fresh');
  const [refresh] = c.frames('refresh');
  assert.equal(refresh.token, 'fresh');
  c.refuse(conn, refresh.id, 'rate_limited', { retryable: true, retry_after_ms: 900 }).pass(900);
  assert.deepEqual(c.frames('refresh'), [refresh], 'repeated when it may be');
  c.reply(conn, refresh.id);
  assert.equal(c.core.state, 'connected');
});

test('a welcome to somebody else stops the client', () => {
  const c = new Client();
  c.step('closed', c.connected(), 1006, '').pass(500);
  c.welcome(c.dial(), { user: 'eve' });
  assert.equal(c.core.failure?.code, 'other_user');
});

test('after disconnect everything goes on from where it was', () => {
  const c = new Client();
  c.message(c.connected(), at(1, 1), 'a');
  c.step('mark', 'ack', at(1, 1)).step('stop').step('start');
  c.frames();
  c.dial();
  assert.deepEqual(c.frames('connect')[0].cursor, at(1, 1));
});

test('connect is answered by the welcome, or by what went wrong', () => {
  const c = new Client().step('start');
  const ask = (timeout) => c.command({ id: '@connect', lane: '', connect: true }, timeout);
  const early = ask(100);
  const patient = ask(10_000);
  const [[routing]] = c.take('route');
  c.step('trouble', routing, { why: 'connection refused' }).pass(99);
  assert.equal(c.answers.size, 0);
  c.pass(401);
  assert.deepEqual([c.answers.get(early).code, c.answers.get(early).message], ['not_sent', 'connection refused']);
  c.welcome(c.dial());
  assert.ok('ok' in c.answers.get(patient));
  assert.ok('ok' in c.answers.get(ask(1)));
  assert.deepEqual(
    c.frames().map((f) => f.type),
    ['connect'],
  );
});
