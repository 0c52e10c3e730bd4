/** A run of dirty groups: `first` and all below `end`. */
export interface Run {
  readonly first: number;
  readonly end: number;
}

/**
 * What a bitmap is to hold, as a sorted list of runs that do not touch: a model with no words, levels or counters.
 *
 * All numbers are groups.
 */
export class DirtyRuns {
  #runs: readonly Run[];

  constructor(runs: readonly Run[] = []) {
    this.#runs = runs;
  }

  /** Ascending; a group lies between two of them at least. */
  get runs(): readonly Run[] {
    return this.#runs;
  }

  clone(): DirtyRuns {
    return new DirtyRuns(this.#runs);
  }

  /** Makes `[first, end)` dirty; returns whether anything was clean. */
  set(first: number, end: number): boolean {
    if (first >= end) return false;
    const before = this.count(first, end);
    const touching = this.#runs.filter((run) => run.end >= first && run.first <= end);
    const whole = {
      first: Math.min(first, touching[0]?.first ?? first),
      end: Math.max(end, touching.at(-1)?.end ?? end),
    };
    this.#runs = [
      ...this.#runs.filter((run) => run.end < first),
      whole,
      ...this.#runs.filter((run) => run.first > end),
    ];
    return before < end - first;
  }

  /** Makes `[first, end)` clean; returns whether anything was dirty. */
  clear(first: number, end: number): boolean {
    const before = this.count(first, end);
    if (before === 0) return false;
    this.#runs = this.#runs.flatMap((run) => {
      const left = { first: run.first, end: Math.min(run.end, first) };
      const right = { first: Math.max(run.first, end), end: run.end };
      return [left, right].filter((rest) => rest.first < rest.end);
    });
    return true;
  }

  has(group: number): boolean {
    return this.#runs.some((run) => run.first <= group && group < run.end);
  }

  /** Returns the first dirty group that is not below `from`, or -1. */
  nextDirty(from: number): number {
    const run = this.#runs.find(({ end }) => end > from);
    return run === undefined ? -1 : Math.max(run.first, from);
  }

  /** Returns the first clean group that is not below `from`; there always is one, be it behind the end. */
  nextClean(from: number): number {
    const run = this.#runs.find(({ first, end }) => first <= from && from < end);
    return run === undefined ? from : run.end;
  }

  /** Returns how many groups of `[first, end)` are dirty. */
  count(first = 0, end: number = Number.POSITIVE_INFINITY): number {
    let total = 0;
    for (const run of this.#runs) {
      total += Math.max(0, Math.min(run.end, end) - Math.max(run.first, first));
    }
    return total;
  }

  /** Returns the groups `[first, end)` as the serialised form has them, in words of 64 bits; `first` begins a word. */
  bytes(first: number, end: number): Uint8Array {
    const bytes = new Uint8Array(Math.ceil((end - first) / 64) * 8);
    for (const run of this.#runs) {
      const last = Math.min(run.end, end) - first;
      for (let bit = Math.max(0, run.first - first); bit < last; ) {
        const index = Math.floor(bit / 8);
        const isWhole = bit === index * 8 && bit + 8 <= last;
        bytes[index] = isWhole ? 0xff : (bytes[index] ?? 0) | (1 << (bit - index * 8));
        bit += isWhole ? 8 : 1;
      }
    }
    return bytes;
  }

  /** Makes `[first, end)` what the serialised bytes say. */
  load(bytes: Uint8Array, first: number, end: number): void {
    this.clear(first, end);
    let start = -1;
    for (let bit = first; bit <= end; bit += 1) {
      const place = bit - first;
      const byte = bytes[Math.floor(place / 8)] ?? 0;
      const isDirty = bit < end && ((byte >> (place % 8)) & 1) === 1;
      if (isDirty && start < 0) start = bit;
      if (isDirty || start < 0) continue;
      this.set(start, bit);
      start = -1;
    }
  }
}
