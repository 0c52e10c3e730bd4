import { NbdCommand } from "@blocklayer/nbd-protocol";
import type { ClientRequest } from "./client-request.ts";

/**
 * Keeps account of changes that were acknowledged and may not be stable, across connections.
 *
 * A flush covers what was answered on *its* connection. After a loss, changes that were acknowledged before and not
 * flushed are in doubt: the server may have been restarted without them, and a flush on the new connection would
 * succeed and say nothing about them. Only a server that promises that a flush covers every connection
 * (CAN_MULTI_CONN) takes the doubt away. Else no flush may succeed any more.
 *
 * @see spec/nbd.md section 8; docs/reliability.md section 3.2, RQ-6
 */
export class DurabilityLedger {
  /** Changes that were acknowledged without being stable. */
  #acknowledged: number = 0;
  /** How many of them a successful flush has covered. */
  #covered: number = 0;
  #doubtful: number = 0;

  /** Acknowledged changes that no flush has covered. */
  get unflushed(): number {
    return this.#acknowledged - this.#covered;
  }

  /** Acknowledged changes that no flush can vouch for any more. */
  get doubtful(): number {
    return this.#doubtful;
  }

  /** Notes, before it is sent, what a flush will cover. */
  beginFlush(request: ClientRequest): void {
    request.coverage = this.#acknowledged;
  }

  /** Notes a success. */
  answered(request: ClientRequest): void {
    if (request.isChange && !request.isStable) this.#acknowledged += 1;
    if (request.command === NbdCommand.FLUSH) {
      this.#covered = Math.max(this.#covered, request.coverage);
    }
  }

  /** Notes that the connection is lost. @param isCovered - a flush on another connection covers this one's changes */
  lost(isCovered: boolean): void {
    if (!isCovered) this.#doubtful = Math.max(this.#doubtful, this.unflushed);
  }
}
