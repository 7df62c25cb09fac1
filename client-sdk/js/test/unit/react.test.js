import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createElement, StrictMode } from 'react';
import { act, create } from 'react-test-renderer';
import { Emitter } from '../../src/emitter.js';
import { useConnection, useInbox, usePresence, useRoom } from '../../src/react.js';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
const { error: complain } = console;
console.error = (...args) => String(args[0]).includes('react-test-renderer is deprecated') || complain(...args);

/** What a hook needs of a client, and what it did with it. */
function fake() {
  const did = [];
  const part = (name, methods) => {
    const made = new Emitter();
    for (const method of methods) {
      made[method] = async (...args) => {
        did.push([name, method, ...args]);
      };
    }
    return made;
  };
  const rooms = new Map();
  const roost = new Emitter();
  roost.state = 'connecting';
  roost.presence = part('presence', ['watch', 'unwatch']);
  roost.inbox = part('inbox', ['read']);
  roost.send = async (...args) => did.push(['send', ...args]);
  roost.room = (name) => {
    if (!rooms.has(name)) rooms.set(name, part(name, ['join', 'leave', 'publish', 'signal']));
    return rooms.get(name);
  };
  return { roost, did };
}

/** Renders components that call `hook`, one for each of `all`, and gives what the last one got. */
async function render(hook, all) {
  let got;
  const Component = ({ args }) => ((got = hook(...args)), null);
  const tree = (all) =>
    createElement(StrictMode, null, ...all.map((args, key) => createElement(Component, { args, key })));
  let root;
  await act(async () => (root = create(tree(all))));
  return { got: () => got, update: (all) => act(async () => root.update(tree(all))) };
}

test('a component sees the state of the connection', async () => {
  const { roost } = fake();
  const view = await render(useConnection, [[roost]]);
  assert.equal(view.got(), 'connecting');
  await act(async () => {
    roost.state = 'connected';
    roost.emit('state', {});
  });
  assert.equal(view.got(), 'connected');
});

test('a component has what comes into the inbox while it is there', async () => {
  const { roost, did } = fake();
  const { inbox } = roost;
  const view = await render(useInbox, [[roost, { limit: 2 }]]);
  assert.deepEqual([view.got().messages, view.got().gaps], [[], 0]);
  await act(async () => {
    for (const id of ['a', 'b', 'c']) inbox.emit('message', { id });
    inbox.emit('gap', {});
  });
  const { messages, gaps, send, read } = view.got();
  assert.deepEqual([messages.map((m) => m.id), gaps], [['b', 'c'], 1]);
  await send('bob', 'hi');
  await read(messages[1]);
  assert.deepEqual(did, [
    ['send', 'bob', 'hi'],
    ['inbox', 'read', { id: 'c' }],
  ]);
  await view.update([]);
  assert.equal(inbox.isHeard('message') || inbox.isHeard('gap'), 0, 'nothing is taken when nobody is there');
});

test('a component is in its room for as long as it is there', async () => {
  const { roost, did } = fake();
  const room = roost.room('lobby');
  const view = await render(useRoom, [[roost, 'lobby', { presence: true, info: { name: 'A' }, limit: 2 }]]);
  assert.deepEqual(did.at(-1), ['lobby', 'join', { presence: true, info: { name: 'A' } }]);
  assert.equal(view.got().joined, true);
  await act(async () => {
    room.emit('members', { listed: [{ user: 'bob' }], count: 1 });
    room.emit('member', { user: 'carol', change: 'join', info: 1 });
    room.emit('member', { user: 'bob', change: 'leave' });
    for (const id of ['a', 'b', 'c']) room.emit('message', { id });
    room.emit('gap', {});
  });
  const { messages, members, gaps, publish } = view.got();
  assert.deepEqual([messages.map((m) => m.id), members, gaps], [['b', 'c'], [{ user: 'carol', info: 1 }], 1]);
  await publish('hi');
  assert.deepEqual(did.at(-1), ['lobby', 'publish', 'hi']);
  await view.update([[roost, 'den']]);
  assert.deepEqual(
    did.slice(-2).map(([name, method]) => [name, method]),
    [
      ['lobby', 'leave'],
      ['den', 'join'],
    ],
  );
  assert.deepEqual(view.got().messages, []);
});

test('a room is left by the last component in it', async () => {
  const { roost, did } = fake();
  const leaves = () => did.filter(([, method]) => method === 'leave').length;
  const view = await render(useRoom, [
    [roost, 'lobby'],
    [roost, 'lobby'],
  ]);
  const before = leaves();
  await view.update([[roost, 'lobby']]);
  assert.equal(leaves(), before);
  await view.update([]);
  assert.equal(leaves(), before + 1);
});

test('a room that is refused shows why', async () => {
  const { roost } = fake();
  roost.room('staff').join = async () => {
    throw new Error('forbidden');
  };
  const view = await render(useRoom, [[roost, 'staff']]);
  assert.equal(view.got().error?.message, 'forbidden');
});

test('users are watched once however many components look at them', async () => {
  const { roost, did } = fake();
  const view = await render(usePresence, [
    [roost, ['bob', 'bob']],
    [roost, ['bob', 'carol']],
  ]);
  await act(async () => roost.presence.emit('change', { user: 'bob', status: 'online' }));
  assert.deepEqual(view.got().statuses, { bob: { user: 'bob', status: 'online' } });
  did.length = 0;
  await view.update([
    [roost, ['bob']],
    [roost, ['bob']],
  ]);
  assert.deepEqual(did, [['presence', 'unwatch', ['carol']]]);
  assert.equal(view.got().statuses.bob.status, 'online', 'what is known is shown at once');
  await view.update([]);
  assert.deepEqual(did.at(-1), ['presence', 'unwatch', ['bob']]);
});
