/** What a {@link DelayHistogram} tells; times in milliseconds. */
export interface DelaySnapshot {
  /** Writes, those that were not delayed included. */
  readonly count: number;
  readonly sumMs: number;
  /** Half of the writes were delayed by no more than this; at most a fifth too high. */
  readonly p50Ms: number;
  /** The same for 99 of 100. */
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Buckets for each doubling of the time: the upper end of a bucket is 2^(1/4) of its lower one. */
const PER_DOUBLING = 4;
/** From 1 µs up to 2^42 µs, about fifty days. */
const BUCKETS = 42 * PER_DOUBLING + 1;

/**
 * Counts how long writes were delayed, in buckets that grow with the time. Recording allocates nothing; a write
 * that was not delayed is one addition, and nobody reads a clock for it.
 */
export class DelayHistogram {
  readonly #buckets = new Float64Array(BUCKETS);
  #undelayed = 0;
  #delayed = 0;
  #sumMs = 0;
  #maxMs = 0;

  /** Counts a write that waited for nothing. */
  recordUndelayed(): void {
    this.#undelayed += 1;
  }

  /** @param delayMs - milliseconds; 0 and less count as not delayed */
  record(delayMs: number): void {
    if (!(delayMs > 0)) {
      this.#undelayed += 1;
      return;
    }
    const index = bucketOf(delayMs);
    this.#buckets[index] = (this.#buckets[index] ?? 0) + 1;
    this.#delayed += 1;
    this.#sumMs += delayMs;
    if (delayMs > this.#maxMs) this.#maxMs = delayMs;
  }

  /** Forgets everything. */
  clear(): void {
    this.#buckets.fill(0);
    this.#undelayed = 0;
    this.#delayed = 0;
    this.#sumMs = 0;
    this.#maxMs = 0;
  }

  snapshot(): DelaySnapshot {
    return {
      count: this.#undelayed + this.#delayed,
      sumMs: this.#sumMs,
      p50Ms: this.#percentile(50),
      p99Ms: this.#percentile(99),
      maxMs: this.#maxMs,
    };
  }

  #percentile(percent: number): number {
    const rank = Math.ceil(((this.#undelayed + this.#delayed) * percent) / 100);
    let counted = this.#undelayed;
    for (let index = 0; counted < rank && index < BUCKETS; index += 1) {
      counted += this.#buckets[index] ?? 0;
      if (counted >= rank) return Math.min(endOf(index), this.#maxMs);
    }
    return 0;
  }
}

function bucketOf(delayMs: number): number {
  const index = Math.ceil(Math.log2(delayMs * 1000) * PER_DOUBLING);
  return Math.max(0, Math.min(index, BUCKETS - 1));
}

/** The longest time of a bucket, in milliseconds. */
function endOf(index: number): number {
  return 2 ** (index / PER_DOUBLING) / 1000;
}
