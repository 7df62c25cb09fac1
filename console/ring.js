// The ring: one canvas, drawn when something changed. A vnode is a field in the colour of its owner.
import { $, byId, say } from './dom.js';
import { ofNode } from './colour.js';

const TURN = 2 * Math.PI;
/** Vnode 0 is at the top. */
const TOP = -TURN / 4;
/** How long a vnode that has another owner stands out. */
const FLASH_MS = 1_200;
/** In parts of the radius. */
const BAND = { inner: 0.5, outer: 0.95 };
/** Vnodes lie in rows, one inside the other, so that each can be seen: vnode n is in row n mod rows. */
const SLOTS = 128;
const ROWS_MAX = 8;
/** Between neighbours, in pixels. */
const GAP = 1;
const NOBODY = '';
const HINT = 'one field is one vnode, in the colour of its owner';

const canvas = $('ring');
const context = canvas.getContext('2d');
const detail = $('ring-detail');
const isStill = matchMedia('(prefers-reduced-motion: reduce)');

/** Per vnode: owner, whether it is ready, epoch, where it moves, and when its owner changed. */
let vnodes = [];
let home = -1;
let lit = NOBODY;
let asked = false;

/** Shows the body of `/ring`. */
export function show(ring) {
  const now = performance.now();
  const before = vnodes;
  vnodes = Array.from({ length: ring.vnodes }, (_, v) => ({
    owner: NOBODY,
    ready: false,
    epoch: 0,
    target: NOBODY,
    changed: before[v]?.changed ?? -Infinity,
  }));
  for (const [v, owner, epoch, ready] of ring.rows) Object.assign(vnodes[v], { owner, epoch, ready });
  for (const [v, target] of ring.moving) vnodes[v].target = target;
  for (const [v, vnode] of vnodes.entries()) if (before[v] && before[v].owner !== vnode.owner) vnode.changed = now;
  describe(ring);
  draw();
}

/** Marks the vnode of the user who is signed in. */
export function mark(vnode) {
  home = vnode;
  canvas.dataset.home = String(vnode);
  draw();
}

/** Shows the vnodes of `node` alone, or all. */
export function light(node = NOBODY) {
  lit = node;
  draw();
}

function describe(ring) {
  const owned = new Map();
  for (const { owner } of vnodes) owned.set(owner, (owned.get(owner) ?? 0) + 1);
  const shares = [...owned].sort().map(([node, count]) => `${node || 'nobody'} ${count}`);
  canvas.setAttribute(
    'aria-label',
    `The ring of ${ring.vnodes} vnodes: ${shares.join(', ')}; ${ring.moving.length} moving`,
  );
  canvas.dataset.vnodes = String(ring.vnodes);
  canvas.dataset.moving = String(ring.moving.length);
  say(byId('ring-vnodes'), ring.vnodes.toLocaleString());
  say(byId('ring-moving'), ring.settling ? 'settling' : ring.moving.length ? `${ring.moving.length} moving` : '');
}

/** Soon, once, however often it was asked for. */
function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(paint);
}

function paint(now) {
  asked = false;
  const size = canvas.clientWidth;
  const scale = devicePixelRatio;
  if (canvas.width !== Math.round(size * scale)) canvas.width = canvas.height = Math.round(size * scale);
  const radius = size / 2;
  context.setTransform(scale, 0, 0, scale, radius * scale, radius * scale);
  context.clearRect(-radius, -radius, size, size);
  const { color: ink, borderColor: faint } = getComputedStyle(canvas);
  for (const [style, path] of paths(radius)) {
    const [colour, alpha] = style.split('|');
    context.globalAlpha = Number(alpha);
    context.fillStyle = colour || faint;
    context.fill(path);
  }
  const goesOn = flash(radius, now, ink);
  context.globalAlpha = 1;
  if (home >= 0 && vnodes.length) point(radius, ink);
  if (goesOn) draw();
}

/** What is drawn in one colour is one path: a handful of fills, however many vnodes. */
function paths(radius) {
  const byStyle = new Map();
  for (const [v, { owner, ready, target }] of vnodes.entries()) {
    const alpha = lit && owner !== lit ? 0.12 : ready || !owner ? 1 : 0.4;
    add(byStyle, `${owner && ofNode(owner)}|${alpha}`, cell(v, radius));
    if (target) add(byStyle, `${ofNode(target)}|1`, half(cell(v, radius)));
  }
  return byStyle;
}

/** The place of a vnode: clockwise from the top. */
function cell(v, radius) {
  const rows = Math.min(ROWS_MAX, Math.ceil(vnodes.length / SLOTS));
  const [width, height] = [(TURN * rows) / vnodes.length, (radius * (BAND.outer - BAND.inner)) / rows];
  const [from, outer] = [TOP + Math.floor(v / rows) * width, radius * BAND.outer - (v % rows) * height];
  // Where there is no room for gaps there are none.
  const gap = Math.min(GAP, (width * outer) / 4, height / 4);
  return { from, to: from + width - gap / outer, inner: outer - height + gap, outer };
}

const half = (place) => ({ ...place, inner: (place.inner + place.outer) / 2 });

function add(byStyle, style, { from, to, inner, outer }) {
  if (!byStyle.has(style)) byStyle.set(style, new Path2D());
  const path = byStyle.get(style);
  path.moveTo(outer * Math.cos(from), outer * Math.sin(from));
  path.arc(0, 0, outer, from, to);
  path.arc(0, 0, inner, to, from, true);
  path.closePath();
}

/** What has just changed its owner; returns whether there is more to come. */
function flash(radius, now, ink) {
  if (isStill.matches) return false;
  const byAge = new Map();
  for (const [v, { changed }] of vnodes.entries()) {
    if (now - changed >= FLASH_MS) continue;
    const left = Math.ceil(10 * (1 - Math.max(0, now - changed) / FLASH_MS)) / 10;
    add(byAge, left, cell(v, radius));
  }
  for (const [left, path] of byAge) {
    context.globalAlpha = 0.8 * left;
    context.fillStyle = ink;
    context.fill(path);
  }
  return byAge.size > 0;
}

/** Frames my vnode, and points at it from within. */
function point(radius, ink) {
  const { from, to, inner, outer } = cell(home, radius);
  const byStyle = new Map();
  add(byStyle, '', { from: from - 1 / outer, to: to + 1 / outer, inner: inner - 1, outer: outer + 1 });
  context.lineWidth = 2.5;
  context.strokeStyle = context.fillStyle = ink;
  context.stroke(byStyle.get(''));
  context.save();
  context.rotate((from + to) / 2);
  context.beginPath();
  context.moveTo(radius * (BAND.inner - 0.03), 0);
  context.lineTo(radius * (BAND.inner - 0.11), -radius * 0.045);
  context.lineTo(radius * (BAND.inner - 0.11), radius * 0.045);
  context.fill();
  context.restore();
}

/** The vnode at a place of the canvas. */
function at(x, y, radius) {
  const [far, turn] = [Math.hypot(x, y), (Math.atan2(y, x) - TOP + TURN) % TURN];
  return vnodes.findIndex((_, v) => {
    const { from, to, inner, outer } = cell(v, radius);
    return far <= outer && far >= inner && turn >= from - TOP && turn <= to - TOP;
  });
}

function below(event) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  const v = at(x, y, box.width / 2);
  if (v < 0) return say(detail, HINT);
  const { owner, epoch, ready, target } = vnodes[v];
  const place = owner ? `${owner}, epoch ${epoch}${ready ? '' : ', not ready'}` : 'no owner';
  say(detail, `vnode ${v}: ${place}${target ? `, moves to ${target}` : ''}`);
}

canvas.addEventListener('pointermove', below);
canvas.addEventListener('pointerleave', () => say(detail, HINT));
addEventListener('theme', draw);
new ResizeObserver(draw).observe(canvas);
