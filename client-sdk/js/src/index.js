export { Roost } from './client.js';
export { RoostError } from './error.js';
/** @typedef {import('./client.js').RoostOptions} RoostOptions */
/** @typedef {import('./inbox.js').Inbox} Inbox */
/** @typedef {import('./presence.js').Presence} Presence */
/** @typedef {import('./room.js').Room} Room */
/** @typedef {import('./types.js').CallOptions} CallOptions */
/** @typedef {import('./types.js').Cursor} Cursor */
/** @typedef {import('./types.js').Cursors} Cursors */
/** @typedef {import('./types.js').EventResult} EventResult */
/** @typedef {import('./types.js').Gap} Gap */
/** @typedef {import('./types.js').History} History */
/** @typedef {import('./types.js').JoinOptions} JoinOptions */
/** @typedef {import('./types.js').MemberChange} MemberChange */
/** @typedef {import('./types.js').Members} Members */
/** @typedef {import('./types.js').Message} Message */
/** @typedef {import('./types.js').Presence} PresenceStatus */
/** @typedef {import('./types.js').Signal} Signal */
/** @typedef {import('./types.js').State} State */
/** @typedef {import('./types.js').StateChange} StateChange */
