/** A change of content that is in the cache: stable only after a flush that began when it was acknowledged. */
export interface CachedChange {
  readonly offset: number;
  readonly length: number;
  acknowledged: boolean;
}

interface SectorVersion {
  readonly change: CachedChange;
  readonly bytes: Uint8Array;
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
 */
export class VolatileCache {
  /** The content as reads see it. */
  readonly visible: Uint8Array;
  readonly sectorSize: number;
  readonly #stable: Uint8Array;
  readonly #changes = new Set<CachedChange>();
  readonly #versions = new Map<number, SectorVersion[]>();

  /**
   * @param size - bytes, a multiple of the sector size
   * @param sectorSize - bytes: what the disk writes as one
   */
  constructor(size: number, sectorSize: number) {
    this.sectorSize = sectorSize;
    this.visible = new Uint8Array(size);
    this.#stable = new Uint8Array(size);
  }

  /** Sectors that are not stable yet. */
  get dirtySectors(): number {
    return this.#versions.size;
  }

  /** Puts content in place, stable at once. */
  format(content: Uint8Array): void {
    this.visible.set(content);
    this.#stable.set(content);
  }

  /** Changes what is visible. */
  write(offset: number, bytes: Uint8Array): CachedChange {
    const change: CachedChange = { offset, length: bytes.length, acknowledged: false };
    this.visible.set(bytes, offset);
    this.#changes.add(change);
    const { sectorSize } = this;
    const first = Math.floor(offset / sectorSize);
    const end = Math.ceil((offset + bytes.length) / sectorSize);
    const image = this.visible.slice(first * sectorSize, end * sectorSize);
    for (let sector = first; sector < end; sector += 1) {
      const at = (sector - first) * sectorSize;
      const version: SectorVersion = { change, bytes: image.subarray(at, at + sectorSize) };
      const versions = this.#versions.get(sector);
      if (versions === undefined) this.#versions.set(sector, [version]);
      else versions.push(version);
    }
    return change;
  }

  /** Returns the changes that a flush that begins now covers: those that are acknowledged. */
  covered(): ReadonlySet<CachedChange> {
    return new Set([...this.#changes].filter(({ acknowledged }) => acknowledged));
  }

  /** Makes changes stable, and what they have overwritten gone. */
  stabilise(changes: ReadonlySet<CachedChange>): void {
    for (const [sector, versions] of this.#versions) {
      const last = versions.findLastIndex(({ change }) => changes.has(change));
      if (last < 0) continue;
      this.#stable.set((versions[last] as SectorVersion).bytes, sector * this.sectorSize);
      if (last + 1 === versions.length) this.#versions.delete(sector);
      else versions.splice(0, last + 1);
    }
    for (const change of changes) this.#changes.delete(change);
  }

  /** The sectors that a crash decides about, in order. */
  undecided(): SectorChoice[] {
    return [...this.#versions]
      .map(([sector, versions]) => ({ sector, versionCount: versions.length + 1 }))
      .sort((one, two) => one.sector - two.sector);
  }

  /** Returns a version of a sector, 0 for the stable one. */
  version(sector: number, index: number): Uint8Array {
    const versions = this.#versions.get(sector) ?? [];
    const at = sector * this.sectorSize;
    return versions[index - 1]?.bytes ?? this.#stable.slice(at, at + this.sectorSize);
  }

  /** The power is gone: these sectors are what is given, all others what is stable; nothing is cached any more. */
  lose(outcome: ReadonlyMap<number, Uint8Array>): void {
    for (const [sector, bytes] of outcome) this.#stable.set(bytes, sector * this.sectorSize);
    this.visible.set(this.#stable);
    this.#versions.clear();
    this.#changes.clear();
  }
}
