/** Clusters of a page. */
const PAGE = 2 ** 15;

/** A set of cluster numbers: dense where they are, nothing where they are not. 4 KiB for each 32,768 clusters in use. */
export class ClusterSet {
  readonly #pages = new Map<number, Uint32Array>();

  has(cluster: number): boolean {
    const page = this.#pages.get(Math.floor(cluster / PAGE));
    if (page === undefined) return false;
    const bit = cluster % PAGE;
    return (((page[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;
  }

  add(cluster: number): void {
    const number = Math.floor(cluster / PAGE);
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = new Uint32Array(PAGE / 32);
      this.#pages.set(number, page);
    }
    const bit = cluster % PAGE;
    page[bit >>> 5] = (page[bit >>> 5] ?? 0) | (1 << (bit & 31));
  }

  delete(cluster: number): void {
    const page = this.#pages.get(Math.floor(cluster / PAGE));
    if (page === undefined) return;
    const bit = cluster % PAGE;
    page[bit >>> 5] = (page[bit >>> 5] ?? 0) & ~(1 << (bit & 31));
  }

  clear(): void {
    this.#pages.clear();
  }
}
