// A `roost dev` cluster of its own, and clients of it. ROOST_BIN is the program, ROOST_TEST_JS_PORT the first of its
// ports (coordinator, three nodes; the admin ports are 100 above).
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { WebSocket } from 'ws';
import { Roost } from '../../src/index.js';

const BIN = process.env.ROOST_BIN ?? new URL('../../../../target/debug/roost', import.meta.url).pathname;
const PORT = Number(process.env.ROOST_TEST_JS_PORT ?? 17_800);
const SECRET = 'a secret of the tests of the SDK, long enough';
const PATIENCE_MS = 60_000;
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
  let running = await start(dir, env);
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

async function start(dir, env) {
  const options = {
    env: { ...process.env, JWT_SECRET: SECRET, ROOST_DATA_DIR: dir, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  };
  const child = spawn(BIN, ['dev', '--port', String(PORT)], options);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said = (said + text).slice(-4000)));
  let ended = false;
  const end = new Promise((resolve) => {
    child.on('error', (error) => (said += error.message));
    child.on('close', () => resolve((ended = true)));
  });
  await until('every vnode has a home', async () => {
    assert.ok(!ended, `${BIN} ended: ${said}`);
    // An error until it has read the table.
    const { rows = [] } = await fetch(`${URL_}/ring`).then(
      (r) => r.json(),
      () => ({}),
    );
    return rows.length === 1024 && rows.every(([, , , ready]) => ready);
  });
  return {
    end(signal) {
      child.kill(signal);
      return end;
    },
  };
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
