// The JavaScript SDK in a real browser: the bundle, in a page of another origin than the cluster's.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { URL_, cluster, numbers, roost, token, until } from '../../client-sdk/js/test/integration/cluster.js';
import { OUT, freeze, hide, scene } from './browser.js';

const BUNDLE = await readFile(new URL('../../client-sdk/js/dist/roost.js', import.meta.url));
/** One user's page. It says numbers to another user, and to the room, and notes what it gets. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>The SDK</title>
<script type="module">
  import { Roost } from '/roost.js';
  const { url, token, backoffMs = 250 } = Object.fromEntries(new URLSearchParams(location.search));
  const roost = new Roost(url, { getToken: () => token, backoffMs: [Number(backoffMs), 20_000] });
  const room = roost.room('lobby');
  const seen = { inbox: [], room: [], states: [], members: [], sent: 0, confirmed: 0, refused: [] };
  roost.on('state', ({ current }) => seen.states.push(current));
  roost.inbox.on('message', (m) => seen.inbox.push(m.data));
  room.on('message', (m) => m.from !== roost.user && seen.room.push(m.data));
  room.on('members', ({ listed }) => (seen.members = listed.map(({ user }) => user)));
  room.on('member', ({ user, change }) => seen.members.push(change + ' ' + user));
  let talking;
  const talk = (to) => {
    talking = setInterval(() => {
      const n = seen.sent++;
      Promise.all([roost.send(to, n), room.publish(n)]).then(
        () => seen.confirmed++,
        (error) => seen.refused.push(String(error)),
      );
    }, 60); // Two commands each, below the 50 per second that a session may sustain.
  };
  const quiet = () => clearInterval(talking);
  await roost.connect();
  await room.join({ presence: true });
  Object.assign(window, { roost, seen, talk, quiet });
</script>`;

let dev, server, origin;
before(
  async () => {
    // Of the members of a cluster that begins with no data, a leave is told after the grace.
    dev = await cluster({ PRESENCE_LINGER_MS: '1000', PRESENCE_GRACE_MS: '3000' });
    server = createServer((request, response) => {
      const isBundle = request.url === '/roost.js';
      response.setHeader('Content-Type', isBundle ? 'text/javascript' : 'text/html');
      response.end(isBundle ? BUNDLE : request.url === '/favicon.ico' ? '' : PAGE);
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${server.address().port}`;
  },
  { timeout: 120_000 },
);
after(async () => {
  server?.close();
  await dev?.stop();
});

async function enter(page, user, more = {}) {
  await page.goto(`${origin}/?${new URLSearchParams({ url: URL_, token: token(user), ...more })}`);
  await page.waitForFunction(() => window.seen);
  return page;
}

const seen = (page) => page.evaluate(() => window.seen);
const routeOf = async (user) => (await fetch(`${URL_}/route?userId=${user}`).then((r) => r.json())).node;
const nodeOf = (page) => page.evaluate(() => window.roost.node);
/** What only `roost dev` does. */
async function ofNode(node, what) {
  const { status } = await fetch(`${URL_}/dev/nodes/${node}/${what}`, { method: 'POST' });
  assert.ok(status < 300, `${what} ${node}: ${status}`);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for so many more messages. */
async function hears(page, more) {
  const { inbox } = await seen(page);
  await until('messages', async () => (await seen(page)).inbox.length >= inbox.length + more);
}

/** Both stop talking; then each has what the other said, all of it, once and in order. */
async function nothingLostNothingDoubled(...pages) {
  for (const page of pages) await page.evaluate(() => window.quiet());
  for (const [page, other] of [pages, pages.toReversed()]) {
    await until('everything said is confirmed', async () => {
      const { sent, confirmed, refused } = await seen(page);
      assert.deepEqual(refused, []);
      return sent === confirmed;
    });
    const { sent } = await seen(page);
    assert.ok(sent > 0);
    await until('everything said is there', async () => {
      const { inbox, room } = await seen(other);
      return inbox.length >= sent && room.length >= sent;
    });
    const { inbox, room } = await seen(other);
    assert.deepEqual([inbox, room], [numbers(sent), numbers(sent)]);
  }
}

async function twoWhoTalk(one, other, [a, b]) {
  await enter(one, a);
  await enter(other, b);
  await one.evaluate((to) => window.talk(to), b);
  await other.evaluate((to) => window.talk(to), a);
  return [one, other];
}

scene('two pages talk, and see each other come and go', async ({ open }) => {
  const [ann, ben] = await twoWhoTalk(await open(), await open(), ['ann', 'ben']);
  await Promise.all([hears(ann, 20), hears(ben, 20)]);
  await until('ann sees ben', async () => (await seen(ann)).members.includes('join ben'));
  await nothingLostNothingDoubled(ann, ben);
  await ben.evaluate(() => window.roost.disconnect());
  await until('ann sees that ben left', async () => (await seen(ann)).members.includes('leave ben'));
});

scene('a page goes on after it was offline, while its home moved', async ({ open }) => {
  const [cat, dan] = await twoWhoTalk(await open(), await open(), ['cat', 'dan']);
  const home = await nodeOf(dan);
  await dan.context().setOffline(true);
  const drained = roost('drain', home);
  await until('the home is another', async () => (await routeOf('dan')) !== home);
  await dan.context().setOffline(false);
  await until('dan moved', async () => (await nodeOf(dan)) !== home);
  await nothingLostNothingDoubled(cat, dan);
  await drained;
  await roost('drain', home, '--undo');
});

scene('a page that is opened offline connects when there is a network', async ({ open }) => {
  const eve = await enter(await open(), 'eve', { backoffMs: 20_000 });
  await eve.evaluate(() => window.roost.disconnect());
  await eve.context().setOffline(true);
  await eve.evaluate(() => void window.roost.connect());
  await pause(1500);
  assert.equal(await eve.evaluate(() => window.roost.state), 'connecting');
  const back = Date.now();
  await eve.context().setOffline(false);
  await eve.waitForFunction(() => window.roost.state === 'connected');
  assert.ok(Date.now() - back < 5000, 'at once, whatever the wait for the next try was');
});

scene('a hidden page, and a frozen one, miss nothing', async ({ open, openTab }) => {
  const [fay, gus] = await twoWhoTalk(await openTab(), await open(), ['fay', 'gus']);
  await hide(fay);
  await hears(fay, 20);
  const thaw = await freeze(fay);
  const { confirmed } = await seen(gus);
  await until('gus talks on', async () => (await seen(gus)).confirmed > confirmed + 50);
  await thaw();
  await fay.bringToFront();
  await nothingLostNothingDoubled(fay, gus);
});

scene('a planned move is not seen by the page', async ({ open }) => {
  const [hal, ivy] = await twoWhoTalk(await open(), await open(), ['hal', 'ivy']);
  const home = await nodeOf(ivy);
  await roost('drain', home);
  await until('ivy moved', async () => (await nodeOf(ivy)) !== home);
  await nothingLostNothingDoubled(hal, ivy);
  assert.deepEqual((await seen(ivy)).states, ['connecting', 'connected']);
  await roost('drain', home, '--undo');
});

scene('a page whose home is killed misses nothing', async ({ open }) => {
  const [jim, kay] = await twoWhoTalk(await open(), await open(), ['jim', 'kay']);
  const home = await nodeOf(kay);
  await hears(kay, 10);
  await ofNode(home, 'kill');
  await until('kay is at home elsewhere', async () => ![home, ''].includes(await nodeOf(kay)));
  await hears(kay, 10);
  await nothingLostNothingDoubled(jim, kay);
  await ofNode(home, 'restart');
});

scene('the page of the README works as printed', async ({ open }) => {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const [, page] = /```html\n(.+?)```/s.exec(readme);
  const chat = join(OUT, 'readme.html');
  await writeFile(chat, page.replaceAll('http://127.0.0.1:7300', URL_));
  const [kim, leo] = [await open(), await open()];
  for (const [window, user] of [
    [kim, 'kim'],
    [leo, 'leo'],
  ]) {
    window.once('dialog', (dialog) => dialog.accept(token(user)));
    await window.goto(`file://${chat}`);
  }
  // What is said before kim has joined is not for kim.
  await until('kim reads it', async () => {
    await leo.locator('#text').fill(`it is ${Date.now()}`);
    await leo.locator('#text').press('Enter');
    await leo.waitForTimeout(200);
    return (await kim.locator('#list').textContent()).includes('leo: it is');
  });
});
