/** Clusters of a page. */
const PAGE = 2 ** 15;
/** A count from here on is kept beside the pages. */
const LARGE = 255;

/**
 * How often each host cluster of a window is referenced: a byte for each cluster, in pages of 32 KiB that are
 * there only where something is referenced. A window of 2^26 clusters takes 64 MiB at most, whatever an image says.
 */
export class ClusterCounts {
  /** Number of the first cluster of the window. */
  readonly first: number;
  /** Number of the cluster behind the window. */
  readonly end: number;
  readonly #pages: (Uint8Array | undefined)[] = [];
  /** Counts of {@link LARGE} and more, by cluster: each took as many references, so they are few. */
  readonly #large = new Map<number, number>();

  constructor(first: number, end: number) {
    this.first = first;
    this.end = end;
  }

  /** References to a cluster of the window. */
  get(cluster: number): number {
    const at = cluster - this.first;
    const page = this.#pages[Math.floor(at / PAGE)];
    if (page === undefined) return 0;
    const count = page[at % PAGE] as number;
    return count === LARGE ? (this.#large.get(cluster) ?? LARGE) : count;
  }

  /** Adds references to a cluster of the window. */
  add(cluster: number, times: number): void {
    const at = cluster - this.first;
    const number = Math.floor(at / PAGE);
    let page = this.#pages[number];
    if (page === undefined) {
      page = new Uint8Array(PAGE);
      this.#pages[number] = page;
    }
    const count = this.get(cluster) + times;
    page[at % PAGE] = Math.min(count, LARGE);
    if (count >= LARGE) this.#large.set(cluster, count);
  }

  /** Whether anything in a range of clusters is referenced. */
  holds(from: number, to: number): boolean {
    if (!this.mayHold(from, to)) return false;
    const end = Math.min(to, this.end);
    for (let cluster = from; cluster < end; cluster += 1) if (this.get(cluster) > 0) return true;
    return false;
  }

  /** Whether anything in a range of clusters may be referenced; cheap, and never wrongly `false`. */
  mayHold(from: number, to: number): boolean {
    const start = Math.floor((Math.max(from, this.first) - this.first) / PAGE);
    const end = Math.ceil((Math.min(to, this.end) - this.first) / PAGE);
    for (let number = start; number < end; number += 1) {
      if (this.#pages[number] !== undefined) return true;
    }
    return false;
  }
}
