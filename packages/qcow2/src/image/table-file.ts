import { assert } from "@blocklayer/errors";
import type { HostFile } from "./host-file.ts";
import type { Section } from "./metadata-map.ts";

/** Bytes of entries that are written as one: what a disk never tears. */
const SECTOR = 512;

/** A part of a table that is lent for writing. */
interface LentSectors {
  /** Number of the sector in the table. */
  readonly sector: number;
  /** Bytes from the start of the host file: where the table was when it was lent. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * A table that is wholly in memory, in the bytes of the format: the active L1 table or the refcount table. Remembers
 * which of its sectors were changed.
 */
export class TableFile {
  readonly #file: HostFile;
  readonly #section: Section;
  /** Numbers of the sectors that differ from the file. */
  readonly #dirty = new Set<number>();
  #offset: number;
  #bytes: Uint8Array;
  #lent: readonly LentSectors[] = [];

  /**
   * @param offset - bytes from the start of the host file
   * @param bytes - whole; the table's own from here on
   */
  constructor(file: HostFile, section: Section, offset: number, bytes: Uint8Array) {
    this.#file = file;
    this.#section = section;
    this.#offset = offset;
    this.#bytes = bytes;
    this.#register();
  }

  get offset(): number {
    return this.#offset;
  }

  /** For looking only. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Entries of 8 bytes. */
  get entries(): number {
    return this.#bytes.length / 8;
  }

  get hasDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** Upper half of an entry, 0 behind the end. */
  high(index: number): number {
    return index < this.entries ? word(this.#bytes, index * 8) : 0;
  }

  /** Lower half of an entry, 0 behind the end. */
  low(index: number): number {
    return index < this.entries ? word(this.#bytes, index * 8 + 4) : 0;
  }

  set(index: number, high: number, low: number): void {
    assert(index < this.entries, () => `the table has ${this.entries} entries, not ${index + 1}`);
    const at = index * 8;
    putWord(this.#bytes, at, high);
    putWord(this.#bytes, at + 4, low);
    this.#dirty.add(Math.floor(at / SECTOR));
  }

  /** Takes another table at another place, which holds what is there already. */
  replace(offset: number, bytes: Uint8Array): void {
    this.#offset = offset;
    this.#bytes = bytes;
    this.#dirty.clear();
    this.#lent = [];
    this.#register();
  }

  /** Takes what was changed; {@link writeLent} writes it as it is now, whatever is changed meanwhile. */
  lendDirty(): boolean {
    assert(this.#lent.length === 0, "changes of a table are written one batch at a time");
    const sectors = [...this.#dirty].sort((one, two) => one - two);
    this.#dirty.clear();
    const lent: LentSectors[] = [];
    for (const sector of sectors) {
      const start = sector * SECTOR;
      lent.push({
        sector,
        offset: this.#offset + start,
        bytes: this.#bytes.slice(start, start + SECTOR),
      });
    }
    this.#lent = lent;
    return lent.length > 0;
  }

  async writeLent(): Promise<void> {
    for (const { offset, bytes } of this.#lent) {
      await this.#file.write(offset, bytes, this.#section);
    }
  }

  giveBack(isWritten: boolean): void {
    if (!isWritten) for (const { sector } of this.#lent) this.#dirty.add(sector);
    this.#lent = [];
  }

  #register(): void {
    const extent = { offset: this.#offset, length: this.#bytes.length };
    this.#file.metadata.setExtents(this.#section, [extent]);
  }
}

function word(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  );
}

function putWord(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
