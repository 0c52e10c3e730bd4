/** Bytes of a disk that are alike. */
export interface MediumRun {
  /** Known to be zeroes. */
  readonly isHole: boolean;
  readonly length: number;
}

/** What a disk knows of its sectors beside their content: which are holes, and which can not be read. */
export class SectorStates {
  readonly #sectorSize: number;
  /** Sectors that can not be read. */
  readonly #bad = new Set<number>();
  /** Sectors that are known to be zeroes, 1 for yes. */
  #holes: Uint8Array;

  /** Everything is a hole at first. */
  constructor(size: number, sectorSize: number) {
    this.#sectorSize = sectorSize;
    this.#holes = new Uint8Array(Math.ceil(size / sectorSize)).fill(1);
  }

  /** Sectors of zeroes are holes, others are not. */
  format(content: Uint8Array): void {
    const size = this.#sectorSize;
    for (let sector = 0; sector < this.#holes.length; sector += 1) {
      const bytes = content.subarray(sector * size, (sector + 1) * size);
      this.#holes[sector] = bytes.every((byte) => byte === 0) ? 1 : 0;
    }
  }

  /** Every sector can be read. */
  heal(): void {
    this.#bad.clear();
  }

  /** Nothing is known to be a hole after a crash. */
  forgetHoles(): void {
    this.#holes.fill(0);
  }

  spoil(offset: number): void {
    this.#bad.add(Math.floor(offset / this.#sectorSize));
  }

  /** A range gets new content: its sectors can be read again. Only whole sectors become holes. */
  change(offset: number, length: number, hole: 0 | 1): void {
    const size = this.#sectorSize;
    const end = offset + length;
    this.resize(Math.max(end, this.#holes.length * size));
    for (let sector = Math.floor(offset / size); sector * size < end; sector += 1) {
      this.#bad.delete(sector);
      const isWhole = sector * size >= offset && (sector + 1) * size <= end;
      if (hole === 0 || isWhole) this.#holes[sector] = hole;
    }
  }

  /** What is new is a hole. What is cut off is forgotten. */
  resize(size: number): void {
    const count = Math.ceil(size / this.#sectorSize);
    for (const sector of [...this.#bad]) if (sector >= count) this.#bad.delete(sector);
    if (count === this.#holes.length) return;
    const holes = new Uint8Array(count).fill(1);
    holes.set(this.#holes.subarray(0, count));
    this.#holes = holes;
  }

  /** Whether a part of the range can not be read. */
  isBad(offset: number, length: number): boolean {
    if (this.#bad.size === 0) return false;
    const size = this.#sectorSize;
    const first = Math.floor(offset / size);
    return [...this.#bad].some((sector) => sector >= first && sector * size < offset + length);
  }

  /**
   * Returns the run at `offset`, at most `length` bytes.
   *
   * @param unit - bytes, a multiple of the sector size: runs are made of whole ones
   */
  run(offset: number, length: number, unit: number): MediumRun {
    const start = Math.floor(offset / unit) * unit;
    const isHole = this.#isHole(start, unit);
    let end = start + unit;
    while (end < offset + length && this.#isHole(end, unit) === isHole) end += unit;
    return { isHole, length: Math.min(end, offset + length) - offset };
  }

  #isHole(offset: number, unit: number): boolean {
    const first = Math.floor(offset / this.#sectorSize);
    const count = Math.ceil(unit / this.#sectorSize);
    return this.#holes.subarray(first, first + count).every((one) => one === 1);
  }
}
