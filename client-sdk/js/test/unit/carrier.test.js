import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

// `npm run check` runs this with the bundle, too.
const { Roost, RoostError } = await import(process.env.ROOST_SDK ?? '../../src/index.js');

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
  await assert.rejects(tries.connect({ timeoutMs: 10 }), { code: 'not_sent', message: 'getToken: offline' });
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

test('what a server makes for a page needs nothing, and connecting says at once what is missing', async () => {
  for (const [url, options, why] of [
    ['http://host', { getToken: () => TOKEN }, /no WebSocket/],
    ['http://host', { WebSocket: Socket }, /no getToken/],
    ['http://host', undefined, /no getToken/],
    ['/', { getToken: () => TOKEN, WebSocket: Socket }, /not an http address: \//],
    ['host:7300', { getToken: () => TOKEN, WebSocket: Socket }, /not an http address: host:7300/],
    [undefined, { getToken: () => TOKEN, WebSocket: Socket }, /not an http address: undefined/],
    ['http://host', { getToken: () => TOKEN, WebSocket: Socket, cursor: '{"generation":1,"offset":2}' }, /not a cursor/],
  ]) {
    const roost = new Roost(url, options);
    roost.inbox.on('message', () => {});
    const waiting = roost.send('bob', 1);
    waiting.catch(() => {});
    await assert.rejects(roost.connect(), { name: 'RoostError', code: 'bad_options', message: why });
    assert.equal(roost.state, 'failed');
    await assert.rejects(waiting, { code: 'closed', message: why });
  }
});

test('what is no token is called that, and asked for again until it is one', async () => {
  for (const [token, why] of [
    [undefined, 'not a string but undefined'],
    [null, 'not a string but null'],
    [{ token: TOKEN }, 'not a string but object'],
    ['', 'empty'],
    ['<html>nginx 502</html>', 'not three parts'],
    [`Bearer ${TOKEN}`, 'not three parts'],
  ]) {
    let asks = 0;
    const roost = client({ getToken: () => (++asks > 3 ? TOKEN : token), backoffMs: [1, 1] });
    const errors = [];
    roost.on('error', ({ message }) => errors.push(message));
    await roost.connect({ timeoutMs: 2000 });
    assert.deepEqual(errors, Array(3).fill(`getToken: no token: ${why}`));
    roost.disconnect();
  }
});

test('an error page in the place of a fresh token does not end a client', async () => {
  let asks = 0;
  const roost = client({ getToken: () => ([2, 3, 4].includes(++asks) ? '<html>502' : TOKEN), backoffMs: [1, 1] });
  const errors = [];
  roost.on('error', ({ message }) => errors.push(message));
  await roost.connect();
  Socket.all[0].onclose({ code: 3500, reason: 'unauthorized' });
  await roost.connect({ timeoutMs: 2000 });
  await roost.send('bob', 1, { timeoutMs: 2000 });
  assert.deepEqual([roost.state, asks], ['connected', 5]);
  assert.deepEqual(errors.slice(1), Array(3).fill('getToken: no token: not three parts'));
  roost.disconnect();
});

test('a token whose claims are no object does not keep a client from connecting again', async () => {
  const roost = client({ user: 'ÿalice', getToken: () => `e30.${btoa('null')}.x` });
  await roost.connect();
  roost.disconnect();
  await roost.connect({ timeoutMs: 500 });
  roost.disconnect();
});

test('what a try meets is told with what was tried', async () => {
  const html = () => new Response('<html>', { status: 200, headers: { 'content-type': 'text/html' } });
  const missing = () => Response.json({ error: { code: 'not_found', message: 'no such path' } }, { status: 404 });
  const refused = () => Promise.reject(new TypeError('fetch failed', { cause: new Error('connect ECONNREFUSED') }));
  const noHome = () => Response.json({ error: { code: 'unavailable', message: 'no home' } }, { status: 503 });
  const elsewhere = () => Response.json({ data: 1 });
  const proxy = (status) => () => new Response('<html>', { status, headers: { 'content-type': 'text/html' } });
  const cut = () => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"url":'));
        controller.error(new TypeError('terminated', { cause: new Error('other side closed') }));
      },
    });
    return new Response(body, { headers: { 'content-type': 'application/json' } });
  };
  for (const [gives, why] of [
    [html, 'not a coordinator: 200, text/html'],
    [missing, 'not a coordinator: 404, application/json'],
    [elsewhere, 'not a coordinator: 200, application/json'],
    [refused, 'connect ECONNREFUSED'],
    [noHome, 'unavailable: no home'],
    [proxy(502), 'not reached, HTTP 502'],
    [proxy(503), 'not reached, HTTP 503'],
    [proxy(404), 'not a coordinator: 404, text/html'],
    [cut, 'other side closed'],
  ]) {
    answer = async () => gives();
    const roost = client({ backoffMs: [20_000, 20_000] });
    const error = new Promise((resolve) => roost.once('error', resolve));
    await assert.rejects(roost.connect({ timeoutMs: 20 }), { code: 'not_sent', message: `http://host/chat/route: ${why}` });
    assert.deepEqual([(await error).code, (await error).message], ['connection', `http://host/chat/route: ${why}`]);
    assert.equal(roost.state, 'connecting', 'it goes on trying');
    roost.disconnect();
  }
});

test('the first error that nobody listens for is on the console', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  answer = async () => new Response('<html>', { status: 404 });
  const roost = client({ backoffMs: [1, 1] });
  await assert.rejects(roost.connect({ timeoutMs: 50 }), { code: 'not_sent' });
  roost.disconnect();
  assert.equal(warn.mock.callCount(), 1);
  assert.match(warn.mock.calls[0].arguments[0], /^Roost: http:\/\/host\/chat\/route: not a coordinator: 404/);
});

test('who takes long is named within three seconds, while it is waited for', async () => {
  answer = () => new Promise(() => {});
  const mute = class extends Socket {
    send() {}
  };
  const errors = [];
  const told = (n) => ({ message }) => (errors[n] = message);
  const clients = [{}, { getToken: () => new Promise(() => {}) }, { WebSocket: mute, user: 'alice' }].map(client);
  clients.forEach((roost, n) => (roost.on('error', told(n)), roost.connect().catch(() => {})));
  await settled();
  clients[2].disconnect();
  answer = async () => Response.json({ url: 'ws://node/socket', epoch: 1 });
  clients[2].connect().catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 2900));
  clients.forEach((roost) => roost.disconnect());
  assert.deepEqual(errors, [
    'http://host/chat/route: no answer yet',
    'getToken: no answer yet',
    'ws://node/socket: no answer yet',
  ]);
});

test('text that is not Unicode is refused before it is sent, wherever it stands', async () => {
  const roost = client();
  await roost.connect();
  const [socket] = Socket.all;
  const before = socket.sent.length;
  const cut = 'cut \ud83d';
  const room = roost.room('lobby');
  for (const refused of [
    () => roost.send('bob', cut),
    () => roost.send('bob', { text: [cut] }),
    () => roost.send('bob', { [cut]: 1 }),
    () => roost.send('bob', '\ude00 first'),
    () => roost.send('bob', `\\${cut}`),
    () => roost.send('bob', 'a\0b'),
    () => roost.send(cut, 1),
    () => roost.send('bob', 1, { id: cut }),
    () => roost.event({ cut }),
    () => room.publish(cut),
    () => room.join({ presence: true, info: { name: cut } }),
    () => roost.presence.watch(['bob', cut]),
    async () => room.signal('typing', cut),
    async () => room.signal(cut, 1),
    async () => roost.signal('bob', 'typing', { cut }),
    async () => roost.signal(cut, 'typing'),
    async () => roost.room(cut),
  ]) {
    await assert.rejects(refused(), { name: 'RoostError', code: 'bad_request' }, String(refused));
  }
  assert.equal(socket.sent.length, before, 'nothing of it was written');
  for (const fine of ['whole 👋', '\\ud83d as text', '\\\\ud83d', 'ÿ', '\u2028']) {
    assert.equal((await roost.send('bob', { [fine]: fine })).at, 'then', fine);
  }
  roost.disconnect();
  for (const options of [{ user: cut }, { device: cut }]) {
    await assert.rejects(client(options).connect(), { code: 'bad_request' });
  }
});

test('the id of what is sent is there at once', async () => {
  const roost = client();
  const event = roost.event({ order: 17 });
  const send = roost.send('bob', 1);
  const publish = roost.room('lobby').publish(1, { id: 'mine' });
  for (const call of [event, send, publish]) call.catch(() => {});
  await roost.connect();
  await settled();
  const ids = Socket.all[0].sent.filter(({ id }) => id).map(({ id }) => id);
  assert.deepEqual(ids, [event.id, send.id, publish.id]);
  assert.equal(publish.id, 'mine');
  assert.equal((await send).id, send.id);
  roost.disconnect();
});

test('listeners are ended by off and by what on gives, and those of once by the first event', async () => {
  const roost = client();
  const heard = [];
  const [kept, gone, ended, first] = ['kept', 'gone', 'ended', 'first'].map((n) => ({ current }) =>
    heard.push(`${n} ${current}`),
  );
  roost.on('state', kept);
  roost.on('state', gone);
  roost.once('state', first);
  roost.once('state', kept);
  const end = roost.on('state', ended);
  roost.once('state', ended);
  roost.off('state', gone);
  roost.off('state', () => {});
  end();
  roost.once('state', () => roost.off('state', late));
  const late = () => heard.push('late');
  roost.on('state', late);
  await roost.connect();
  roost.disconnect();
  assert.deepEqual(heard, ['kept connecting', 'first connecting', 'kept connected', 'kept disconnected']);
});

test('a message that once heard counts as dealt with', async () => {
  const once = (roost) => roost.inbox.once('message', () => {});
  assert.equal(await acks([['message', 1]], once), 1);
  assert.equal(await acks([['message', 1], ['message', 2]], once), 1);
});

/** Keeps cursors as an application would. */
function keeper(kept = {}) {
  return {
    kept,
    asked: [],
    load(stream) {
      this.asked.push(stream);
      return this.kept[stream];
    },
    async save(stream, cursor) {
      await null;
      this.kept[stream] = cursor;
    },
  };
}

test('the cursor that the application keeps is shown by the next client', async () => {
  const cursors = keeper();
  const first = client({ cursors });
  first.inbox.on('message', () => {});
  await first.connect();
  await settled();
  assert.deepEqual(cursors.kept, { 'user:ÿalice': { generation: 1, offset: 0 } }, 'before there was any message');
  const about = { stream: 'user:ÿalice', generation: 1, kind: 'message', from: 'bob', at: '', data: 0 };
  for (const offset of [1, 2]) Socket.all[0].says({ type: 'message', ...about, offset, id: `m${offset}` });
  await settled();
  first.disconnect();
  assert.deepEqual(cursors.kept, { 'user:ÿalice': { generation: 1, offset: 2 } });
  const second = client({ cursors });
  await second.connect();
  assert.deepEqual(Socket.all[1].sent[0].cursor, { generation: 1, offset: 2 });
  second.disconnect();
  await second.connect();
  assert.deepEqual(cursors.asked, ['user:ÿalice', 'user:ÿalice'], 'once by each client');
  second.disconnect();
});

test('of cursors to keep that come faster than they are kept the last counts', async () => {
  const saved = [];
  const done = [];
  const save = (stream, { offset }) => (saved.push(offset), new Promise((resolve) => done.push(resolve)));
  const roost = client({ cursors: { load: () => null, save } });
  roost.inbox.on('message', () => {});
  await roost.connect();
  const about = { stream: 'user:ÿalice', generation: 1, kind: 'message', from: 'bob', at: '', data: 0 };
  for (const offset of [1, 2, 3]) Socket.all[0].says({ type: 'message', ...about, offset, id: `m${offset}` });
  await settled();
  assert.deepEqual(saved, [0]);
  done[0]();
  await settled();
  assert.deepEqual(saved, [0, 3]);
  roost.disconnect();
});

test('a place that cannot be read is a failed try, and one that cannot be kept is told', async () => {
  const reads = client({ cursors: { load: () => Promise.reject(new Error('locked')), save: () => {} } });
  await assert.rejects(reads.connect({ timeoutMs: 20 }), { code: 'not_sent', message: 'cursors.load: locked' });
  reads.disconnect();
  const save = () => {
    throw new Error('quota');
  };
  const keeps = client({ cursors: { load: () => null, save } });
  const errors = [];
  keeps.on('error', ({ message }) => errors.push(message));
  await keeps.connect();
  await settled();
  assert.deepEqual([keeps.state, errors], ['connected', ['cursors.save: quota']]);
  keeps.disconnect();
});

test('what is kept and is no cursor is told, and looked for again', async () => {
  const at = (generation, offset) => ({ generation, offset });
  for (const rubbish of ['{"generation":1,"offset":2}', '', 7, {}, [], at(NaN, 0), at(1, -1), at(1, 2.5), at('1', '2')]) {
    const kept = [rubbish, rubbish, at(1, 0)];
    const roost = client({ cursors: { load: () => kept.shift(), save: () => {} }, backoffMs: [1, 1] });
    const errors = [];
    roost.on('error', ({ message }) => errors.push(message));
    await roost.connect({ timeoutMs: 2000 });
    assert.deepEqual(errors, ['cursors.load: not a cursor', 'cursors.load: not a cursor'], JSON.stringify(rubbish));
    assert.deepEqual(Socket.all.at(-1).sent[0].cursor, at(1, 0));
    roost.disconnect();
  }
});

test('behind a save that takes for ever one cursor waits, the last', async () => {
  const saved = [];
  let done;
  const save = (stream, { offset }) => (saved.push(offset), new Promise((resolve) => (done = resolve)));
  const chained = [];
  const { then } = Promise.prototype;
  const roost = client({ cursors: { load: () => null, save } });
  roost.inbox.on('message', () => {});
  await roost.connect();
  await settled();
  const about = { stream: 'user:ÿalice', generation: 1, kind: 'message', from: 'bob', at: '', data: 0 };
  const [socket] = Socket.all;
  Promise.prototype.then = function (...how) {
    chained.push(this);
    return then.apply(this, how);
  };
  for (let offset = 1; offset <= 100; offset++) {
    socket.onmessage({ data: JSON.stringify({ type: 'message', ...about, offset, id: `m${offset}` }) });
  }
  Promise.prototype.then = then;
  assert.ok(chained.length < 10, `${chained.length} wait`);
  assert.deepEqual(saved, [0]);
  done();
  await settled();
  assert.deepEqual(saved, [0, 100]);
  roost.disconnect();
});

test('what kept nobody from connecting is not what a call that was not sent is told', async () => {
  const tokens = [TOKEN, () => Promise.reject(new Error('offline'))];
  const getToken = () => (tokens.length > 1 ? tokens.shift() : tokens[0]());
  const save = () => Promise.reject(new Error('quota'));
  const roost = client({ cursors: { load: () => null, save }, getToken, backoffMs: [20_000, 20_000] });
  const errors = [];
  roost.on('error', ({ message }) => errors.push(message));
  await roost.connect();
  const [socket] = Socket.all;
  answer = async () => Response.json({ error: { code: 'unavailable', message: 'no home' } }, { status: 503 });
  socket.says({ type: 'token_expiring', in_ms: 60_000 });
  await settled();
  assert.deepEqual(errors, ['cursors.save: quota', 'getToken: offline']);
  socket.says({ type: 'moved', url: 'ws://next/socket', epoch: 2, after_ms: 60_000 });
  await settled();
  const refused = await roost.send('bob', 1, { timeoutMs: 20 }).catch((error) => error);
  assert.deepEqual([refused.code, refused.message], ['not_sent', 'no try yet']);
  roost.disconnect();
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
