// The page: who is signed in, how the connection is, and the parts put together.
import { Roost } from '/sdk.js';
import { ask } from './ask.js';
import * as chat from './chat.js';
import { follow, route } from './cluster.js';
import { paint } from './colour.js';
import * as cursors from './cursors.js';
import { $, byId, onSubmit, say } from './dom.js';
import { gaps, tell } from './events.js';
import * as inbox from './inbox.js';
import * as inspector from './inspector.js';
import * as nodes from './nodes.js';
import * as presence from './presence.js';
import * as ring from './ring.js';
import * as token from './token.js';

const LOBBY = 'lobby';
const LOCATE_AGAIN_MS = 1_000;
const asked = new URLSearchParams(location.search);
const { dev } = await ask('/console/mode.json');
let me = '';
/** @type {Roost | undefined} */
let roost;
/** Where I was connected last. */
let node = '';
/** When the connection was lost, and how many gaps there were by then. */
let lost = { at: 0, gaps: 0 };

/** This page as `user`. */
const address = (user, more) => `?${new URLSearchParams({ user, ...more })}`;

function signIn(user) {
  me = user;
  roost = new Roost('/', { user, getToken: () => token.forUser(user) });
  $('signin-user').value = user;
  paint(byId('avatar'), user);
  document.title = `${user} · Roost console`;
  roost.on('state', changed);
  presence.start(roost);
  cursors.start(user);
  inbox.start(roost, user);
  chat.start(roost, user, secondWindow);
  roost.connect().catch((error) => tell('error', error.message));
  chat.join(asked.get('room') || LOBBY);
  presence.watch((asked.get('watch') ?? '').split(',').filter(Boolean));
  inspector.start();
  locate();
  follow({
    ring: ring.show,
    nodes: nodes.take,
    lost: (why) => tell('error', `the coordinator does not answer: ${why}`),
    tick: connection,
  });
}

function changed({ previous, current, reason }) {
  const why = reason ? `: ${reason.message}` : '';
  if (current === 'connecting') tell('connecting', `as ${me}`);
  if (current === 'failed') tell('failed', `the connection${why}`);
  if (current === 'reconnecting') {
    lost = { at: performance.now(), gaps };
    tell('reconnecting', `the connection to ${node || 'the cluster'} was lost${why}`);
  }
  if (current === 'connected') {
    node = roost.node;
    tell('connected', `at ${node}`);
    const seconds = ((performance.now() - lost.at) / 1000).toFixed(1);
    // Gaps are told right after the state.
    if (previous === 'reconnecting') {
      setTimeout(() =>
        tell('recovered', `after ${seconds} s, ${gaps > lost.gaps ? 'with gaps' : 'nothing was missed'}`),
      );
    }
  }
  connection();
}

/** Shows the state, and a planned move, which changes no state. */
function connection() {
  const { state, node: now } = roost;
  const isConnected = state === 'connected';
  const pill = $('connection-state');
  pill.dataset.state = state;
  say(pill, state);
  if (isConnected && now !== node) {
    tell('moved', `${node} → ${now}, without an interruption`);
    node = now;
  }
  const home = $('home-node');
  home.dataset.node = isConnected ? now : '';
  say(home, home.dataset.node || '–');
  nodes.mark(home.dataset.node);
  nodes.render();
}

/** My place on the ring, which stays, whoever has it. */
async function locate() {
  const found = await route(me);
  if (found) ring.mark(found.vnode);
  else setTimeout(locate, LOCATE_AGAIN_MS);
}

/** Who the other window is. */
let friend = '';
function secondWindow(room) {
  if (!dev) return;
  if (!friend) presence.watch([(friend = token.someName())]);
  const link = $('second-window');
  link.href = address(friend, { room: room || LOBBY, watch: me });
  say(link, `Open as ${friend}`);
  link.hidden = false;
}

if (dev) {
  nodes.allowAll();
  token.showMaker();
  const more = Object.fromEntries([...asked].filter(([name]) => name !== 'user'));
  onSubmit(byId('signin'), () => location.assign(address($('signin-user').value.trim(), more)));
  const user = asked.get('user') || token.someName();
  history.replaceState(null, '', address(user, more));
  signIn(user);
} else {
  const [field, gate] = [$('signin-token'), byId('gate')];
  $('signin-user').hidden = true;
  $('signin-user').required = false;
  gate.hidden = field.hidden = false;
  field.required = true;
  onSubmit(byId('signin'), async () => {
    try {
      const user = await token.paste(field.value.trim());
      gate.hidden = byId('signin').hidden = true;
      signIn(user);
    } catch (error) {
      say(gate, `That token does not do: ${error.message}`);
    }
  });
}
