import { readFileSync, writeFileSync } from "node:fs";

/** Flag of an entry: referenced once. */
export const COPIED: bigint = 1n << 63n;
/** Flag of an entry: compressed. */
export const COMPRESSED: bigint = 1n << 62n;
const OFFSET = 0x00fffffffffffe00n;

/** The bytes of an image file, to be looked at and damaged. Knows the format by itself. */
export class ImageBytes {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  static load(path: string): ImageBytes {
    return new ImageBytes(new Uint8Array(readFileSync(path)));
  }

  save(path: string): void {
    writeFileSync(path, this.bytes);
  }

  u64(at: number): bigint {
    return this.#view.getBigUint64(at);
  }

  set64(at: number, value: bigint): void {
    this.#view.setBigUint64(at, value);
  }

  /** Sets bits of a field of 64 bits. */
  or64(at: number, bits: bigint): void {
    this.set64(at, this.u64(at) | bits);
  }

  u32(at: number): number {
    return this.#view.getUint32(at);
  }

  set32(at: number, value: number): void {
    this.#view.setUint32(at, value);
  }

  get clusterSize(): number {
    return 2 ** this.u32(20);
  }

  get l1(): number {
    return Number(this.u64(40));
  }

  get refcountTable(): number {
    return Number(this.u64(48));
  }

  get snapshotTable(): number {
    return Number(this.u64(64));
  }

  /** First cluster of the file that is behind everything. */
  get end(): number {
    return Math.ceil(this.bytes.length / this.clusterSize) * this.clusterSize;
  }

  /** Host offset in an entry at a place of the file. */
  offsetAt(at: number): number {
    return Number(this.u64(at) & OFFSET);
  }

  /** Where the entry `index` of the L2 table of an L1 entry is. */
  entry(index: number, l1Index = 0, entrySize = 8): number {
    return this.offsetAt(this.l1 + l1Index * 8) + index * entrySize;
  }

  /** Number of the host cluster that an entry refers to. */
  clusterAt(at: number): number {
    return this.offsetAt(at) / this.clusterSize;
  }

  /** The count of a host cluster, of 16 bits. */
  setCount(cluster: number, count: number): void {
    const perBlock = this.clusterSize / 2;
    const block = this.offsetAt(this.refcountTable + Math.floor(cluster / perBlock) * 8);
    this.#view.setUint16(block + (cluster % perBlock) * 2, count);
  }

  count(cluster: number): number {
    const perBlock = this.clusterSize / 2;
    const block = this.offsetAt(this.refcountTable + Math.floor(cluster / perBlock) * 8);
    return this.#view.getUint16(block + (cluster % perBlock) * 2);
  }

  /** Where the data of a header extension begins. */
  extension(type: number): number {
    for (let at = this.u32(100); ; ) {
      const found = this.u32(at);
      if (found === type) return at + 8;
      if (found === 0) throw new Error(`there is no extension ${type.toString(16)}`);
      at += 8 + Math.ceil(this.u32(at + 4) / 8) * 8;
    }
  }
}
