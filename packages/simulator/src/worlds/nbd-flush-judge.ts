import { NbdCommand, NbdCommandFlag, NbdErrno } from "@blocklayer/nbd-protocol";
import type { SeenRequest } from "./nbd-frames.ts";
import { CHANGES, type NbdWiretap, type Tapped } from "./nbd-wiretap.ts";

/**
 * Keeps account of what a client may promise, by what went over its connections alone: which changes were
 * acknowledged, and which of them a flush covers that was sent later and succeeded.
 *
 * @see spec/nbd.md section 8; docs/reliability.md section 3.2, NC-2
 */
export class NbdFlushJudge {
  /** A connection was lost with acknowledged changes that were not flushed: nobody can say what became of them. */
  isInDoubt: boolean = false;
  readonly #taps: readonly NbdWiretap[];
  /** What each flush that was sent covers. */
  readonly #coverage = new Map<SeenRequest, ReadonlySet<Tapped>>();

  /** @param taps - of the client's connections, more to come */
  constructor(taps: readonly NbdWiretap[]) {
    this.#taps = taps;
  }

  /** A flush is sent. */
  sent(flush: SeenRequest): void {
    this.#coverage.set(flush, new Set(this.#acknowledged()));
  }

  /** A connection is lost. */
  lost(): void {
    this.isInDoubt ||= this.unflushed > 0;
  }

  /** Acknowledged changes that no flush covers. */
  get unflushed(): number {
    const unflushed = new Set(this.#acknowledged());
    for (const tap of this.#taps) {
      for (const request of tap.requests) {
        const covered = this.#coverage.get(request);
        if (covered === undefined || !hasSucceeded(tap, request)) continue;
        for (const change of covered) unflushed.delete(change);
      }
    }
    return unflushed.size;
  }

  *#acknowledged(): Iterable<Tapped> {
    for (const tap of this.#taps) {
      for (const request of tap.requests) {
        const isStable = (request.flags & NbdCommandFlag.FUA) !== 0;
        if (CHANGES.has(request.type) && !isStable && hasSucceeded(tap, request)) yield request;
      }
    }
  }
}

/** Whether a request is a flush. */
export function isFlush({ type }: SeenRequest): boolean {
  return type === NbdCommand.FLUSH;
}

function hasSucceeded(tap: NbdWiretap, request: Tapped): boolean {
  return tap.isAnswered(request) && request.reply?.error === NbdErrno.SUCCESS;
}
