// What goes over the wire (docs/PROTOCOL.md) and between the core and its carrier, as types alone.

/**
 * A place in a stream. Cursors are ordered as pairs.
 * @typedef {{ generation: number, offset: number }} Cursor
 */

/**
 * A message of the inbox or of a room. It is its own cursor.
 * @typedef {object} Message
 * @property {string} stream `user:<id>` or `room:<id>`
 * @property {number} generation
 * @property {number} offset
 * @property {string} id
 * @property {string} kind `message`, `result` or `receipt`
 * @property {string} from the sender's user id
 * @property {string} at when the home took it, RFC 3339
 * @property {any} data
 */

/**
 * Messages that were missed and left the hot window: read the history of `stream` from `from` through `through`.
 * What follows on the stream comes after `cursor`.
 * @typedef {{ stream: string, from: Cursor | null, cursor: Cursor, through?: string }} Gap
 */

/** @typedef {{ user: string, info?: any }} Member */

/**
 * Who is in a room. Of more than 1,000 there is only the number.
 * @typedef {{ listed: Member[] | null, count: number }} Members
 */

/** @typedef {{ user: string, change: 'join' | 'leave', info?: any }} MemberChange */

/** @typedef {{ room?: string, from: string, kind: string, data: any }} Signal */

/**
 * The result of an event, as the application's processor wrote it; it may have other fields. There may be several of
 * one event, each with a `result_id` of its own.
 * @typedef {{ type: string, client_id: string, event_id: string, result_id?: string, status?: string,
 *   created_at?: string, data?: any }} EventResult
 */

/** @typedef {{ user: string, status: string, since: string | null, last_seen: string | null }} Presence */

/** @typedef {'disconnected' | 'connecting' | 'connected' | 'reconnecting' | 'failed'} State */

/**
 * `reason` is there when the change came from outside.
 * @typedef {{ previous: State, current: State, reason: import('./error.js').RoostError | null }} StateChange
 */

/** @typedef {{ messages: Message[], before?: string, older?: boolean, next?: string }} History */

/**
 * @typedef {object} JoinOptions
 * @property {boolean} [presence] be shown as a member, and be told of the others
 * @property {any} [info] with `presence`: what others are told of this member, at most 1,024 bytes of JSON
 * @property {Cursor} [cursor] the last message of the room that the application has; without it the room begins now
 */

/**
 * @typedef {object} CallOptions
 * @property {number} [timeoutMs] how long to wait for a connection and the answer (30 s)
 * @property {AbortSignal} [signal] ends the waiting; what was not written yet is withdrawn
 */

/**
 * Keeps the cursor of the inbox, so that the next client of this user shows it: `stream` is `user:<id>`. What `load`
 * gives that is no cursor is a failed try. `save` comes whenever the application has dealt with more; the next one waits
 * until its promise is done, and of several that wait only the last is called.
 * @typedef {{ load: (stream: string) => Cursor | null | undefined | Promise<Cursor | null | undefined>,
 *   save: (stream: string, cursor: Cursor) => unknown }} Cursors
 */

/**
 * The body of an error.
 * @typedef {{ code: string, message: string, retryable?: boolean, retry_after_ms?: number }} ErrorBody
 */

/** @typedef {{ room: string, cursor?: Cursor, presence?: boolean, info?: any }} RoomAt */

/**
 * What `welcome` says of the inbox and of each room, and the answer to `join`.
 * @typedef {{ cursor: Cursor, recovered: boolean, replayed?: number, through?: string,
 *   members?: Member[], member_count?: number }} Joined
 */

/**
 * A command. `lane`: those of one lane keep their order. `alone`: those after it wait for its answer.
 * @typedef {object} Command
 * @property {string} id
 * @property {string} lane
 * @property {string} [text] the frame, the same for every repeat; a join's is made when it is written
 * @property {boolean} [alone]
 * @property {boolean} [connect] no command: it is answered by `welcome`
 * @property {boolean} [result] the answer wanted is the result that comes into the inbox
 * @property {RoomAt} [join]
 * @property {string} [leave]
 * @property {string[]} [watch]
 * @property {string[]} [unwatch]
 */

/**
 * What a try to connect met. `token`: a fresh token may help. `fatal`: nothing does. `after`: not sooner, in ms.
 * @typedef {{ why: string, after?: number, token?: boolean, fatal?: import('./error.js').RoostError,
 *   closeCode?: number }} Trouble
 */

/** @typedef {{ url: string, epoch: number, connect_after_ms?: number }} Route */

/**
 * What happened: the name of the method of the core, or else of its link, that takes it, and its arguments. `conn`
 * names one try to connect, and the connection that comes of it.
 * @typedef {[name: 'start'] | [name: 'stop'] | [name: 'tick'] | [name: 'hurry']
 *   | [name: 'fail', why: import('./error.js').RoostError]
 *   | [name: 'met', why: string]
 *   | [name: 'command', command: Command, ticket: number, expires: number]
 *   | [name: 'abandon', ticket: number]
 *   | [name: 'signal', place: string, text: string]
 *   | [name: 'mark', type: 'ack' | 'read', cursor: Cursor]
 *   | [name: 'frame', conn: number, frame: any]
 *   | [name: 'token', conn: number, token: string]
 *   | [name: 'routed', conn: number, route: Route]
 *   | [name: 'opened', conn: number, token: string, cursor?: Cursor | null]
 *   | [name: 'trouble', conn: number, trouble: Trouble]
 *   | [name: 'broken', conn: number, why: string]
 *   | [name: 'closed', conn: number, code: number, reason: string]} Input
 */

/**
 * What to do about it: the name of the method of the carrier that does it, and its arguments.
 * - `route`: ask a coordinator; answered by `routed` or `trouble`
 * - `open`: get a token and open a socket; answered by `opened` or `trouble`
 * - `token`: get a fresh token; answered by `token`
 * - `slow`: say what is waited for; answered by `met`
 * - `offer`: write, unless the socket is behind
 * - `close`: close, or forget what is under way
 * - `tell`: the application; `ack` is what this acknowledges, `name` is empty for what was shown before, `settled` that
 *   a caller has this result
 * - `answer`: a caller
 * @typedef {[name: 'route', conn: number]
 *   | [name: 'open', conn: number, url: string, fresh: boolean]
 *   | [name: 'token', conn: number]
 *   | [name: 'write' | 'offer', conn: number, text: string]
 *   | [name: 'close' | 'slow', conn: number]
 *   | [name: 'tell', to: string, name: string, value: any, ack?: Cursor, settled?: boolean]
 *   | [name: 'answer', ticket: number, error: import('./error.js').RoostError | null, ok?: any]} Action
 */

export {};
