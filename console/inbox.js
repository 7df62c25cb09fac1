// Private messages: what came into my inbox, and what I sent to others'.
import { $, byId, onSubmit, take } from './dom.js';
import { attempt, tell } from './events.js';
import * as inspector from './inspector.js';
import { Messages } from './messages.js';

const HISTORY = 30;

/**
 * @param {any} roost client of the SDK
 * @param {string} me who is signed in
 */
export function start(roost, me) {
  const messages = new Messages({
    me,
    testid: 'inbox',
    label: 'Private messages',
    order: ({ at }) => [Date.parse(at)],
    inspect: (message) => inspector.explain(message.id, message.to ?? me, message),
  });
  byId('private').append(messages.element);
  const { inbox } = roost;
  inbox.on('message', (message) => {
    messages.receive(message);
    // It is in sight; who asked for a receipt is told.
    if (!document.hidden) inbox.read(message);
  });
  inbox.on('receipt', ({ data }) => messages.receipt(data));
  inbox.on('gap', () => {
    tell('gap', 'inbox: what was missed has left the hot window; the newest is read from the history');
    history();
  });
  const history = () =>
    attempt('the history of the inbox', async () => {
      const page = await inbox.history({ limit: HISTORY });
      for (const message of page.messages.reverse()) if (message.kind === 'message') messages.receive(message);
    });
  onSubmit(byId('dm'), () => {
    const to = $('dm-to').value.trim();
    const text = take($('dm-input'));
    messages.send({ to, data: { text } }, (id) => roost.send(to, { text }, { id, receipt: true }));
  });
  // Whose inbox it is, is known from then on.
  const greeted = roost.on('state', ({ current }) => {
    if (current !== 'connected') return;
    greeted();
    history();
  });
}
