/** @import { Member, Message, Presence as Status, State } from './types.js' */
/** @import { Presence } from './presence.js' */
/** @import { Room } from './room.js' */
/** @import { Roost } from './client.js' */
/** @import { Inbox } from './inbox.js' */
import { useCallback, useEffect, useState, useSyncExternalStore } from 'react';

/** How many components are in each room: the last one leaves it. */
const entered = /** @type {WeakMap<Room, number>} */ (new WeakMap());
/** How many components watch each user, and what was last heard of them. */
const watched = /** @type {WeakMap<Presence, { counts: Map<string, number>, known: Map<string, Status> }>} */ (
  new WeakMap()
);

/**
 * The state of the connection. The hook does not connect: the application does, once.
 * @param {Roost} roost
 * @returns {State}
 */
export function useConnection(roost) {
  const subscribe = useCallback((/** @type {() => void} */ changed) => roost.on('state', changed), [roost]);
  return useSyncExternalStore(
    subscribe,
    () => roost.state,
    () => 'disconnected',
  );
}

/**
 * @typedef {object} InboxView
 * @property {Message[]} messages the latest that came while the component was there, oldest first
 * @property {number} gaps how often messages were missed
 */

/** @type {InboxView} */
const EMPTY = { messages: [], gaps: 0 };

/**
 * What comes into the inbox while the component is there, which counts as dealt with then. What came before is in
 * `roost.inbox.history()`: have the component there before the application connects.
 * @param {Roost} roost
 * @param {{ limit?: number }} [options] `limit`: messages to keep (100)
 * @returns {InboxView & { send: Roost['send'], read: Inbox['read'] }} `read`: the user has seen all up to a message
 */
export function useInbox(roost, { limit = 100 } = {}) {
  const [view, setView] = useState(EMPTY);
  useEffect(() => {
    const { inbox } = roost;
    setView(EMPTY);
    const ends = [
      inbox.on('message', (m) => setView((old) => ({ ...old, messages: [...old.messages, m].slice(-limit) }))),
      inbox.on('gap', () => setView((old) => ({ ...old, gaps: old.gaps + 1 }))),
    ];
    return () => ends.forEach((end) => end());
  }, [roost, limit]);
  const send = useCallback((/** @type {Parameters<Roost['send']>} */ ...args) => roost.send(...args), [roost]);
  const read = useCallback((/** @type {Parameters<Inbox['read']>} */ ...args) => roost.inbox.read(...args), [roost]);
  return { ...view, send, read };
}

/**
 * @typedef {object} RoomView
 * @property {Message[]} messages the latest, oldest first
 * @property {Member[]} members with `presence`
 * @property {boolean} joined whether the room was joined and not lost
 * @property {number} gaps how often messages were missed
 * @property {Error | null} error why it was not joined, or lost
 */

/** @type {RoomView} */
const NOTHING = { messages: [], members: [], joined: false, gaps: 0, error: null };

/**
 * Is in a room for as long as the component is there. Of several components in one room the latest `presence` and
 * `info` count.
 * @param {Roost} roost
 * @param {string} name
 * @param {{ presence?: boolean, info?: any, limit?: number }} [options] `limit`: messages to keep (100)
 * @returns {RoomView & { publish: Room['publish'], signal: Room['signal'] }}
 */
export function useRoom(roost, name, { presence = false, info, limit = 100 } = {}) {
  const [view, setView] = useState(NOTHING);
  const infoText = JSON.stringify(info);
  useEffect(() => {
    const room = roost.room(name);
    let isHere = true;
    /** @param {(old: RoomView) => Partial<RoomView>} change */
    const update = (change) => isHere && setView((old) => ({ ...old, ...change(old) }));
    update(() => NOTHING);
    const ends = [
      room.on('message', (m) => update(({ messages }) => ({ messages: [...messages, m].slice(-limit) }))),
      room.on('gap', () => update(({ gaps }) => ({ gaps: gaps + 1 }))),
      room.on('members', ({ listed }) => update(() => ({ members: listed ?? [] }))),
      room.on('member', ({ user, change, info }) =>
        update(({ members }) => {
          const others = members.filter((m) => m.user !== user);
          return { members: change === 'join' ? [...others, { user, info }] : others };
        }),
      ),
      room.on('lost', (error) => update(() => ({ joined: false, members: [], error }))),
    ];
    entered.set(room, (entered.get(room) ?? 0) + 1);
    room.join({ presence, info: infoText && JSON.parse(infoText) }).then(
      () => update(() => ({ joined: true, error: null })),
      (error) => update(() => ({ error })),
    );
    return () => {
      isHere = false;
      ends.forEach((end) => end());
      const others = (entered.get(room) ?? 1) - 1;
      entered.set(room, others);
      // It is left at once; only the server might not hear of it before the connection ends.
      if (!others) room.leave().catch(() => {});
    };
  }, [roost, name, presence, infoText, limit]);
  const publish = useCallback(
    (/** @type {Parameters<Room['publish']>} */ ...args) => roost.room(name).publish(...args),
    [roost, name],
  );
  const signal = useCallback(
    (/** @type {Parameters<Room['signal']>} */ ...args) => roost.room(name).signal(...args),
    [roost, name],
  );
  return { ...view, publish, signal };
}

/** @param {Presence} presence */
function watchesOf(presence) {
  const known = watched.get(presence);
  if (known) return known;
  const made = { counts: new Map(), known: new Map() };
  watched.set(presence, made);
  presence.on('change', (status) => made.known.set(status.user, status));
  return made;
}

/**
 * Watches users for as long as the component is there.
 * @param {Roost} roost
 * @param {string[]} users
 * @returns {{ statuses: Record<string, Status>, error: Error | null }} those of whom something is known, by user
 */
export function usePresence(roost, users) {
  const [statuses, setStatuses] = useState(/** @type {Record<string, Status>} */ ({}));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const key = JSON.stringify([...new Set(users)].sort());
  useEffect(() => {
    /** @type {string[]} */
    const names = JSON.parse(key);
    const { presence } = roost;
    const { counts, known } = watchesOf(presence);
    let isHere = true;
    const show = () => {
      const found = names.flatMap((user) => known.get(user) ?? []);
      setStatuses(Object.fromEntries(found.map((status) => [status.user, status])));
    };
    const fail = (/** @type {Error} */ error) => isHere && setError(error);
    const ends = [
      presence.on('change', ({ user }) => names.includes(user) && show()),
      presence.on('lost', ({ user, error }) => names.includes(user) && fail(error)),
    ];
    const fresh = names.filter((user) => !counts.get(user));
    for (const user of names) counts.set(user, (counts.get(user) ?? 0) + 1);
    setError(null);
    show();
    if (fresh.length) presence.watch(fresh).catch(fail);
    return () => {
      isHere = false;
      ends.forEach((end) => end());
      for (const user of names) counts.set(user, (counts.get(user) ?? 1) - 1);
      const over = names.filter((user) => !counts.get(user));
      for (const user of over) {
        counts.delete(user);
        known.delete(user);
      }
      // Not watched at once; only the server might not hear of it before the connection ends.
      if (over.length) presence.unwatch(over).catch(() => {});
    };
  }, [roost, key]);
  return { statuses, error };
}
