//! The limits of the protocol, with their defaults (`docs/PROTOCOL.md`, limits).

/// Largest frame and message, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Sends of one session that may be unanswered.
pub const UNANSWERED_MAX: usize = 256;
/// Commands per second a session may sustain, and the burst on top.
pub const COMMANDS_PER_S: u32 = 50;
/// See [`COMMANDS_PER_S`].
pub const COMMANDS_BURST: u32 = 200;
/// Sessions one user may have at once.
pub const SESSIONS_PER_USER_MAX: usize = 16;
/// Rooms one session may be in.
pub const ROOMS_PER_SESSION_MAX: usize = 200;
/// Users one session may watch.
pub const WATCHED_PER_SESSION_MAX: usize = 1000;
/// Signals per second a session may sustain, and the burst on top; more are dropped.
pub const SIGNALS_PER_S: u32 = 60;
/// See [`SIGNALS_PER_S`].
pub const SIGNALS_BURST: u32 = 120;
/// Largest `info` of a member, in bytes: a thousand of them fit into one answer.
pub const INFO_BYTES_MAX: usize = 1024;
/// Longest `kind` of a signal, in bytes.
pub const KIND_BYTES_MAX: usize = 64;
/// Bytes of members in one frame, about; of more it gives the number: clients commonly read frames of up to 1 MiB.
pub const MEMBERS_BYTES_MAX: usize = 256 * 1024;
/// Bytes of results in one record between nodes, about: below the largest record that Kafka takes by default.
pub const RESULTS_BYTES_MAX: usize = 512 * 1024;
/// Members that an answer lists; of more it gives the number.
pub const MEMBERS_LISTED_MAX: usize = 1000;
/// Time for the HTTP handshake, and for `connect` after it, in milliseconds.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// See [`HANDSHAKE_TIMEOUT_MS`].
pub const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// Request headers: bytes in all, and how many.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// See [`HEADER_BYTES_MAX`].
pub const HEADERS_MAX: usize = 64;
/// Time between pings, and for the answer to one, in milliseconds.
pub const PING_INTERVAL_MS: u64 = 25_000;
/// See [`PING_INTERVAL_MS`].
pub const PONG_TIMEOUT_MS: u64 = 10_000;
/// Nesting of arrays and objects in a frame.
pub const JSON_DEPTH_MAX: usize = 32;
/// Malformed frames in one minute before the connection is closed with 3506.
pub const BAD_FRAMES_PER_MIN_MAX: usize = 10;
/// Without an answer for this long a command is answered `unknown`, in milliseconds.
pub const UNKNOWN_AFTER_MS: u64 = 20_000;
/// Beats and renewals in a lease (core rule 23). Who plainly died is replaced after two missed ones, so the pace of
/// beats, not the lease, decides how soon.
pub const BEATS_PER_LEASE: u64 = 12;
/// Users in one `/presence` request.
pub const PRESENCE_USERS_MAX: usize = 500;
/// How long an id is known, in milliseconds: a repeat within it gets the same answer (promise P4).
pub const DEDUP_WINDOW_MS: u64 = 15 * 60_000;
/// An unconfirmed item nobody asks for any more becomes a void after this long (core rule 6).
pub const VOID_AFTER_MS: u64 = 5 * 60_000;
/// `message.timeout.ms` of the transport producer at most (core rule 6).
pub const TRANSPORT_TIMEOUT_MS: u64 = 60_000;
/// How long the store keeps an id: the window, and the longest a first copy may travel (core rule 11).
pub const IDS_KEPT_MS: u64 = DEDUP_WINDOW_MS + VOID_AFTER_MS + TRANSPORT_TIMEOUT_MS;
/// A session is told this long before its token ends, in milliseconds: time to get a fresh one, twice.
pub const TOKEN_EXPIRING_MS: u64 = 60_000;
/// Refreshes of one session that are looked at, per second and in a burst: a check of a signature costs more than
/// any other frame, and a token lives for minutes.
pub const REFRESHES_PER_S: u32 = 1;
/// See [`REFRESHES_PER_S`].
pub const REFRESHES_BURST: u32 = 5;
/// Messages in one page of `history`, when nothing is said and at most.
pub const HISTORY_DEFAULT: usize = 50;
/// See [`HISTORY_DEFAULT`].
pub const HISTORY_MAX: usize = 100;
/// The most of one page of the archive, of messages or of changes of a status.
pub const ARCHIVE_PAGE_MAX: usize = 500;
/// Commands in one `/api/batch`.
pub const BATCH_COMMANDS_MAX: usize = 100;
/// The body of one `/api/batch`, in bytes: sixteen of the largest messages, or a hundred of 10 KiB.
pub const BATCH_BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;
/// What the server API may give as the reason of a disconnect, in bytes: with the code it fits a close frame
/// (RFC 6455 §5.5 leaves 123).
pub const REASON_BYTES_MAX: usize = 120;
