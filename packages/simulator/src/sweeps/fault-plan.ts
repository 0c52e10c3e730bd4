import { BlockError } from "@blocklayer/errors";

/** What a disk is asked to do, and what can fail. */
export type SweptOperation =
  | "open"
  | "close"
  | "reopen"
  | "permissions"
  | "info"
  | "read"
  | "write"
  | "zeroes"
  | "discard"
  | "flush"
  | "status"
  | "truncate"
  | "copy range"
  | "inactivate"
  | "activate"
  | "bitmap list"
  | "bitmap load"
  | "bitmap check"
  | "bitmap store"
  | "bitmap remove"
  | "bitmap in use";

/** Which operation of which disk fails, and how. */
export interface Fault {
  readonly disk: string;
  readonly operation: SweptOperation;
  /** The first one that fails, from 1. */
  readonly nth: number;
  /** Whether all that follow fail too, until the disk is healed. */
  readonly isPersistent: boolean;
  readonly code: "EIO" | "ENOSPC";
}

/** Counts what disks are asked for, and makes the chosen operations fail. */
export class FaultPlan {
  /** Operations asked for while {@link arm}ed, by `disk operation`. */
  readonly counts: Map<string, number> = new Map();
  /** The errors that were given out. */
  readonly injected: BlockError[] = [];
  readonly #fault: Fault | undefined;
  #isArmed: boolean = false;

  /** @param fault - none: only counts */
  constructor(fault?: Fault) {
    this.#fault = fault;
  }

  /** From here on operations count and fail. */
  arm(): void {
    this.#isArmed = true;
  }

  /** Nothing fails any more. */
  heal(): void {
    this.#isArmed = false;
  }

  /** Returns the error with which an operation fails, `undefined` when it does not. */
  strike(disk: string, operation: SweptOperation, detail: object = {}): BlockError | undefined {
    if (!this.#isArmed) return undefined;
    const key = `${disk} ${operation}`;
    const count = (this.counts.get(key) ?? 0) + 1;
    this.counts.set(key, count);
    const fault = this.#fault;
    if (fault?.disk !== disk || fault.operation !== operation) return undefined;
    if (count !== fault.nth && !(fault.isPersistent && count > fault.nth)) return undefined;
    const context = { disk, operation, ...detail };
    const error = new BlockError(fault.code, `injected failure of ${key} ${count}`, context);
    this.injected.push(error);
    return error;
  }

  /** Whether an error is one that was given out, or was made of one. */
  explains(error: unknown): boolean {
    for (let at = error; at !== undefined; at = causeOf(at)) {
      if (this.injected.some((one) => one === at)) return true;
      if (at instanceof AggregateError && at.errors.some((one) => this.explains(one))) return true;
    }
    return false;
  }
}

function causeOf(error: unknown): unknown {
  return error instanceof Error ? error.cause : undefined;
}
