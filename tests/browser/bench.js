// How smooth the console is while 5,000 users are connected and 1,024 vnodes have homes: the times between frames, beside
// those of an empty page in the same browser. `scripts/bench console` runs it.
import { clients, cluster, numbers } from '../../client-sdk/js/test/integration/cluster.js';
import { launch } from './chromium.js';
import { enter, homeOf, node, press, sees } from './console.js';

const SESSIONS = 5_000;
/** Clients connected at the same moment. */
const OPENING = 100;
/** Of them in the room that the console shows: each points ten times a second, and speaks every four. */
const IN_ROOM = 30;
const POINT_EVERY_MS = 100;
const SPEAK_EVERY_MS = 4_000;
const MEASURE_MS = 15_000;

const ends = [];
const end = async () => {
  for (const end of ends.splice(0).reverse()) await end();
};

try {
  const dev = await cluster({ HANDSHAKES_PER_S: '0', REQUESTS_PER_S: '0' });
  ends.push(() => dev.stop());
  const users = clients({ after: (end) => ends.push(end) }, ...numbers(SESSIONS).map((n) => `user-${n}`));
  for (let n = 0; n < SESSIONS; n += OPENING) {
    await Promise.all(users.slice(n, n + OPENING).map(({ roost }) => roost.connect({ timeoutMs: 60_000 })));
  }
  const browser = await launch();
  ends.push(() => browser.close());
  console.log(`${SESSIONS} sessions, 1,024 vnodes, Chromium ${browser.version()}`);
  const page = await (await browser.newContext()).newPage();
  await page.goto('about:blank');
  report('an empty page', await frames(page));
  await enter(page, 'somebody');
  report('the console, nobody else in the room', await frames(page));
  await Promise.all(users.slice(0, IN_ROOM).map(({ roost }, n) => lives(roost.room('lobby'), n)));
  report(`${IN_ROOM} in the room, pointing and talking`, await frames(page));
  const measured = frames(page);
  await press(page, 'node-kill', node(page, await homeOf(page)));
  report('the same, while its home is killed', await measured);
  await sees(page, '[data-testid=event-log] [data-event=recovered]');
} finally {
  await end();
}

/** Has a member point and speak. */
async function lives(room, n) {
  await room.join({ presence: true });
  const every = (ms, act) => {
    const timer = setInterval(act, ms);
    ends.push(() => clearInterval(timer));
  };
  every(POINT_EVERY_MS, () => {
    const turn = Date.now() / 1000 + n;
    room.signal('cursor', { x: 0.5 + 0.4 * Math.sin(turn), y: 0.5 + 0.4 * Math.cos(1.3 * turn) });
  });
  every(SPEAK_EVERY_MS, () => room.publish({ text: `I am number ${n}` }).catch(() => {}));
}

/** The times between frames, in ms, and of the tasks that took more than 50 ms (Long Tasks API). */
function frames(page) {
  return page.evaluate(
    (ms) =>
      new Promise((resolve) => {
        const [between, long] = [[], []];
        const tasks = new PerformanceObserver((list) =>
          long.push(...list.getEntries().map(({ duration }) => duration)),
        );
        tasks.observe({ type: 'longtask' });
        const start = performance.now();
        let last = start;
        const frame = (now) => {
          between.push(now - last);
          last = now;
          if (now - start < ms) return requestAnimationFrame(frame);
          tasks.disconnect();
          resolve({ between: between.slice(1), long });
        };
        requestAnimationFrame(frame);
      }),
    MEASURE_MS,
  );
}

function report(what, { between, long }) {
  between.sort((a, b) => a - b);
  const at = (q) => between[Math.floor((between.length - 1) * q)].toFixed(1);
  const total = long.reduce((sum, ms) => sum + ms, 0);
  console.log(
    `${what.padEnd(40)} frames p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms; ` +
      `${long.length} tasks above 50 ms, ${total.toFixed(0)} ms in all`,
  );
}
