// Why something is where it is: `explain` of every node, as sentences.
import { ask } from './ask.js';
import { $, byId, h, onSubmit } from './dom.js';
import { tell } from './events.js';
import { forService } from './token.js';

const output = $('inspect-output');

export function start() {
  onSubmit(byId('inspect'), () => explain($('inspect-input').value.trim(), $('inspect-to').value.trim()));
}

/**
 * Explains a message if somebody knows of one under this id, else a user.
 * @param {string} what user or message id
 * @param {string} [to] the receiver, if it is a message whose receiver is known
 * @param {any} [message] if it is one that this page has
 */
export async function explain(what, to = '', message = null) {
  $('inspect-input').value = what;
  $('inspect-to').value = to;
  output.setAttribute('aria-busy', 'true');
  try {
    const [lines, nodes] = await explained(what, to, message);
    const sentences = lines.map(([name, text]) => h('div', {}, h('dt', {}, name), h('dd', {}, text)));
    const all = h('pre', { tabIndex: 0 }, JSON.stringify(nodes, null, 2));
    output.replaceChildren(
      h('dl', {}, ...sentences),
      h('details', {}, h('summary', {}, 'All that the nodes say'), all),
    );
  } catch (error) {
    output.replaceChildren(h('p', { className: 'wrong' }, error.message));
    tell('error', `explain ${what}: ${error.message}`);
  }
  output.setAttribute('aria-busy', 'false');
}

async function explained(what, to, own) {
  const token = await forService();
  const nodes = async (query) => (await ask(`/api/explain?${new URLSearchParams(query)}`, { token })).nodes;
  // Ids of messages are shorter and have fewer characters than users' names.
  if (/^[\w.:-]{1,64}$/.test(what)) {
    const message = await nodes({ id: what, ...(to && { to }) });
    const lines = ofMessage(message);
    if (lines.length) return [lines, message];
    if (own?.offset) return [[kept(own), ['waits', 'nowhere: it is where it belongs']], message];
    if (to || own)
      return [[['nowhere', 'nobody waits with it, and it is in no hot window that was looked into']], message];
  }
  const user = await nodes({ user: what });
  return [ofUser(what, user), user];
}

const kept = ({ stream, offset, generation, from, at }) => [
  'kept',
  `in ${stream} at offset ${offset} of generation ${generation}, from ${from}, at ${at}`,
];

function ofMessage(nodes) {
  const lines = [];
  for (const [node, { found = [], kept: inbox }] of Object.entries(nodes)) {
    for (const { place, stream, number, age_ms: age, why } of found) {
      lines.push([
        'waits',
        `at ${node}, ${place} of ${stream} (number ${number})${age === undefined ? '' : `, for ${age} ms`}`,
      ]);
      lines.push(['because', why]);
    }
    for (const entry of inbox?.entries ?? []) {
      lines.push(kept({ ...inbox, ...entry }), ...ofSessions(node, inbox.sessions));
    }
  }
  return lines;
}

function ofUser(user, nodes) {
  const lines = [['user', user]];
  for (const [node, { home, error }] of Object.entries(nodes)) {
    if (error) lines.push(['silent', `${node}: ${error.message}`]);
    if (!home) continue;
    lines.push(['home', `${node}: vnode ${home.vnode} under epoch ${home.epoch}, ${home.phase}`]);
    lines.push(['lease', home.lease_left_ms ? `${home.lease_left_ms} ms left` : 'has run out: the home is suspended']);
    lines.push(['status', home.status ?? 'offline']);
    lines.push([
      'work',
      `${home.queued} queued, ${home.writing} in the write under way (tried ${home.write_retries} times again)`,
    ]);
    lines.push(['log', `${home.outbox} events not in it yet, ${home.held} answers held for them`]);
  }
  if (!lines.some(([name]) => name === 'home')) lines.push(['home', 'no node has this vnode at the moment']);
  for (const [node, { sessions = [], channel }] of Object.entries(nodes)) {
    lines.push(...ofSessions(node, sessions));
    if (channel)
      lines.push([
        'channel',
        `${node} has ${channel.items} messages for the home ${channel.to ?? '–'}, ${channel.sent} sent; last heard of it ${channel.silent_ms} ms ago`,
      ]);
  }
  return lines;
}

const ofSessions = (node, sessions) =>
  sessions.map(({ session, state, sent, tail, credit }) => {
    const behind = Math.max(0, tail - sent);
    const place = behind
      ? `${behind} messages behind${credit ? '' : ': its socket does not read'}`
      : `was sent everything up to ${sent}`;
    return ['session', `${session} at ${node}: ${state}; ${place}`];
  });
