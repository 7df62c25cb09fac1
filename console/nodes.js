// The nodes as the coordinator sees them, and the buttons beside them.
import { $, h, keyed, say } from './dom.js';
import { ofNode } from './colour.js';
import { tell } from './events.js';
import { OPS, addNode, operate } from './ops.js';
import * as ring from './ring.js';

const list = $('nodes');
/** What is known of a node beyond its row: the beat seen last, and whether it was killed here. */
const seen = new Map();
let rows = [];
let home = '';
let isDev = false;

/** Shows the buttons that are only in `roost dev`. */
export function allowAll() {
  isDev = true;
  const add = $('node-add');
  add.hidden = false;
  add.onclick = () => once(add, addNode);
}

/** Takes `nodes` of the body of `/nodes`. */
export function take(nodes) {
  const now = performance.now();
  for (const row of nodes) {
    const before = seen.get(row.node);
    if (before?.sid !== row.sid || before.beat !== row.beat) {
      const killed = before?.sid === row.sid && before.killed;
      seen.set(row.node, { sid: row.sid, beat: row.beat, at: now, killed, state: before?.state });
    }
    const known = seen.get(row.node);
    const state = stateOf(row);
    // What was done here was told when it was done.
    if (known.state && known.state !== state && state !== 'killed') tell('node', `${row.node} is ${state}`);
    known.state = state;
  }
  rows = nodes;
  for (const node of seen.keys()) if (!rows.some((row) => row.node === node)) seen.delete(node);
}

/** Which of them is mine. */
export function mark(node) {
  home = node;
}

/** A node that was killed here is known to be gone before the coordinator says so. */
const stateOf = ({ node, sid, state }) => {
  const known = seen.get(node);
  return known?.killed && known.sid === sid ? 'killed' : state;
};

/** Shows them; times go on while nothing else changes. */
export function render() {
  keyed(list, rows, (row) => row.node, make, update);
}

function make({ node }) {
  const number = (name, label) => h('div', {}, h('dt', {}, label), h('dd', { data: { testid: `node-${name}` } }));
  const buttons = Object.entries(OPS).map(([name, op]) => {
    const button = h('button', { data: { testid: `node-${name}` }, aria: { label: `${op.label} ${node}` } }, op.label);
    button.onclick = () => press(button, name, node);
    return button;
  });
  const dot = h('span', { className: 'dot', aria: { hidden: 'true' } });
  dot.style.background = ofNode(node);
  const element = h(
    'li',
    { data: { node } },
    h(
      'div',
      { className: 'name' },
      dot,
      h('strong', {}, node),
      h('span', { className: 'badge state' }),
      h('span', { className: 'badge home', hidden: true }, 'home'),
    ),
    h(
      'dl',
      {},
      number('sessions', 'sessions'),
      number('rate', 'msg/s'),
      number('lag', 'lag'),
      number('lease', 'renewed'),
      number('vnodes', 'vnodes'),
    ),
    h('div', { className: 'row ops' }, ...buttons),
  );
  for (const event of ['pointerenter', 'focusin']) element.addEventListener(event, () => ring.light(node));
  for (const event of ['pointerleave', 'focusout']) element.addEventListener(event, () => ring.light());
  return element;
}

function update(element, row) {
  const { load, vnodes } = row;
  const state = stateOf(row);
  const isGone = state === 'revoked' || state === 'killed';
  element.dataset.state = state;
  element.dataset.home = String(row.node === home);
  say(element.querySelector('.state'), state);
  element.querySelector('.home').hidden = row.node !== home;
  const age = (performance.now() - seen.get(row.node).at) / 1000;
  const shown = {
    sessions: isGone ? '–' : load.sessions.toLocaleString(),
    rate: isGone ? '–' : load.messages_per_s.toFixed(load.messages_per_s < 10 ? 1 : 0),
    lag: isGone || load.lag === undefined ? '–' : load.lag.toLocaleString(),
    lease: isGone ? '–' : `${age.toFixed(1)} s`,
    vnodes: vnodes.ready === vnodes.assigned ? String(vnodes.ready) : `${vnodes.ready}/${vnodes.assigned}`,
  };
  for (const [name, text] of Object.entries(shown)) say($(`node-${name}`, element), text);
  const pressed = document.activeElement;
  for (const [name, op] of Object.entries(OPS)) {
    $(`node-${name}`, element).hidden = !op.states.includes(state) || (!!op.dev && !isDev);
  }
  if (pressed?.hidden && element.contains(pressed)) passOn(pressed);
}

/** The focus of a button that is no longer offered goes to the next one, which undoes what it did. */
function passOn(button) {
  const all = [...button.parentElement.children];
  const at = all.indexOf(button);
  [...all.slice(at), ...all.slice(0, at).reverse()].find(({ hidden }) => !hidden)?.focus();
}

/** Does `work`, unless this button still does it. (One that is `disabled` would lose the focus.) */
async function once(button, work) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = 'true';
  const done = await work();
  button.ariaDisabled = null;
  return done;
}

async function press(button, name, node) {
  const done = await once(button, () => operate(name, node));
  const known = seen.get(node);
  if (done && known && name === 'kill') known.killed = true;
  render();
}
