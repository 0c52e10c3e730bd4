/** A change of content or length that is in the cache: stable only after a flush that began when it was acknowledged. */
export interface CachedChange {
  readonly offset: number;
  readonly length: number;
  acknowledged: boolean;
  /** A flush has failed to write it and forgotten it: later ones do not cover it either. */
  isDropped: boolean;
}

interface SectorVersion {
  readonly change: CachedChange;
  readonly bytes: Uint8Array;
}

interface SizeVersion {
  readonly change: CachedChange;
  readonly size: number;
  /** A change of length by itself, not by a write beyond the end. */
  readonly isTruncation: boolean;
}

/** How a crash left one sector. */
export interface SectorChoice {
  readonly sector: number;
  /** Versions to choose from: 0 is what is stable, the last one the newest. */
  readonly versionCount: number;
}

/**
 * What a disk shows, what of it is stable, and, sector by sector, every version in between: after a crash each
 * sector is any of them.
 *
 * Changes of length become stable in their order, as in the journal of a file system. One that is stable rules out what
 * it has cut off: what grows later reads as zeroes, never as old content.
 */
export class VolatileCache {
  readonly sectorSize: number;
  /** The content as reads see it, a view of as many bytes as the disk has. */
  #visible: Uint8Array;
  /** Whole sectors; zeroes beyond the end. */
  #image: Uint8Array;
  /** As long as the image. */
  #stable: Uint8Array;
  #stableSize: number;
  readonly #changes = new Set<CachedChange>();
  readonly #versions = new Map<number, SectorVersion[]>();
  /** Changes of length that are not stable, oldest first. */
  readonly #sizes: SizeVersion[] = [];

  /**
   * @param size - bytes
   * @param sectorSize - bytes: what the disk writes as one
   */
  constructor(size: number, sectorSize: number) {
    this.sectorSize = sectorSize;
    const capacity = Math.ceil(size / sectorSize) * sectorSize;
    this.#image = new Uint8Array(capacity);
    this.#stable = new Uint8Array(capacity);
    this.#stableSize = size;
    this.#visible = this.#image.subarray(0, size);
  }

  /** The content as reads see it. Another object after a change of length. */
  get visible(): Uint8Array {
    return this.#visible;
  }

  /** Bytes. */
  get size(): number {
    return this.#visible.length;
  }

  /** Sectors that are not stable yet. */
  get dirtySectors(): number {
    return this.#versions.size;
  }

  /** Whether a crash would change nothing. */
  get isStable(): boolean {
    return this.#versions.size === 0 && this.#sizes.length === 0;
  }

  /** Lengths that the disk may have after a crash: the stable one, then by age. */
  get possibleSizes(): number[] {
    return [this.#stableSize, ...this.#sizes.map(({ size }) => size)];
  }

  /** Puts content in place, stable at once. */
  format(content: Uint8Array): void {
    this.#image.set(content);
    this.#stable.set(content);
  }

  /** Changes what is visible. Beyond the end the disk becomes longer. */
  write(offset: number, bytes: Uint8Array): CachedChange {
    const end = offset + bytes.length;
    const change = this.#begin(offset, bytes.length);
    if (end > this.size) {
      this.#resize(end);
      this.#sizes.push({ change, size: end, isTruncation: false });
    }
    this.#image.set(bytes, offset);
    this.#keep(change);
    return change;
  }

  /** Changes the length. What is new reads as zeroes. */
  truncate(size: number): CachedChange {
    const oldSize = this.size;
    const change = this.#begin(Math.min(size, oldSize), Math.abs(size - oldSize));
    if (size === oldSize) return change;
    if (size < oldSize) {
      this.#image.fill(0, size, oldSize);
      this.#keep(change);
    }
    this.#resize(size);
    this.#sizes.push({ change, size, isTruncation: true });
    return change;
  }

  /** Returns the changes that a flush that begins now covers: those that are acknowledged. */
  covered(): ReadonlySet<CachedChange> {
    return new Set(
      [...this.#changes].filter(({ acknowledged, isDropped }) => acknowledged && !isDropped),
    );
  }

  /** Makes changes stable, and what they have overwritten gone. Whatever length they need becomes stable with them. */
  stabilise(changes: ReadonlySet<CachedChange>): void {
    this.#settleSizes(this.#neededSizes(changes));
    this.#settleSectors(changes);
    for (const change of changes) this.#changes.delete(change);
  }

  /** The sectors that a crash decides about, in order. */
  undecided(): SectorChoice[] {
    return [...this.#versions]
      .map(([sector, versions]) => ({ sector, versionCount: versions.length + 1 }))
      .filter(({ sector }) => sector * this.sectorSize < this.size)
      .sort((one, two) => one.sector - two.sector);
  }

  /** Returns a version of a sector, 0 for the stable one. */
  version(sector: number, index: number): Uint8Array {
    const versions = this.#versions.get(sector) ?? [];
    const at = sector * this.sectorSize;
    return versions[index - 1]?.bytes ?? this.#stable.slice(at, at + this.sectorSize);
  }

  /** A crash begins: the length is this one of {@link possibleSizes}. */
  loseSize(index: number): void {
    this.#settleSizes(index);
    this.#sizes.length = 0;
    this.#resize(this.#stableSize);
  }

  /** The power is gone: these sectors are what is given, all others what is stable; nothing is cached any more. */
  lose(outcome: ReadonlyMap<number, Uint8Array>): void {
    this.loseSize(0);
    for (const [sector, bytes] of outcome) this.#stable.set(bytes, sector * this.sectorSize);
    this.#stable.fill(0, this.size);
    this.#image.set(this.#stable);
    this.#versions.clear();
    this.#changes.clear();
  }

  #begin(offset: number, length: number): CachedChange {
    const change: CachedChange = { offset, length, acknowledged: false, isDropped: false };
    this.#changes.add(change);
    return change;
  }

  /** Keeps the sectors of a change as it made them. */
  #keep(change: CachedChange): void {
    const { sectorSize } = this;
    const first = Math.floor(change.offset / sectorSize);
    const end = Math.ceil((change.offset + change.length) / sectorSize);
    const image = this.#image.slice(first * sectorSize, end * sectorSize);
    for (let sector = first; sector < end; sector += 1) {
      const at = (sector - first) * sectorSize;
      const version: SectorVersion = { change, bytes: image.subarray(at, at + sectorSize) };
      const versions = this.#versions.get(sector);
      if (versions === undefined) this.#versions.set(sector, [version]);
      else versions.push(version);
    }
  }

  #resize(size: number): void {
    if (size > this.#image.length) {
      const capacity = Math.ceil(size / this.sectorSize) * this.sectorSize;
      this.#image = grown(this.#image, capacity);
      this.#stable = grown(this.#stable, capacity);
    }
    this.#visible = this.#image.subarray(0, size);
  }

  /** Returns how many changes of length these changes take along: up to the last of theirs, all if they would be cut. */
  #neededSizes(changes: ReadonlySet<CachedChange>): number {
    if (this.#sizes.length === 0) return 0;
    const shortest = Math.min(...this.possibleSizes);
    const isCut = [...changes].some(({ offset, length }) => offset + length > shortest);
    if (isCut) return this.#sizes.length;
    return this.#sizes.findLastIndex(({ change }) => changes.has(change)) + 1;
  }

  /** Makes the oldest changes of length stable. */
  #settleSizes(count: number): void {
    const settled = this.#sizes.splice(0, count);
    const last = settled.at(-1);
    if (last === undefined) return;
    this.#stableSize = last.size;
    const truncations = settled.filter(({ isTruncation }) => isTruncation);
    const changes = new Set(truncations.map(({ change }) => change));
    this.#settleSectors(changes);
    for (const change of changes) this.#changes.delete(change);
  }

  #settleSectors(changes: ReadonlySet<CachedChange>): void {
    for (const [sector, versions] of this.#versions) {
      const last = versions.findLastIndex(({ change }) => changes.has(change));
      if (last < 0) continue;
      this.#stable.set((versions[last] as SectorVersion).bytes, sector * this.sectorSize);
      if (last + 1 === versions.length) this.#versions.delete(sector);
      else versions.splice(0, last + 1);
    }
  }
}

function grown(bytes: Uint8Array, length: number): Uint8Array {
  const longer = new Uint8Array(length);
  longer.set(bytes);
  return longer;
}
