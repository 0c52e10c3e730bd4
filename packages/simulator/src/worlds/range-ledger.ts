import type { RangeMode } from "@blocklayer/range-lock";

/** A request as the ledger has it. */
export interface LedgerEntry {
  readonly client: string;
  readonly offset: number;
  length: number;
  readonly mode: RangeMode;
  /** Whether it takes its range; otherwise it only waits for the others. */
  readonly takes: boolean;
  state: "waiting" | "held" | "gone";
}

/**
 * Who holds what, and who waits, by the rule alone: a request waits for every conflicting one that was made before it
 * and takes its range, held or waiting, and for nobody else.
 */
export class RangeLedger {
  /** In the order in which they were made. */
  #entries: LedgerEntry[] = [];

  get held(): number {
    return this.#entries.filter(({ state }) => state === "held").length;
  }

  get waiting(): number {
    return this.#entries.filter(({ state }) => state === "waiting").length;
  }

  /** Enters a request. Returns it: it holds already when nothing is in its way. */
  request(entry: Omit<LedgerEntry, "state">): LedgerEntry {
    const made: LedgerEntry = { ...entry, state: "waiting" };
    this.#entries.push(made);
    this.#settle();
    return made;
  }

  /** Whether a request made now would have to wait. */
  wouldWait(entry: Omit<LedgerEntry, "state">): boolean {
    return this.#entries.some((earlier) => conflict(earlier, entry));
  }

  /** It gives its range back, or gives up. */
  remove(entry: LedgerEntry): void {
    entry.state = "gone";
    this.#settle();
  }

  shrink(entry: LedgerEntry, length: number): void {
    entry.length = length;
    this.#settle();
  }

  /** The others that hold a range which conflicts with this one. */
  rivals(entry: LedgerEntry): LedgerEntry[] {
    return this.#entries.filter(
      (other) =>
        other !== entry &&
        other.state === "held" &&
        (conflict(other, entry) || conflict(entry, other)),
    );
  }

  describe(): string[] {
    return this.#entries.map(
      ({ client, offset, length, mode, state }) =>
        `${client}: ${mode} ${offset}+${length} ${state}`,
    );
  }

  #settle(): void {
    this.#entries = this.#entries.filter(({ state }) => state !== "gone");
    for (const [index, entry] of this.#entries.entries()) {
      if (entry.state !== "waiting") continue;
      const earlier = this.#entries.slice(0, index);
      if (earlier.some((other) => other.state !== "gone" && conflict(other, entry))) continue;
      // Who only waits is gone the moment that nothing is in its way.
      entry.state = entry.takes ? "held" : "gone";
    }
    this.#entries = this.#entries.filter(({ state }) => state !== "gone");
  }
}

/** Whether `later` has to wait for `earlier`. */
function conflict(earlier: Omit<LedgerEntry, "state">, later: Omit<LedgerEntry, "state">): boolean {
  if (!earlier.takes) return false;
  if (earlier.mode === "shared" && later.mode === "shared") return false;
  const start = Math.max(earlier.offset, later.offset);
  const end = Math.min(earlier.offset + earlier.length, later.offset + later.length);
  return start < end;
}
