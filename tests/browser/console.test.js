// The console, as people use it: in windows of their own, against a cluster of `roost dev`.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before } from 'node:test';
import { URL_, cluster, service, until } from '../../client-sdk/js/test/integration/cluster.js';
import { freeze, hide, scene, shot } from './browser.js';
import {
  allIsThere,
  count,
  enter,
  hears,
  homeOf,
  isMarked,
  messages,
  node,
  press,
  say,
  sees,
  seesNot,
  seesOf,
  told,
} from './console.js';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const NARROW = { width: 400, height: 800 };
/** For what is kept to be shown. */
const WIDE = { width: 1360, height: 900 };
const TABS_MAX = 80;

let dev;
before(
  async () => {
    // Long enough to come back after a failover on a busy machine; short enough to wait for.
    dev = await cluster({ PRESENCE_LINGER_MS: '1000', PRESENCE_GRACE_MS: '5000' });
  },
  { timeout: 120_000 },
);
after(() => dev?.stop());

scene('two people talk, point, and see each other come and go', async ({ open }) => {
  const ann = await enter(await open({ colorScheme: 'dark', viewport: WIDE }), 'ann', { room: 'plaza', watch: 'ben' });
  await sees(ann, '[data-testid=presence-list] [data-user=ben][data-status=offline]');
  const ben = await enter(await open(), 'ben', { room: 'plaza', watch: 'ann' });
  await sees(ann, '[data-testid=presence-list] [data-user=ben][data-status=online]');
  await sees(ann, '[data-testid=members] [data-user=ben]');
  await sees(ben, '[data-testid=members] [data-user=ann]');
  assert.equal(await ben.getByTestId('member-count').textContent(), '2');

  const talk = {
    ann: ['Guten Morgen, ben!', 'Which node are you on?'],
    ben: ['Morning. No idea,', 'it does not matter.'],
  };
  for (const text of talk.ann) await say(ann, text);
  for (const text of talk.ben) await say(ben, text);
  await allIsThere([ann, ben], talk);
  await seesOf(ann, 'text=ben is typing', () => ben.getByTestId('message-input').pressSequentially('so'));

  await points(ben, 0.25, 0.5);
  const cursor = ann.locator('[data-testid=cursor][data-user=ben]');
  await cursor.waitFor();
  const from = await cursor.boundingBox();
  await points(ben, 0.75, 0.5);
  const area = await ann.getByTestId('cursor-area').boundingBox();
  await ann.waitForFunction(
    (x) => document.querySelector('[data-testid=cursor]').getBoundingClientRect().x > x,
    from.x + area.width * 0.45,
  );
  await seesOf(ann, '[data-testid=reaction][data-user=ben][data-reaction=heart] svg', () =>
    ben.locator('[data-reaction=heart]').click(),
  );
  await points(ben, 0.6, 0.4);
  await cursor.waitFor();
  await shot(ann, 'console-talk');

  await ben.getByTestId('status-select').selectOption('away');
  await sees(ann, '[data-testid=presence-list] [data-user=ben][data-status=away]');
  await ben.context().close();
  await sees(ann, '[data-testid=presence-list] [data-user=ben][data-status=offline]');
  await seesNot(ann, '[data-testid=members] [data-user=ben]');
});

scene('a private message is received and read, and kept for who is not there', async ({ open }) => {
  const cat = await enter(await open(), 'cat');
  await writes(cat, 'dan', 'are you there?');
  await sees(cat, '[data-testid=inbox] [data-to=dan][data-status=acknowledged]');
  const dan = await enter(await open(), 'dan');
  await dan.getByTestId('inbox').getByText('are you there?').waitFor();
  await writes(dan, 'cat', 'now I am');
  await cat.getByTestId('inbox').getByText('now I am').waitFor();
  await sees(dan, '[data-testid=inbox] [data-to=cat][data-receipt=read]');
});

scene('the home is killed from the console and the conversation goes on', async ({ open }) => {
  const eve = await enter(await open({ viewport: WIDE }), 'eve', { room: 'salon', watch: 'fay' });
  const fay = await enter(await open(), 'fay', { room: 'salon', watch: 'eve' });
  const counts = [count(eve, 'eve'), count(fay, 'fay')];
  for (const [one, name] of [
    [eve, 'fay'],
    [fay, 'eve'],
  ]) {
    await hears(one, name, 5);
    const home = await homeOf(one);
    const before = await told(one, 'recovered');
    try {
      await press(one, 'node-kill', node(one, home));
      await sees(one, `[data-testid=nodes] [data-node="${home}"][data-state=killed]`);
      await until('it recovered', async () => (await told(one, 'recovered')) > before);
      await until('another home', async () => !['', home].includes(await homeOf(one)));
      await hears(one, name, 5);
      await shot(one, `console-failover-${name}`);
      await press(one, 'node-restart', node(one, home));
      await sees(one, `[data-testid=nodes] [data-node="${home}"][data-state=up]`);
    } catch (error) {
      // The scenes after this one need it. It may run, which is no error here.
      await fetch(`${URL_}/dev/nodes/${home}/restart`, { method: 'POST' }).catch(() => {});
      throw error;
    }
  }
  const [bySelf, byOther] = await Promise.all(counts.map((stop) => stop()));
  await allIsThere([eve, fay], { eve: bySelf, fay: byOther });
  await isKept('salon', await messages(eve));
  assert.deepEqual(await Promise.all([eve, fay].map(isMarked)), [true, true]);
  for (const [page, other] of [
    [eve, 'fay'],
    [fay, 'eve'],
  ]) {
    await sees(page, `[data-testid=presence-list] [data-user=${other}][data-status=online]`);
    assert.equal(await page.locator('[data-event=gap], [data-event=failed]').count(), 0);
  }
  assert.ok(await isAtEnd(eve), 'the newest message is in sight');
});

scene('a node is drained and nobody notices, and one is added', async ({ open }) => {
  const gus = await enter(await open(), 'gus', { room: 'den' });
  const hal = await enter(await open(), 'hal', { room: 'den' });
  const counts = [count(gus, 'gus'), count(hal, 'hal')];
  await hears(gus, 'hal', 3);
  const home = await homeOf(gus);
  await press(gus, 'node-drain', node(gus, home));
  await sees(gus, '[data-testid=event-log] [data-event=moved]');
  await sees(gus, `[data-testid=nodes] [data-node="${home}"][data-state=draining]`);
  await press(gus, 'node-undrain', node(gus, home));
  await sees(gus, `[data-testid=nodes] [data-node="${home}"][data-state=up]`);
  await press(gus, 'node-add');
  await gus.waitForFunction(() => document.querySelectorAll('[data-testid=nodes] > [data-state=up]').length === 4);
  await hears(gus, 'hal', 3);
  const [bySelf, byOther] = await Promise.all(counts.map((stop) => stop()));
  await allIsThere([gus, hal], { gus: bySelf, hal: byOther });
  assert.equal(await gus.locator('[data-event=reconnecting], [data-event=gap], [data-event=failed]').count(), 0);
  assert.equal(await gus.getByTestId('ring').getAttribute('data-vnodes'), '1024');
});

scene('a window that was offline has everything, and what it said', async ({ open }) => {
  const ida = await enter(await open(), 'ida', { room: 'patio' });
  const jon = await enter(await open(), 'jon', { room: 'patio' });
  const stop = count(jon, 'jon');
  await hears(ida, 'jon', 3);
  await ida.context().setOffline(true);
  await say(ida, 'said offline');
  await hears(jon, 'jon', 10);
  assert.equal((await messages(jon)).filter(({ from }) => from === 'ida').length, 0);
  await ida.context().setOffline(false);
  await jon.getByText('said offline').waitFor();
  await allIsThere([ida, jon], { ida: ['said offline'], jon: await stop() });
  assert.ok(await isMarked(ida));
});

scene('a hidden window, and a frozen one, have everything', async ({ open, openTab }) => {
  const kim = await enter(await openTab(), 'kim', { room: 'attic' });
  const leo = await enter(await open(), 'leo', { room: 'attic' });
  const stop = count(leo, 'leo');
  await hide(kim);
  await hears(kim, 'leo', 5);
  const thaw = await freeze(kim);
  await hears(leo, 'leo', 10);
  await thaw();
  await kim.bringToFront();
  await hears(kim, 'leo', 1);
  await allIsThere([kim, leo], { leo: await stop() });
  assert.ok(await isMarked(kim));
});

scene('what happened to a message and a user is explained, and a token is made', async ({ open }) => {
  const mia = await enter(await open(), 'mia', { room: 'desk' });
  await say(mia, 'where is this?');
  await sees(mia, '[data-testid=messages] [data-status=acknowledged]');
  await mia.getByTestId('message-inspect').first().click();
  await mia.getByTestId('inspect-output').getByText(/\S/).first().waitFor();
  await mia.getByTestId('inspect-input').fill('mia');
  await mia.getByTestId('inspect-to').fill('');
  await mia.getByTestId('inspect-run').click();
  await mia
    .getByTestId('inspect-output')
    .getByText(new RegExp(`${await homeOf(mia)}: vnode \\d+`))
    .waitFor();
  await mia.getByTestId('token-user').fill('nat');
  await mia.getByTestId('token-make').click();
  await mia.waitForFunction(() => document.querySelector('[data-testid=token-output]').value);
  const [, claims] = (await mia.getByTestId('token-output').inputValue()).split('.');
  assert.equal(JSON.parse(Buffer.from(claims, 'base64url')).sub, 'nat');
});

scene('by keyboard alone: sign in, speak, move the cursor', async ({ open }) => {
  const page = await enter(await open(), 'nobody', { room: 'porch' });
  const other = await enter(await open(), 'olga', { room: 'porch' });
  await tabTo(page, 'signin-user');
  await page.keyboard.press('ControlOrMeta+A');
  await page.keyboard.type('pia');
  await page.keyboard.press('Enter');
  await sees(page, '[data-testid=connection-state][data-state=connected]');
  await sees(other, '[data-testid=members] [data-user=pia]');
  await tabTo(page, 'message-input');
  await page.keyboard.type('no mouse');
  await page.keyboard.press('Enter');
  await other.getByTestId('messages').getByText('no mouse').waitFor();
  await tabTo(page, 'cursor-area');
  await page.keyboard.press('ArrowRight');
  await sees(other, '[data-testid=cursor][data-user=pia]');
  await tabTo(page, 'node-drain');
  assert.equal(await page.evaluate(() => document.activeElement.matches(':focus-visible')), true);
  const first = node(page, await page.evaluate(() => document.activeElement.closest('[data-node]').dataset.node));
  await page.keyboard.press('Enter');
  await first.getByTestId('node-undrain').waitFor();
  await until('the focus is where it was', async () => (await focusOf(page)) === 'node-undrain');
  // Who writes when the answer comes goes on writing.
  await page.route('**/drain', async (route) => {
    await page.getByTestId('message-input').focus();
    await route.continue();
  });
  await page.keyboard.press('Enter');
  await first.getByTestId('node-drain').waitFor();
  assert.equal(await focusOf(page), 'message-input');
});

scene('dark, light and narrow: nothing is cut off, and axe finds nothing serious', async ({ open }) => {
  const system = await enter(await open({ colorScheme: 'light' }), 'quinn', { room: 'hall', watch: 'ann,rosa' });
  assert.equal(await themeOf(system), 'light');
  const page = await enter(await open({ colorScheme: 'dark' }), 'rosa', { room: 'hall', watch: 'ann,quinn' });
  assert.equal(await themeOf(page), 'dark');
  const texts = ['<img src=x onerror=alert(1)> is text', 'a longer one, '.repeat(20).trim(), 'x'.repeat(300)];
  for (const text of texts) await say(page, text);
  await allIsThere([page, system], { rosa: texts });
  await writes(page, 'rosa', 'a note to myself');
  await page.getByTestId('inspect-input').fill('rosa');
  await page.getByTestId('inspect-run').click();
  await page.getByTestId('inspect-output').getByText(/\S/).first().waitFor();
  await sees(page, '[data-testid=inbox] [data-status=acknowledged]');
  await fits(page, 'console-wide-dark');
  await page.getByTestId('theme-toggle').click();
  assert.equal(await themeOf(page), 'light');
  await fits(page, 'console-wide-light');
  await page.setViewportSize(NARROW);
  await fits(page, 'console-narrow-light');
  await page.getByTestId('theme-toggle').click();
  await fits(page, 'console-narrow-dark');
  await say(page, 'from a small screen');
  await system.getByTestId('messages').getByText('from a small screen').waitFor();
  await page.reload();
  assert.equal(await themeOf(page), 'dark');
});

async function writes(page, to, text) {
  await page.getByTestId('dm-to').fill(to);
  await page.getByTestId('dm-input').fill(text);
  await page.getByTestId('dm-send').click();
}

async function points(page, x, y) {
  const area = page.getByTestId('cursor-area');
  await area.scrollIntoViewIfNeeded();
  const box = await area.boundingBox();
  await page.mouse.move(box.x + box.width * x, box.y + box.height * y, { steps: 5 });
}

const focusOf = (page) => page.evaluate(() => document.activeElement?.dataset.testid);

async function tabTo(page, testid) {
  for (let n = 0; n < TABS_MAX; n++) {
    await page.keyboard.press('Tab');
    if ((await focusOf(page)) === testid) return;
  }
  assert.fail(`${testid} is not reached by Tab`);
}

/** Whether the newest message is in sight, of a list that is longer than its place. */
const isAtEnd = (page) =>
  page.getByTestId('messages').evaluate((list) => {
    const place = list.closest('[role=log]').getBoundingClientRect();
    const newest = list.lastElementChild.getBoundingClientRect();
    return list.offsetHeight > place.height && newest.bottom < place.bottom + 1;
  });

const themeOf = (page) => page.evaluate(() => document.documentElement.dataset.theme);

/** What a window shows is what the archive and the hot window have, once and in this order. */
async function isKept(room, shown) {
  const kept = [];
  for (let before; ;) {
    const { ok } = await service('/api/history', { stream: `room:${room}`, limit: 100, before });
    kept.unshift(...ok.messages.toReversed());
    if (!ok.before) break;
    before = ok.before;
  }
  assert.deepEqual(
    shown.map(({ id }) => id),
    kept.map(({ id }) => id),
  );
}

/** The page is no wider than its window, and axe has nothing serious to say. */
async function fits(page, name) {
  await shot(page, name, { fullPage: true });
  const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= has, `${name} is ${wide} px wide, in a window of ${has}`);
  // Evaluated, not added to the page: its Content-Security-Policy would refuse that.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run());
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  assert.deepEqual(
    serious.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)]),
    [],
  );
}
