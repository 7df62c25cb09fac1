/**
 * Why something was not done. `code` is one of the server's (`@roost/client/codes`) or
 *
 * - `not_sent`: there was no connection in time (`message` says what the last try met); it will not be sent
 * - `unknown`: it was sent and no final answer came in time: it may have been accepted. While the client lives it
 *   goes on repeating it; calling again with the same `id`, receiver and data waits for the answer again
 * - `timeout`: the event is stored, and the cluster says that its processor gave no result in time. One that comes
 *   later is a message of the inbox
 * - `no_result`: the event is stored, and neither a result nor `timeout` came for as long as the caller waited
 * - `queue_full`: as many calls as may wait are waiting; nothing was kept of this one
 * - `conflict`: the `id` is waiting for its answer with another body
 * - `too_many`: a client is in at most 200 rooms
 * - `left`: of a join, the room was left before the answer
 * - `closed`: the client was disconnected, or failed for the reason that is the `cause`; `sent` says whether the
 *   command may have been accepted
 * - `connection`: of an `error`, or of a state change: what a try met, why a connection was lost, or that a fresh token
 *   was not given or a cursor not kept
 * - `bad_options`: what the client was made with, or where, lets it not connect; `message` says what is missing or wrong
 * - `stopped`: the server closed with a code (`closeCode`) that means "do not come back"
 * - `other_user`: the token is another user's
 */
export class RoostError extends Error {
  /**
   * @param {string} code
   * @param {string} [message]
   * @param {{ id?: string, sent?: boolean, closeCode?: number, cause?: unknown }} [more]
   */
  constructor(code, message = code, { id, sent = false, closeCode, cause } = {}) {
    super(message, { cause });
    this.name = 'RoostError';
    this.code = code;
    /** The id of the command, to repeat it under. */
    this.id = id;
    /** Whether it may have been accepted. */
    this.sent = sent;
    this.closeCode = closeCode;
  }
}
