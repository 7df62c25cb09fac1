// Where tokens come from: in `roost dev` the coordinator makes them, elsewhere somebody pastes one.
import { ask } from './ask.js';
import { $, byId, onSubmit } from './dom.js';
import { attempt } from './events.js';

const made = async (user, role) => (await ask('/dev/token', { method: 'POST', body: { user, role } })).token;

/** @type {string} */
let pasted = '';

/**
 * Elsewhere than in dev: a service token, which is used for everything until the page is loaded anew.
 * @returns {Promise<string>} whose it is; fails if the cluster does not accept it
 */
export async function paste(token) {
  const user = subject(token);
  await ask(`/api/explain?${new URLSearchParams({ user })}`, { token });
  pasted = token;
  return user;
}

/** A token to connect with. */
export const forUser = async (user) => pasted || made(user, 'user');

/** A token for what operators do. */
export const forService = async () => pasted || made('console', 'service');

/** Who a token is for (RFC 7519 §4.1.2). Whether that is true, the server says. */
function subject(token) {
  try {
    const text = atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0)))).sub;
  } catch {
    throw new Error('this is no token');
  }
}

const NAMES = [
  [
    'amber',
    'brisk',
    'calm',
    'dapper',
    'early',
    'fond',
    'golden',
    'hazel',
    'ivory',
    'jolly',
    'keen',
    'lucky',
    'merry',
    'nimble',
    'quiet',
    'ruby',
    'sunny',
    'teal',
    'violet',
    'witty',
  ],
  [
    'crane',
    'dove',
    'egret',
    'finch',
    'grouse',
    'heron',
    'ibis',
    'jay',
    'kite',
    'lark',
    'martin',
    'oriole',
    'plover',
    'quail',
    'robin',
    'starling',
    'swift',
    'tern',
    'wren',
  ],
];

/** A name for somebody who did not say one: this is a roost. */
export const someName = () => NAMES.map((words) => words[Math.floor(Math.random() * words.length)]).join('-');

/** The token maker of `roost dev`. */
export function showMaker() {
  const output = $('token-output');
  byId('maker').hidden = false;
  onSubmit(byId('make'), () =>
    attempt('making a token', async () => {
      output.value = await made($('token-user').value.trim(), $('token-role').value);
      byId('made').hidden = false;
      output.select();
    }),
  );
  $('token-copy').onclick = () => attempt('copying', () => navigator.clipboard.writeText(output.value));
}
