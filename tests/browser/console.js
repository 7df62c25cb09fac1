// The console as a test uses it: who signs in, what they say, what is listed. Controls have the names that
// console/README.md gives.
import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { URL_, until } from '../../client-sdk/js/test/integration/cluster.js';

/** Slow enough for a person to read along, fast enough that a failover meets messages in every state. */
const SAY_EVERY_MS = 120;
const ACT_EVERY_MS = 1_000;

/** Opens the console as `user`, and marks the page: a reload would remove the mark. */
export async function enter(page, user, more = {}) {
  await page.goto(`${URL_}/console?${new URLSearchParams({ user, ...more })}`);
  await sees(page, '[data-testid=connection-state][data-state=connected]');
  await page.evaluate(() => (window.mark = true));
  return page;
}

/** Waits until `page` shows an element that fits. */
export const sees = (page, css) => page.locator(css).first().waitFor();
export const seesNot = (page, css) => page.locator(css).first().waitFor({ state: 'detached' });
/**
 * Does `act` until `page` shows what is gone again after a moment: on a busy machine one may pass unseen, or get lost, as
 * signals do.
 */
export async function seesOf(page, selector, act) {
  const seen = sees(page, selector).then(() => true);
  // If the act fails, that is the error.
  seen.catch(() => {});
  do await act();
  while (!(await Promise.race([seen, setTimeout(ACT_EVERY_MS)])));
}
export const isMarked = (page) => page.evaluate(() => window.mark === true);
/** Empty without a connection. */
export const homeOf = (page) => page.getByTestId('home-node').getAttribute('data-node');
/** How often the log of a page has an event. */
export const told = (page, event) => page.locator(`[data-testid=event-log] [data-event=${event}]`).count();

/** Where `node` is shown, of the nodes. */
export const node = (page, name) => page.locator(`[data-testid=nodes] [data-node="${name}"]`);

const turns = new WeakMap();

/** A person does one thing after the other: `count` goes on between, not during what else is done on the page. */
function turn(page, act) {
  const done = (turns.get(page) ?? Promise.resolve()).then(act);
  turns.set(
    page,
    done.catch(() => {}),
  );
  return done;
}

export function say(page, text) {
  return turn(page, async () => {
    await page.getByTestId('message-input').fill(text);
    await page.getByTestId('message-input').press('Enter');
  });
}

/** Presses a button, of the page or of what is shown of a node. */
export const press = (page, testid, within = page) => turn(page, () => within.getByTestId(testid).click());

/** Has `user` count aloud in the room, until what this returns is called; that gives what was said. */
export function count(page, user) {
  let isCounting = true;
  const counting = (async () => {
    const said = [];
    while (isCounting) {
      said.push(`${user} ${said.length}`);
      await say(page, said.at(-1));
      await page.waitForTimeout(SAY_EVERY_MS);
    }
    return said;
  })();
  // Whoever stops it hears of the error.
  counting.catch(() => {});
  return () => {
    isCounting = false;
    return counting;
  };
}

/** What a list of messages shows. */
export const messages = (page, list = 'messages') =>
  page.getByTestId(list).evaluate(({ children }) =>
    [...children].map((item) => {
      const { id, from, status } = item.dataset;
      return { id, from, status, text: item.querySelector('.text').textContent };
    }),
  );

/** Waits until so many more messages of `user` are there. */
export async function hears(page, user, more) {
  const heard = async () => (await messages(page)).filter(({ from }) => from === user).length;
  const before = await heard();
  await until(`${more} messages of ${user}`, async () => (await heard()) >= before + more);
}

/**
 * Every window shows the same messages in the same order, and of each user exactly what was said, in that order, all of
 * it acknowledged.
 */
export async function allIsThere(pages, saidBy) {
  const total = Object.values(saidBy).flat().length;
  const isSettled = ({ status }) => status === 'acknowledged' || status === 'received';
  for (const page of pages) {
    await until('all messages', async () => {
      const all = await messages(page);
      return all.length >= total && all.every(isSettled);
    }).catch(() => {}); // What is missing is said below.
  }
  const [first, ...others] = await Promise.all(pages.map((page) => messages(page)));
  for (const [user, said] of Object.entries(saidBy)) {
    const by = first.filter(({ from }) => from === user);
    assert.deepEqual([by.map(({ text }) => text), by.filter((message) => !isSettled(message))], [said, []]);
  }
  const ids = (list) => list.map(({ from, id }) => `${from} ${id}`);
  for (const other of others) assert.deepEqual(ids(other), ids(first));
}
