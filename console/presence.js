// Friends: what those who are watched show, and what I show.
import { $, byId, h, keyed, onSubmit, say, soon, take } from './dom.js';
import { paint } from './colour.js';
import { attempt, tell } from './events.js';

const UNKNOWN = { status: 'unknown', since: null, last_seen: null };

/** By user, in the order of watching. */
const friends = new Map();
let roost;
const changed = soon(render);

/** @param {any} client of the SDK */
export function start(client) {
  roost = client;
  roost.presence.on('change', (shown) => {
    if (friends.has(shown.user)) friends.set(shown.user, shown);
    changed();
  });
  roost.presence.on('lost', ({ user, error }) => {
    friends.delete(user);
    tell('error', `${user} cannot be watched: ${error.message}`);
    render();
  });
  onSubmit(byId('watch'), () =>
    watch(
      take($('watch-input'))
        .split(',')
        .map((user) => user.trim())
        .filter(Boolean),
    ),
  );
  $('status-select').onchange = ({ target }) => attempt('your status', () => roost.presence.set(target.value));
}

export async function watch(users) {
  const fresh = users.filter((user) => !friends.has(user));
  if (!fresh.length) return;
  for (const user of fresh) friends.set(user, UNKNOWN);
  render();
  const shown = await attempt(`watching ${fresh.join(', ')}`, () => roost.presence.watch(fresh));
  // What changed meanwhile was told before the answer, and is newer or the same.
  for (const user of fresh) {
    if (!shown) friends.delete(user);
    else if (friends.get(user) === UNKNOWN) friends.set(user, shown.find((one) => one.user === user) ?? UNKNOWN);
  }
  render();
}

function unwatch(user) {
  friends.delete(user);
  render();
  attempt(`unwatching ${user}`, () => roost.presence.unwatch([user]));
}

function render() {
  keyed($('presence-list'), [...friends.keys()], (user) => user, make, update);
}

function make(user) {
  const avatar = h('span', { className: 'avatar', aria: { hidden: 'true' } });
  paint(avatar, user);
  const end = h(
    'button',
    { className: 'quiet', data: { testid: 'unwatch' }, aria: { label: `Stop watching ${user}` } },
    '×',
  );
  end.onclick = () => unwatch(user);
  return h(
    'li',
    { data: { user } },
    avatar,
    h('span', { className: 'grow' }, user),
    h('span', { className: 'badge state' }),
    end,
  );
}

function update(element, user) {
  const { status, since, last_seen: seen } = friends.get(user);
  element.dataset.status = status;
  say(element.querySelector('.state'), status);
  const when = status === 'offline' ? seen : since;
  element.title = when ? `${status === 'offline' ? 'last seen' : 'since'} ${new Date(when).toLocaleString()}` : '';
}
