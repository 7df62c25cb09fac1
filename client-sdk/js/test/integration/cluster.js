// A `roost dev` cluster of its own, and clients of it. ROOST_BIN is the program, ROOST_TEST_JS_PORT the first of its
// ports (coordinator, three nodes; the admin ports are 100 above).
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { WebSocket } from 'ws';
import { Roost } from '../../src/index.js';

const BIN = process.env.ROOST_BIN ?? new URL('../../../../target/debug/roost', import.meta.url).pathname;
const PORT = Number(process.env.ROOST_TEST_JS_PORT ?? 17_800);
const SECRET = 'a secret of the tests of the SDK, long enough';
const PATIENCE_MS = 60_000;
/** A cluster that was asked to end and has not by then is killed. */
const END_MS_MAX = 15_000;
/** One that is stuck does not answer at all. */
const ANSWER_MS_MAX = 5_000;
export const URL_ = `http://127.0.0.1:${PORT}`;

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A JWT (HS256) of `user` that lives for so many seconds. */
export function token(user, lives = 600, claims = {}) {
  const exp = Math.floor(Date.now() / 1000) + lives;
  const text = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64({ sub: user, exp, ...claims })}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

/** Starts a cluster and waits until every vnode has a home. */
export async function cluster(env = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'roost-js-'));
  let running = await start(dir, env).catch(async (error) => {
    await rm(dir, { recursive: true });
    throw error;
  });
  return {
    /** Ends as in a crash, and is there again with what it had kept. */
    async crash() {
      await running.end('SIGKILL');
      running = await start(dir, env);
    },
    async stop() {
      await running.end('SIGTERM');
      await rm(dir, { recursive: true });
    },
  };
}

/** Programs that run: none outlives the tests, however these end. */
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
// By itself a signal ends Node without `exit`.
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
]) {
  process.once(signal, () => process.exit(code));
}

async function start(dir, env) {
  // Otherwise the tests would run against whatever is there, an earlier run's cluster perhaps.
  assert.ok(!(await isTaken(PORT)), `something listens on port ${PORT} already: end it, or set ROOST_TEST_JS_PORT`);
  const options = {
    env: { ...process.env, JWT_SECRET: SECRET, ROOST_DATA_DIR: dir, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  };
  const child = spawn(BIN, ['dev', '--port', String(PORT)], options);
  children.add(child);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said = (said + text).slice(-4000)));
  let hasEnded = false;
  const ended = new Promise((resolve) => {
    child.on('error', (error) => (said += error.message));
    child.on('close', () => {
      hasEnded = true;
      children.delete(child);
      resolve();
    });
  });
  const end = async (signal) => {
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), END_MS_MAX);
    await ended;
    clearTimeout(timer);
  };
  try {
    await until('every vnode has a home', async () => {
      // An error until it has read the table.
      const { rows = [] } = await fetch(`${URL_}/ring`, { signal: AbortSignal.timeout(ANSWER_MS_MAX) })
        .then((r) => r.json())
        .catch(() => ({}));
      // After the answer: it may be another program's.
      assert.ok(!hasEnded, `${BIN} ended: ${said}`);
      return rows.length === 1024 && rows.every(([, , , ready]) => ready);
    });
  } catch (error) {
    // Nobody else knows of it, and the test's process would wait for it.
    await end('SIGKILL');
    throw error;
  }
  return { end };
}

function isTaken(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => resolve(false));
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}

/** Runs the program with a token of a service. */
export async function roost(...args) {
  const env = { ...process.env, ROOST_URL: URL_, JWT_SECRET: SECRET };
  return (await promisify(execFile)(BIN, args, { env })).stdout;
}

/** A node by its name. */
export const urlOf = (node) => `http://127.0.0.1:${PORT + Number(node.slice('ws-'.length))}`;

/** Asks the server API, of the coordinator or of a node. */
export async function service(path, body, at = URL_) {
  const headers = {
    Authorization: `Bearer ${token('app', 600, { role: 'service' })}`,
    'Content-Type': 'application/json',
  };
  const method = body ? 'POST' : 'GET';
  const answer = await fetch(`${at}${path}`, { method, headers, body: JSON.stringify(body) });
  return answer.json();
}

export async function until(what, holds) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `waited for this in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export const numbers = (n, from = 0) => Array.from({ length: n }, (_, i) => from + i);

/** Clients that are ended with the test: of a user each, or of one with options. */
export function clients(t, ...users) {
  const made = users.map((user) => (typeof user === 'string' ? client(user) : client(...user)));
  t.after(() => made.forEach((c) => c.roost.disconnect()));
  return made;
}

/** A client of `user`, with what its inbox got, and ways to disturb its sockets. */
function client(user, { Client = Roost, ...options } = {}) {
  const sockets = new Set();
  // What came while nothing was heard.
  const unheard = [];
  let isDeaf = false;
  class Socket extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets.add(this);
      this.on('close', () => sockets.delete(this));
    }

    emit(event, ...args) {
      if (event !== 'message' || !isDeaf) return super.emit(event, ...args);
      return unheard.push(JSON.parse(args[0])) > 0;
    }
  }
  const roost = new Client(URL_, { getToken: () => token(user), WebSocket: Socket, ...options });
  const got = [];
  roost.inbox.on('message', (m) => got.push(m.data));
  const states = [];
  const reasons = [];
  roost.on('state', ({ current, reason }) => (states.push(current), reasons.push(reason)));
  return {
    roost,
    got,
    states,
    reasons,
    unheard,
    cut: () => sockets.forEach((socket) => socket.terminate()),
    deafen: (deaf) => (isDeaf = deaf),
    pause: () => sockets.forEach((socket) => socket.pause()),
    resume: () => sockets.forEach((socket) => socket.resume()),
  };
}
