// What is done to nodes: by operators everywhere, and, in `roost dev`, by whoever wants to see what happens then.
import { ask } from './ask.js';
import { attempt, tell } from './events.js';
import { forService } from './token.js';

const drained = (method) => async (node) => ask(`/api/nodes/${node}/drain`, { method, token: await forService() });
const dev = (what) => (node) => ask(`/dev/nodes/${node}/${what}`, { method: 'POST' });

/** What a button does, by the name of the button: to a node in which states, only in dev, and what is told of it. */
export const OPS = {
  kill: {
    label: 'Kill',
    states: ['up', 'draining'],
    dev: true,
    run: dev('kill'),
    told: 'was killed: it hands nothing over',
  },
  restart: {
    label: 'Restart',
    states: ['revoked', 'killed'],
    dev: true,
    run: dev('restart'),
    told: 'was started again',
  },
  drain: { label: 'Drain', states: ['up'], run: drained('POST'), told: 'gives its vnodes and sessions to the others' },
  undrain: { label: 'Undrain', states: ['draining'], run: drained('DELETE'), told: 'takes vnodes again' },
};

/** @returns {Promise<boolean>} whether it was done */
export async function operate(name, node) {
  const { run, told } = OPS[name];
  const done = await attempt(`${name} ${node}`, () => run(node));
  if (done) tell('node', `${node} ${told}`);
  return !!done;
}

export async function addNode() {
  const added = await attempt('adding a node', () => ask('/dev/nodes', { method: 'POST' }));
  if (added) tell('node', `${added.node} was added`);
}
