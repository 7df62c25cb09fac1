import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { Roost, RoostError } from '../../src/index.js';

const settled = () => new Promise((resolve) => setTimeout(resolve, 5));
const TOKEN = `e30.${Buffer.from('{"sub":"ÿalice","exp":9999999999}').toString('base64url')}.x`;

/** A socket to a server that welcomes, and takes every send. */
class Socket {
  static all = [];
  bufferedAmount = 0;
  sent = [];

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    Socket.all.push(this);
    setTimeout(() => this.onopen?.());
  }

  send(text) {
    const frame = JSON.parse(text);
    this.sent.push(frame);
    if (frame.type === 'connect') {
      const cursor = { generation: 1, offset: 0 };
      const about = { session: 's', user: 'ÿalice', node: 'ws-1', epoch: 1, ping_interval_ms: 25_000 };
      this.says({ type: 'welcome', ...about, cursor, recovered: true, replayed: 0 });
    }
    if (frame.type === 'history') this.says({ type: 'reply', id: frame.id, ok: { messages: [] } });
    if (frame.type === 'send') this.says({ type: 'reply', id: frame.id, ok: { at: 'then' } });
  }

  says(frame) {
    setTimeout(() => this.onmessage?.({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) }));
  }

  close(code) {
    this.closed = code;
  }
}

/** What a page has and Node has not. */
const page = new EventTarget();
let asked;
let answer;
const { fetch } = globalThis;

beforeEach(() => {
  Socket.all = [];
  asked = [];
  answer = async () => Response.json({ url: 'ws://node/socket', epoch: 1 });
  globalThis.fetch = (url, options) => (asked.push(String(url)), answer(options));
  for (const method of ['addEventListener', 'removeEventListener']) globalThis[method] = page[method].bind(page);
});

afterEach(() => {
  globalThis.fetch = fetch;
  delete globalThis.addEventListener;
  delete globalThis.removeEventListener;
});

const client = (options) => new Roost('http://host/chat/', { getToken: () => TOKEN, WebSocket: Socket, ...options });

test('the user is read from the token, and a path is kept', async () => {
  const roost = client();
  await roost.connect();
  assert.deepEqual(asked, ['http://host/chat/route?userId=%C3%BFalice']);
  assert.deepEqual([Socket.all[0].url, Socket.all[0].protocol], ['ws://node/socket', 'roost.v1']);
  assert.deepEqual(await roost.send('bob', 1, { id: 'm1' }), { id: 'm1', at: 'then' });
  roost.disconnect();
  assert.equal(Socket.all[0].closed, 1000);
});

test('a page that comes online tries at once, and a disconnected client does not', async () => {
  answer = async () => Response.json({ error: { code: 'unavailable', message: 'no home' } }, { status: 503 });
  const roost = client({ backoffMs: [20_000, 20_000] });
  roost.connect().catch(() => {});
  await settled();
  assert.equal(asked.length, 1);
  page.dispatchEvent(new Event('online'));
  await settled();
  assert.equal(asked.length, 2);
  roost.disconnect();
  page.dispatchEvent(new Event('online'));
  await settled();
  assert.equal(asked.length, 2);
});

test('what is under way is ended with the client', async () => {
  let aborted = false;
  answer = ({ signal }) => new Promise(() => signal.addEventListener('abort', () => (aborted = true)));
  const roost = client();
  const connecting = roost.connect();
  await settled();
  roost.disconnect();
  await assert.rejects(connecting, { code: 'closed' });
  assert.ok(aborted);
});

test('a coordinator that refuses for good stops the client', async () => {
  answer = async () => Response.json({ error: { code: 'bad_request', message: 'no such user' } }, { status: 400 });
  const roost = client();
  await assert.rejects(roost.connect(), { code: 'bad_request' });
  assert.equal(roost.state, 'failed');
});

test('a getToken that throws a RoostError stops the client, and any other error is tried again', async () => {
  const tries = client({ getToken: () => Promise.reject(new Error('offline')) });
  await assert.rejects(tries.connect({ timeoutMs: 10 }), { code: 'not_sent', message: 'Error: offline' });
  assert.equal(tries.state, 'connecting');
  tries.disconnect();
  const stops = client({ getToken: () => Promise.reject(new RoostError('unauthorized', 'log in')) });
  await assert.rejects(stops.connect(), { message: 'log in' });
  assert.equal(stops.state, 'failed');
});

test('who is asked for a token is not asked again meanwhile', async () => {
  let asks = 0;
  let give;
  const roost = client({
    getToken: () => {
      asks++;
      return new Promise((resolve) => (give = resolve));
    },
  });
  const connecting = roost.connect();
  await settled();
  roost.disconnect();
  await assert.rejects(connecting, { code: 'closed' });
  const again = roost.connect();
  await settled();
  give(TOKEN);
  await again;
  assert.equal(asks, 1);
  roost.disconnect();
});

test('a token that ended is not shown again', async () => {
  const over = `e30.${Buffer.from('{"sub":"ÿalice","exp":1}').toString('base64url')}.x`;
  let asks = 0;
  const roost = client({ getToken: () => (++asks, over) });
  await roost.connect();
  assert.equal(asks, 2, 'for the route and for the socket');
  roost.disconnect();
});

test('a listener that calls is heard after what it was told of, and one that throws ends nothing', async () => {
  const thrown = [];
  process.setUncaughtExceptionCaptureCallback((error) => thrown.push(error.message));
  const roost = client();
  const order = [];
  const calls = [];
  roost.inbox.on('message', ({ id }) => {
    order.push(id);
    calls.push(roost.send('bob', id));
    throw new Error(`fault at ${id}`);
  });
  roost.inbox.on('message', ({ id }) => order.push(`${id} again`));
  await roost.connect();
  const [socket] = Socket.all;
  for (const offset of [1, 2]) {
    const about = { stream: 'user:ÿalice', generation: 1, kind: 'message', from: 'bob', at: '', data: 0 };
    socket.says({ type: 'message', ...about, offset, id: `m${offset}` });
  }
  await settled();
  await Promise.all(calls);
  process.setUncaughtExceptionCaptureCallback(null);
  assert.deepEqual(order, ['m1', 'm1 again', 'm2', 'm2 again']);
  assert.deepEqual(thrown, ['fault at m1', 'fault at m2']);
  assert.deepEqual(roost.inbox.cursor, { generation: 1, offset: 2 });
  assert.deepEqual(
    socket.sent.filter((f) => f.type === 'send').map((f) => f.data),
    ['m1', 'm2'],
  );
  roost.disconnect();
});

test('the history of the inbox that is asked for too soon waits until it is known whose it is', async () => {
  const roost = client();
  const asked = roost.inbox.history({ limit: 3 });
  await roost.connect();
  assert.deepEqual((await asked).messages, []);
  const [{ stream, limit }] = Socket.all[0].sent.filter(({ type }) => type === 'history');
  assert.deepEqual([stream, limit], ['user:ÿalice', 3]);
  roost.disconnect();
});

test('nothing is acknowledged while nobody listens', async () => {
  const roost = client();
  await roost.connect();
  const about = { stream: 'user:ÿalice', generation: 1, kind: 'message', from: 'bob', at: '', data: 0 };
  Socket.all[0].says({ type: 'message', ...about, offset: 1, id: 'm1' });
  await settled();
  assert.deepEqual(roost.inbox.cursor, { generation: 1, offset: 0 });
  roost.disconnect();
});

test('a frame that cannot be read costs the connection, and an unknown one nothing', async () => {
  const roost = client();
  await roost.connect();
  Socket.all[0].says({ type: 'of a later version' });
  await settled();
  assert.equal(roost.state, 'connected');
  Socket.all[0].says('{');
  await settled();
  assert.equal(roost.state, 'reconnecting');
  roost.disconnect();
});

test('without a WebSocket it says so', () => {
  assert.throws(() => client({ WebSocket: undefined }), { name: 'TypeError' });
});

/** Has an inbox of such messages come to a client, and gives the offset that it acknowledged last. */
async function acks(messages, prepare = () => {}, options) {
  const roost = client(options);
  prepare(roost);
  await roost.connect();
  const result = roost.event(1, { id: 'e1' }).catch((error) => error);
  const [socket] = Socket.all.slice(-1);
  const stream = 'user:ÿalice';
  messages.forEach(([kind, data], n) =>
    socket.says({ type: 'message', stream, generation: 1, offset: n + 1, id: `m${n}`, from: 'x', kind, data }),
  );
  await settled();
  roost.disconnect();
  await result;
  return socket.sent.filter(({ type }) => type === 'ack').at(-1)?.cursor.offset;
}

test('a result counts as dealt with if somebody waits for it, or listens', async () => {
  const awaited = ['result', { type: 'event_result', event_id: 'e1' }];
  const late = ['result', { type: 'event_result', event_id: 'e0' }];
  const message = ['message', 1];
  const results = (roost) => roost.inbox.on('result', () => {});
  const all = (roost) => (results(roost), roost.inbox.on('message', () => {}));
  assert.equal(await acks([awaited]), 1);
  assert.equal(await acks([late]), undefined);
  assert.equal(await acks([late, awaited]), 2);
  assert.equal(await acks([late], results), 1);
  assert.equal(await acks([awaited], undefined, { ack: 'manual' }), undefined);
  assert.equal(await acks([awaited, message, late], results), 1, 'a message that nobody was told is not acknowledged');
  assert.equal(await acks([awaited, message, late], all), 3);
});
