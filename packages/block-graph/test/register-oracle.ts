/** A change of units, from when it was asked for to when its result was known. */
interface Change {
  readonly from: number;
  readonly to: number;
  readonly value: number;
  readonly startedAt: number;
  endedAt: number;
  /** `false` when it is not known to have happened: it failed, or was advice. */
  isCertain: boolean;
}

/** A change whose result is not known yet. */
export interface OpenChange {
  end(isCertain: boolean): void;
}

/**
 * Knows what may be read: every unit of a disk is a register. A read sees the last change that ended before it
 * began, or any change that was under way with that one or with the read.
 */
export class RegisterOracle {
  readonly #changes: Change[];
  #now = 0;

  constructor(unitCount: number) {
    this.#changes = [
      { from: 0, to: unitCount, value: 0, startedAt: -2, endedAt: -1, isCertain: true },
    ];
  }

  /** A moment, for {@link allowed}. */
  now(): number {
    this.#now += 1;
    return this.#now;
  }

  /** Notes that units `[from, to)` are being set to `value`. */
  begin(from: number, to: number, value: number): OpenChange {
    const change = {
      from,
      to,
      value,
      startedAt: this.now(),
      endedAt: Number.POSITIVE_INFINITY,
      isCertain: false,
    };
    this.#changes.push(change);
    return {
      end: (isCertain) => {
        change.endedAt = this.now();
        change.isCertain = isCertain;
      },
    };
  }

  /** The values that a read of `unit` may return that began at `startedAt` and has just ended. */
  allowed(unit: number, startedAt: number): Set<number> {
    const here = this.#changes.filter(({ from, to }) => unit >= from && unit < to);
    const isReplaced = (change: Change): boolean =>
      here.some(
        (later) => later.isCertain && later.startedAt > change.endedAt && later.endedAt < startedAt,
      );
    return new Set(here.filter((change) => !isReplaced(change)).map(({ value }) => value));
  }
}
