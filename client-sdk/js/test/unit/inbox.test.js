import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InboxPlace } from '../../src/core/inbox.js';
import { at } from './client.js';

const welcome = (cursor, recovered, replayed) => ({ cursor, recovered, replayed });
const message = (cursor, id, from = 'bob') => ({
  ...cursor,
  id,
  from,
  stream: 'user:alice',
  kind: 'message',
  at: '',
  data: 1,
});

test('a device without a cursor starts where the replay starts', () => {
  const inbox = new InboxPlace();
  assert.equal(inbox.welcome(welcome(at(1, 44), true, 3)), null);
  assert.deepEqual(inbox.acked, at(1, 41));
  assert.equal(inbox.message(message(at(1, 42), 'a')), 'show');
});

test('only the next message is shown', () => {
  const inbox = new InboxPlace(at(1, 41));
  inbox.welcome(welcome(at(1, 42), true, 1));
  assert.equal(inbox.message(message(at(1, 42), 'a')), 'show');
  assert.equal(inbox.message(message(at(1, 42), 'a')), 'old');
  assert.equal(inbox.message(message(at(1, 44), 'c')), 'hole');
  assert.equal(inbox.message(message(at(2, 43), 'b')), 'hole');
  assert.equal(inbox.message(message(at(1, 43), 'b')), 'show');
  assert.equal(inbox.message(message(at(1, 44), 'a')), 'show', 'an id used again is another message');
});

test('what was shown is not shown again in a new generation', () => {
  const inbox = new InboxPlace(at(1, 0));
  inbox.welcome(welcome(at(1, 0), true, 0));
  assert.equal(inbox.message(message(at(1, 1), 'a')), 'show');
  assert.deepEqual(inbox.reset(at(2, 0)), { from: at(1, 1), cursor: at(2, 0) });
  assert.equal(inbox.message(message(at(2, 1), 'a')), 'shown');
  assert.equal(inbox.message(message(at(2, 2), 'a', 'carol')), 'show', "another sender's id");
});

test('a gap is told once unless more was missed', () => {
  const inbox = new InboxPlace(at(1, 5));
  assert.deepEqual(inbox.welcome(welcome(at(1, 900), false, 0)), { from: at(1, 5), cursor: at(1, 900) });
  assert.deepEqual(inbox.hello(), at(1, 5), 'the application has not taken it yet');
  assert.equal(inbox.welcome(welcome(at(1, 900), false, 0)), null);
  assert.deepEqual(inbox.welcome(welcome(at(1, 901), false, 0)), { from: at(1, 900), cursor: at(1, 901) });
});

test('a welcome that an older connection overtook takes nothing back', () => {
  for (const recovered of [true, false]) {
    const inbox = new InboxPlace(at(1, 5));
    inbox.welcome(welcome(at(1, 6), true, 1));
    inbox.message(message(at(1, 6), 'a'));
    inbox.message(message(at(1, 7), 'b'));
    assert.equal(inbox.welcome(welcome(at(1, 6), recovered, 0)), null);
    assert.equal(inbox.message(message(at(1, 7), 'b')), 'old');
    assert.equal(inbox.message(message(at(1, 8), 'c')), 'show');
  }
});

test('a welcome from before a new life is no way back', () => {
  const inbox = new InboxPlace(at(1, 5));
  inbox.hello();
  inbox.welcome(welcome(at(1, 5), true, 0));
  inbox.hello();
  assert.ok(inbox.reset(at(2, 0)), 'over the older connection');
  assert.equal(inbox.message(message(at(2, 1), 'a')), 'show');
  assert.equal(inbox.welcome(welcome(at(1, 5), true, 0)), null);
  assert.equal(inbox.reset(at(2, 0)), null);
  assert.equal(inbox.message(message(at(2, 1), 'a')), 'old');
});

test('a new life may have a smaller number', () => {
  const inbox = new InboxPlace(at(9, 5));
  inbox.hello();
  inbox.welcome(welcome(at(9, 5), true, 0));
  inbox.hello();
  assert.ok(inbox.welcome(welcome(at(2, 0), false, 0)));
  assert.equal(inbox.message(message(at(2, 1), 'a')), 'show');
  assert.equal(inbox.acked, null, 'not before the gap is taken');
  inbox.mark('ack', at(9, 5));
  assert.equal(inbox.acked, null, 'nobody received that');
  inbox.mark('ack', at(2, 1));
  assert.deepEqual(inbox.acked, at(2, 1));
});

test('a recovery that cannot be one is a gap', () => {
  for (const [have, tail, replayed] of [
    [at(1, 5), at(2, 9), 9],
    [at(1, 5), at(1, 9), 3],
    [at(1, 5), at(1, 3), 0],
  ]) {
    assert.deepEqual(new InboxPlace(have).welcome(welcome(tail, true, replayed)), { from: have, cursor: tail });
  }
});

test('a cursor above the tail is never shown again', () => {
  const inbox = new InboxPlace(at(1, 100));
  assert.ok(inbox.welcome(welcome(at(1, 5), false, 0)));
  assert.equal(inbox.hello(), null);
});

test('acks are cumulative and spread', () => {
  const inbox = new InboxPlace(at(1, 0));
  inbox.hello();
  inbox.welcome(welcome(at(1, 0), true, 0));
  for (let i = 1; i <= 3; i++) inbox.message(message(at(1, i), `m${i}`));
  inbox.mark('ack', at(1, 1));
  assert.deepEqual(inbox.take(1000), [{ type: 'ack', cursor: at(1, 1) }]);
  inbox.mark('ack', at(1, 2));
  inbox.mark('ack', at(1, 3));
  assert.deepEqual(inbox.take(1001), []);
  assert.equal(inbox.due(), 1200);
  assert.deepEqual(inbox.take(1200), [{ type: 'ack', cursor: at(1, 3) }]);
  assert.equal(inbox.due(), Infinity);
});

test('what the user saw is told again over every new connection', () => {
  const inbox = new InboxPlace(at(1, 0));
  inbox.hello();
  inbox.welcome(welcome(at(1, 0), true, 0));
  inbox.message(message(at(1, 1), 'a'));
  inbox.mark('read', at(1, 1));
  assert.deepEqual(inbox.take(1000), [{ type: 'read', cursor: at(1, 1) }]);
  inbox.hello();
  inbox.welcome(welcome(at(1, 1), true, 1));
  assert.deepEqual(inbox.take(2000), [{ type: 'read', cursor: at(1, 1) }]);
});

test('as many shown ids are kept as can come again', () => {
  const inbox = new InboxPlace(at(1, 0));
  for (let i = 1; i <= 2000; i++) inbox.message(message(at(1, i), `m${i}`));
  inbox.reset(at(2, 0));
  assert.equal(inbox.message(message(at(2, 1), 'm1001')), 'shown');
  assert.equal(inbox.message(message(at(2, 2), 'm900')), 'show');
});
