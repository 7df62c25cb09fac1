// What an application in TypeScript sees of the package; it only has to compile.
import { Roost, RoostError, type Cursor, type Cursors, type Gap, type Message, type RoostOptions, type State } from '@roost/client';
import { CLOSE_TOO_MANY_SESSIONS, RETRYABLE, reconnects } from '@roost/client/codes';
import { useConnection, useInbox, usePresence, useRoom } from '@roost/client/react';

const kept = new Map<string, Cursor>();
const cursors: Cursors = { load: async (stream) => kept.get(stream), save: (stream, cursor) => kept.set(stream, cursor) };
const options: RoostOptions = { getToken: async () => 'token', ack: 'manual', device: 'phone', cursors };
const roost = new Roost('https://chat.example.com', options);

export async function talk(): Promise<string> {
  const end: () => void = roost.on('state', ({ previous, current, reason }) => {
    const states: State[] = [previous, current];
    const code: number | undefined = reason?.closeCode;
    console.log(states, code === CLOSE_TOO_MANY_SESSIONS, code && reconnects(code), RETRYABLE);
  });
  const take = (m: Message) => roost.inbox.ack(m);
  roost.inbox.on('message', take);
  roost.inbox.off('message', take);
  const stop: () => void = roost.inbox.once('message', take);
  roost.on('error', ({ code, message }) => console.log(code, message, stop));
  // @ts-expect-error a listener of other events
  roost.inbox.once('gap', take);
  roost.inbox.on('gap', ({ from, through }: Gap) => console.log(from?.offset, through));
  // @ts-expect-error there is no such event
  roost.inbox.on('mesage', () => {});
  // @ts-expect-error a token is needed
  new Roost('https://chat.example.com', {});
  await roost.connect({ signal: AbortSignal.timeout(1000) });
  await roost.presence.watch(['bob']);
  const room = roost.room('lobby');
  const { members } = await room.join({ presence: true });
  const { cursor } = await room.publish({ text: 'hi' }, { timeoutMs: 1000 });
  const event = roost.event({ order: 17 });
  const ids: string[] = [event.id, room.publish('hi').id];
  console.log(ids, (await event).status);
  try {
    const { at } = await roost.send('bob', { text: 'hi' }, { receipt: true });
    end();
    return `${at} ${members?.count} ${cursor?.offset} ${(await roost.event('sample')).status}`;
  } catch (error) {
    if (error instanceof RoostError && error.sent) return error.id ?? '';
    throw error;
  }
}

export function View(): string {
  const state: State = useConnection(roost);
  const { messages, members, publish } = useRoom(roost, 'lobby', { presence: true });
  const { statuses } = usePresence(roost, ['bob']);
  const inbox = useInbox(roost, { limit: 10 });
  void publish('hi');
  void inbox.send('bob', inbox.messages[0]?.data).then(({ at }) => at);
  inbox.read(inbox.messages[0]);
  return `${state} ${messages.length} ${members[0]?.user} ${statuses.bob?.status}`;
}
