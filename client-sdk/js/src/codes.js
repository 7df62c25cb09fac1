// Made from crates/proto/src/codes.rs by `cargo test -p roost-tests --test codes`. Not to be edited.

/** no token, or one that is not accepted */
export const ERROR_UNAUTHORIZED = 'unauthorized';

/** the token does not allow this */
export const ERROR_FORBIDDEN = 'forbidden';

/** malformed, or a field out of its limits */
export const ERROR_BAD_REQUEST = 'bad_request';

/** larger than the limit */
export const ERROR_TOO_LARGE = 'too_large';

/** too many for now; repeat with the same id, earliest first */
export const ERROR_RATE_LIMITED = 'rate_limited';

/** no such thing */
export const ERROR_NOT_FOUND = 'not_found';

/** the id was used before with another body, or a later command overtook this one */
export const ERROR_CONFLICT = 'conflict';

/** not accepted; repeat with the same id */
export const ERROR_UNAVAILABLE = 'unavailable';

/** no answer within 20 s: it may have been accepted; repeat with the same id */
export const ERROR_UNKNOWN = 'unknown';

/** a bug in the server; repeat with the same id */
export const ERROR_INTERNAL = 'internal';

/** Error codes after which the same command under the same id may succeed. */
export const RETRYABLE = ['rate_limited', 'unavailable', 'unknown', 'internal'];

/** not the WebSocket protocol */
export const CLOSE_PROTOCOL = 1002;

/** a binary frame on a JSON connection */
export const CLOSE_BINARY = 1003;

/** text that is not UTF-8 */
export const CLOSE_NOT_UTF8 = 1007;

/** a message over the limit */
export const CLOSE_TOO_LARGE = 1009;

/** a bug in the server */
export const CLOSE_BUG = 1011;

/** the server restarts */
export const CLOSE_RESTART = 1012;

/** overloaded, or no part of the cluster can answer now */
export const CLOSE_OVERLOAD = 1013;

/** the user's home is elsewhere */
export const CLOSE_MOVED = 3000;

/** this node is being stopped */
export const CLOSE_DRAINING = 3001;

/** no answer to a ping in time */
export const CLOSE_NO_PONG = 3002;

/** this node is cut off and cannot say where home is */
export const CLOSE_LEASE_LOST = 3003;

/** too slow even for a replay: what was missed left the hot window */
export const CLOSE_TOO_SLOW = 3004;

/** the token is not accepted */
export const CLOSE_BAD_TOKEN = 3500;

/** the token expired and was not refreshed */
export const CLOSE_TOKEN_EXPIRED = 3501;

/** no connect frame in time */
export const CLOSE_NO_CONNECT = 3502;

/** disconnected by the server API */
export const CLOSE_DISCONNECTED = 3503;

/** the user has too many sessions */
export const CLOSE_TOO_MANY_SESSIONS = 3504;

/** the origin is not allowed */
export const CLOSE_FORBIDDEN_ORIGIN = 3505;

/** too many malformed frames */
export const CLOSE_BAD_FRAMES = 3506;

/**
 * Whether a client that was closed with `code` connects again, through `/route`, with jitter.
 * @param {number} code
 */
export const reconnects = (code) => ![1002, 1003, 1007, 1009].includes(code) && (code < 3500 || code > 3999);
