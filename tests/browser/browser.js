// Windows of Chromium, and what is kept of a test that failed, in ROOST_BROWSER_OUT: screenshots and logs.
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { after, test } from 'node:test';
import { chromium } from 'playwright-core';
import { launch } from './chromium.js';

export const OUT = process.env.ROOST_BROWSER_OUT ?? new URL('../../target/browser', import.meta.url).pathname;
const PATIENCE_MS = 20_000;
/** More than every wait in a test may take together: a wait that fails says more than this. */
const TEST_MS_MAX = 180_000;
/** What Chromium itself reports of a connection that failed, which is what many of these tests are about. */
const EXPECTED = /^(WebSocket connection to|Failed to load resource)/;

let launched;
after(async () => (await launched)?.close());

const slug = (name) => name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');

/** Keeps what `page` looks like. */
export async function shot(page, name, options = {}) {
  await mkdir(OUT, { recursive: true });
  await page.screenshot({ path: `${OUT}/${name}.png`, ...options });
}

/**
 * A test in windows that `open` opens: each is a person with a browser of their own (a context). It fails also if a page
 * throws, breaks its Content-Security-Policy, or asks another host than the cluster's.
 */
export function scene(name, body) {
  test(name, { timeout: TEST_MS_MAX }, async () => {
    const windows = [];
    const ends = [];
    const watched = async (context) => {
      ends.push(() => context.close());
      const page = await context.newPage();
      windows.push(watch(page));
      return page;
    };
    const open = async (options) => {
      launched ??= launch();
      return watched(await (await launched).newContext(options));
    };
    const openTab = async () => {
      const { context, end } = await tabs();
      ends.push(end);
      return watched(context);
    };
    try {
      await body({ open, openTab });
      assert.deepEqual(
        windows.flatMap(({ faults }) => faults),
        [],
      );
    } catch (error) {
      await Promise.all(windows.map((window, n) => keep(`failed-${slug(name)}-${n + 1}`, window)));
      throw error;
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });
}

function watch(page) {
  page.setDefaultTimeout(PATIENCE_MS);
  const log = [];
  const faults = [];
  const asked = (url) => {
    if (/^(data|blob|file):/.test(url)) return;
    log.push(`asks ${url}`);
    if (new URL(url).hostname !== '127.0.0.1') faults.push(`asks another host: ${url}`);
  };
  page.on('request', (request) => asked(request.url()));
  page.on('websocket', (socket) => asked(socket.url()));
  page.on('crash', () => faults.push('the page crashed'));
  page.on('pageerror', (error) => faults.push(String(error.stack ?? error)));
  page.on('console', (message) => {
    log.push(`${message.type()}: ${message.text()}`);
    if (message.type() === 'error' && !EXPECTED.test(message.text())) faults.push(message.text());
  });
  return { page, log, faults };
}

async function keep(name, { page, log, faults }) {
  await mkdir(OUT, { recursive: true });
  await writeFile(`${OUT}/${name}.log`, [...log, ...faults.map((fault) => `FAULT ${fault}`), ''].join('\n'));
  // A page that hangs has no picture, which is no reason to hide why the test failed.
  await shot(page, name, { timeout: 5000 }).catch(() => {});
}

/**
 * A Chromium whose tabs can be hidden: Playwright keeps the pages of its own contexts visible, and timers running at full
 * speed, but not those of a browser that was there before (`noDefaults`).
 */
async function tabs() {
  const port = await freePort();
  const browser = await launch({
    args: [`--remote-debugging-port=${port}`],
    ignoreDefaultArgs: ['--disable-background-timer-throttling', '--disable-renderer-backgrounding'],
  });
  const seen = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
  return { context: seen.contexts()[0], end: () => browser.close() };
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Opens another tab in front of `page`. */
export async function hide(page) {
  await (await page.context().newPage()).bringToFront();
  await page.waitForFunction(() => document.visibilityState === 'hidden', null, { polling: 100 });
}

/** Stops a hidden `page` as a browser does that saves memory, until what this returns is called. */
export async function freeze(page) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
  return () => devtools.send('Page.setWebLifecycleState', { state: 'active' });
}
