// Where the others in the room point, and what they think of it: signals, which are not kept.
import { $, byId, h } from './dom.js';
import { ofUser } from './colour.js';

/** A session may send 60 signals in a second. */
const TELL_EVERY_MS = 40;
/** Who is silent for longer has gone elsewhere. */
const CURSOR_LASTS_MS = 15_000;
const CURSORS_MAX = 50;
const REACTION_LASTS_MS = 2_000;
/** What an arrow key moves, in parts of the area. */
const STEP = 0.03;

const REACTIONS = {
  heart: [
    'Heart',
    'M12 20.500C4.5 14.5 2.5 11.5 2.5 8.500a4.8 4.8 0 0 1 9.5-1.3 4.8 4.8 0 0 1 9.5 1.300c0 3-2 6-9.5 12z',
  ],
  star: ['Star', 'm12 2.5 2.9 6.3 6.9.8-5.1 4.7 1.4 6.800L12 17.700l-6.1 3.4 1.4-6.800L2.2 9.600l6.9-.8z'],
  bolt: ['Bolt', 'M13.5 2 4.5 13.500H11L9.5 22l9-11.500H13z'],
  smile: [
    'Smile',
    'M12 2.500a9.5 9.5 0 1 0 0 19 9.5 9.5 0 0 0 0-19zM8.7 8a1.3 1.3 0 1 1 0 2.6 1.3 1.3 0 0 1 0-2.600zm6.6 0a1.3 1.3 0 1 1 0 2.6 1.3 1.3 0 0 1 0-2.600zM7 13.500h10a5.1 5.1 0 0 1-10 0z',
  ],
};
const KEYS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

const area = $('cursor-area');
/** The others': by user. */
const cursors = new Map();
let room;
let me = '';
/** Where I point, in parts of the area. */
let mine = { x: 0.5, y: 0.5 };
let told = -Infinity;
let telling = 0;

/** @param {string} user who is signed in */
export function start(user) {
  me = user;
  area.addEventListener('pointermove', ({ clientX, clientY }) => {
    const box = area.getBoundingClientRect();
    point((clientX - box.left) / box.width, (clientY - box.top) / box.height);
  });
  area.addEventListener('pointerleave', () => {
    clearTimeout(telling);
    telling = 0;
    room?.signal('cursor', null);
  });
  area.addEventListener('keydown', (event) => {
    const step = KEYS[event.key];
    if (!step) return;
    event.preventDefault();
    point(mine.x + step[0], mine.y + step[1]);
  });
  for (const [name, [label]] of Object.entries(REACTIONS)) {
    const button = h('button', {
      className: 'icon',
      type: 'button',
      title: label,
      data: { testid: 'reaction-button', reaction: name },
      aria: { label },
    });
    button.append(drawing(name));
    button.onclick = () => {
      react(me, { reaction: name, ...mine });
      room?.signal('reaction', { reaction: name, ...mine });
    };
    byId('reactions').append(button);
  }
}

/** The room whose cursors are shown, and that is told of mine. */
export function use(next) {
  if (next === room) return;
  for (const user of [...cursors.keys()]) gone(user);
  room = next;
}

/** Of somebody else in the room. */
export function signal(from, kind, data) {
  if (kind === 'reaction') react(from, data);
  else if (kind === 'cursor' && place(data)) show(from, place(data));
  else if (kind === 'cursor') gone(from);
}

/** Takes somebody's cursor away. */
export function gone(user) {
  const cursor = cursors.get(user);
  if (!cursor) return;
  clearTimeout(cursor.silence);
  cursor.element.remove();
  cursors.delete(user);
}

const within = (n) => Math.min(1, Math.max(0, n));

/** What came from elsewhere, if it is a place. */
function place(data) {
  const isPlace = Number.isFinite(data?.x) && Number.isFinite(data?.y);
  return isPlace ? { x: within(data.x), y: within(data.y) } : null;
}

function point(x, y) {
  mine = { x: within(x), y: within(y) };
  byId('board-hint').hidden = true;
  if (telling) return;
  // The last place is told too, a moment later.
  telling = setTimeout(
    () => {
      telling = 0;
      told = performance.now();
      room?.signal('cursor', { x: Number(mine.x.toFixed(4)), y: Number(mine.y.toFixed(4)) });
    },
    Math.max(0, told + TELL_EVERY_MS - performance.now()),
  );
}

function show(user, at) {
  if (!cursors.has(user)) {
    if (cursors.size >= CURSORS_MAX) return;
    cursors.set(user, { element: make(user) });
  }
  byId('board-hint').hidden = true;
  const cursor = cursors.get(user);
  move(cursor.element, at);
  clearTimeout(cursor.silence);
  cursor.silence = setTimeout(() => gone(user), CURSOR_LASTS_MS);
}

function make(user) {
  const element = h(
    'div',
    { className: 'cursor', data: { testid: 'cursor', user } },
    drawn('M3 2.5 20.5 10l-7.5 2.500L9.5 20z'),
    h('span', {}, user),
  );
  element.style.setProperty('--colour', ofUser(user));
  area.append(element);
  return element;
}

function react(user, data) {
  if (!Object.hasOwn(REACTIONS, data?.reaction)) return;
  const element = h(
    'div',
    { className: 'reaction', data: { testid: 'reaction', user, reaction: data.reaction } },
    drawing(data.reaction),
  );
  element.style.setProperty('--colour', ofUser(user));
  move(element, place(data) ?? { x: 0.5, y: 0.5 });
  area.append(element);
  setTimeout(() => element.remove(), REACTION_LASTS_MS);
}

function move(element, { x, y }) {
  element.style.left = `${x * 100}%`;
  element.style.top = `${y * 100}%`;
}

const drawing = (name) => drawn(REACTIONS[name][1]);

function drawn(outline) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  path.setAttribute('d', outline);
  path.setAttribute('fill-rule', 'evenodd');
  svg.append(path);
  return svg;
}
