interface Entry {
  readonly size: number;
  readonly startedAt: number;
  /** Infinity while it runs. */
  endedAt: number;
  succeeded: boolean;
  isStable: boolean;
}

/** A change of length on its way. */
export interface SizeChange {
  readonly size: number;
}

/**
 * Judges the length of a disk as a register, by real-time order alone: a length is allowed unless another one that began
 * after its end has itself ended, well and before the look. After a crash only what a flush covered rules others out.
 */
export class SizeOracle {
  #entries: Entry[];
  #tick = 1;

  /** @param size - bytes; stable */
  constructor(size: number) {
    this.#entries = [stableEntry(size, 0)];
  }

  begin(size: number): SizeChange {
    const entry: Entry = {
      size,
      startedAt: this.#now(),
      endedAt: Number.POSITIVE_INFINITY,
      succeeded: false,
      isStable: false,
    };
    this.#entries.push(entry);
    return entry;
  }

  end(change: SizeChange, succeeded: boolean): void {
    const entry = change as Entry;
    entry.endedAt = this.#now();
    entry.succeeded = succeeded;
  }

  /** A flush begins. Call what this returns when it has succeeded. */
  beginFlush(): () => void {
    const covered = this.#entries.filter(({ succeeded }) => succeeded);
    return () => {
      for (const entry of covered) entry.isStable = true;
    };
  }

  /** Returns what is wrong with a length that is seen now, `undefined` when nothing is. */
  check(size: number): string | undefined {
    return this.#problem(size, false);
  }

  /** Judges the length after a crash, and takes it as the length from here on. */
  recover(size: number): string | undefined {
    const problem = this.#problem(size, true);
    this.#entries = [stableEntry(size, this.#now())];
    return problem;
  }

  #problem(size: number, isCrash: boolean): string | undefined {
    const now = this.#now();
    const rulesOut = (entry: Entry, later: Entry): boolean =>
      later.startedAt > entry.endedAt &&
      later.endedAt < now &&
      later.succeeded &&
      (!isCrash || later.isStable);
    const isAllowed = this.#entries.some(
      (entry) => entry.size === size && !this.#entries.some((later) => rulesOut(entry, later)),
    );
    if (isAllowed) return undefined;
    const known = this.#entries.map((entry) => `${entry.size} (${outcomeOf(entry)})`).join(", ");
    return `${size} bytes long ${isCrash ? "after a crash" : "now"}, after ${known}`;
  }

  #now(): number {
    this.#tick += 1;
    return this.#tick;
  }
}

function stableEntry(size: number, endedAt: number): Entry {
  return { size, startedAt: 0, endedAt, succeeded: true, isStable: true };
}

function outcomeOf({ succeeded, isStable }: Entry): string {
  if (!succeeded) return "not ended well";
  return isStable ? "stable" : "ended";
}
