// Rooms: what is said in them, who is there, and who types.
import { $, byId, h, keyed, onSubmit, say, soon, take } from './dom.js';
import { paint } from './colour.js';
import * as cursors from './cursors.js';
import { attempt, tell } from './events.js';
import * as inspector from './inspector.js';
import { Messages } from './messages.js';
import { watch } from './presence.js';

const HISTORY = 50;
/** A page that was opened before its cluster waits for it. */
const JOIN_WITHIN_MS = 3_600_000;
const MEMBERS_SHOWN = 100;
/** `typing` is told so often, and believed a little longer. */
const TYPING_EVERY_MS = 2_000;
const TYPING_LASTS_MS = 3_000;

const said = byId('said');
const tabs = $('rooms');
/** By name, in the order of joining. @type {Map<string, RoomView>} */
const views = new Map();
let roost;
let me = '';
/** @type {RoomView | undefined} */
let shown;
let toldTyping = -Infinity;
let onShown = () => {};
/** A thousand may come at once. */
const changed = soon(render);

/** One room that was joined. */
class RoomView {
  unread = 0;
  count = 0;
  /** @type {Map<string, any> | null} too many to be listed */
  members = new Map();
  typing = new Map();

  constructor(room) {
    this.room = room;
    this.name = room.name;
    this.messages = new Messages({
      me,
      testid: 'messages',
      label: `Messages of ${room.name}`,
      order: ({ generation, offset }) => (generation ? [generation, offset] : [Infinity]),
      inspect: (message) => inspector.explain(message.id, '', message),
    });
    this.ends = [
      room.on('message', (message) => this.#message(message)),
      room.on('gap', () => this.#gap()),
      room.on('members', ({ listed, count }) => this.#members(listed, count)),
      room.on('member', (change) => this.#member(change)),
      room.on('signal', (signal) => this.#signal(signal)),
      room.on('lost', (error) => tell('error', `${this.name}: ${error.message}`)),
    ];
  }

  async history() {
    const { messages } = await this.room.history({ limit: HISTORY });
    for (const message of messages.reverse()) this.messages.receive(message);
  }

  #message(message) {
    this.messages.receive(message);
    this.typing.delete(message.from);
    if (this !== shown) this.unread++;
    changed();
  }

  #gap() {
    tell('gap', `${this.name}: what was missed has left the hot window; the newest is read from the history`);
    attempt(`the history of ${this.name}`, () => this.history());
  }

  #members(listed, count) {
    this.members = listed && new Map(listed.map(({ user, info }) => [user, info]));
    this.count = count;
    changed();
  }

  #member({ user, change, info }) {
    if (change === 'join') this.members?.set(user, info);
    else {
      this.members?.delete(user);
      if (this === shown) cursors.gone(user);
    }
    if (this.members) this.count = this.members.size;
    changed();
  }

  #signal({ from, kind, data }) {
    if (kind === 'typing') {
      this.typing.set(from, performance.now() + TYPING_LASTS_MS);
      setTimeout(changed, TYPING_LASTS_MS + 50);
      changed();
    } else if (this === shown) cursors.signal(from, kind, data);
  }
}

/**
 * @param {any} client of the SDK
 * @param {string} user who is signed in
 * @param {(room: string) => void} told which room is shown
 */
export function start(client, user, told) {
  roost = client;
  me = user;
  onShown = told;
  onSubmit(byId('join'), () => join(take($('room-input'))));
  onSubmit(byId('say'), publish);
  $('room-leave').onclick = leave;
  $('message-input').addEventListener('input', tellTyping);
  tabs.addEventListener('keydown', turn);
}

/** Comes into a room, and shows it. */
export async function join(name) {
  const known = views.get(name);
  if (known) return show(known);
  await attempt(`joining ${name}`, async () => {
    const view = new RoomView(roost.room(name));
    views.set(name, view);
    show(view);
    try {
      await view.room.join({ presence: true, timeoutMs: JOIN_WITHIN_MS });
    } catch (error) {
      forget(view);
      throw error;
    }
    await view.history();
  });
}

async function leave() {
  const { room, name } = forget(shown);
  await attempt(`leaving ${name}`, () => room.leave());
}

function forget(view) {
  views.delete(view.name);
  for (const end of view.ends) end();
  if (view === shown) show([...views.values()].at(-1));
  return view;
}

function show(view) {
  shown = view;
  if (view) view.unread = 0;
  said.replaceChildren(...(view ? [view.messages.element] : []));
  cursors.use(view?.room);
  onShown(view?.name ?? '');
  render();
}

function publish() {
  if (!shown) return;
  const text = take($('message-input'));
  if (!text) return;
  const { messages, room } = shown;
  toldTyping = -Infinity;
  messages.send({ stream: `room:${room.name}`, data: { text } }, (id) => room.publish({ text }, { id }));
}

function tellTyping() {
  const now = performance.now();
  if (!shown || now - toldTyping < TYPING_EVERY_MS) return;
  toldTyping = now;
  shown.room.signal('typing', true);
}

/** Arrow keys go from tab to tab (ARIA Authoring Practices, tabs). */
function turn(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const all = [...views.values()];
  show(all.at((all.indexOf(shown) + step) % all.length));
  tabs.querySelector('[aria-selected="true"]').focus();
}

function render() {
  keyed(
    tabs,
    [...views.values()],
    (view) => view.name,
    tab,
    (element, view) => {
      element.setAttribute('aria-selected', String(view === shown));
      element.tabIndex = view === shown ? 0 : -1;
      say(element.lastElementChild, view.unread ? String(view.unread) : '');
    },
  );
  $('room-leave').hidden = !shown;
  const listed = [...(shown?.members?.keys() ?? [])].sort().slice(0, MEMBERS_SHOWN);
  say($('member-count'), shown ? shown.count.toLocaleString() : '');
  keyed($('members'), listed, (user) => user, member);
  const now = performance.now();
  for (const [user, until] of shown?.typing ?? []) if (until < now) shown.typing.delete(user);
  const typing = [...(shown?.typing.keys() ?? [])];
  say($('typing'), typing.length ? `${typing.slice(0, 3).join(', ')} ${typing.length > 1 ? 'are' : 'is'} typing…` : '');
}

function tab(view) {
  const element = h(
    'button',
    { type: 'button', role: 'tab', data: { room: view.name }, aria: { controls: 'said' } },
    `#${view.name}`,
    h('span', { className: 'unread' }),
  );
  element.onclick = () => show(view);
  return element;
}

function member(user) {
  const avatar = h('span', { className: 'avatar', aria: { hidden: 'true' } });
  paint(avatar, user);
  const button = h('button', { className: 'quiet', title: `Watch ${user}`, aria: { label: `Watch ${user}` } }, 'watch');
  button.onclick = () => watch([user]);
  return h('li', { data: { user } }, avatar, h('span', { className: 'grow' }, user), button);
}
