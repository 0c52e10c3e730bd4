import { type HBitmap, HBitmapIterator } from "@blocklayer/hbitmap";

/** The plainest bitmap there is: one byte for each group, every question answered by looking at one after the other. */
export class Shadow {
  readonly granularity: number;
  size: number;
  groups: Uint8Array;

  constructor(size: number, granularity: number) {
    this.granularity = granularity;
    this.size = size;
    this.groups = new Uint8Array(Math.ceil(size / granularity));
  }

  get count(): number {
    return sum(this.groups) * this.granularity;
  }

  fill(offset: number, length: number, value: 0 | 1): boolean {
    if (length === 0) return false;
    const first = Math.floor(offset / this.granularity);
    const last = Math.floor((offset + length - 1) / this.granularity);
    const isChanged = this.groups.subarray(first, last + 1).includes(1 - value);
    this.groups.fill(value, first, last + 1);
    return isChanged;
  }

  get(offset: number): boolean {
    return this.groups[Math.floor(offset / this.granularity)] === 1;
  }

  nextDirty(offset: number, length: number): number {
    return this.#next(true, offset, length);
  }

  nextZero(offset: number, length: number): number {
    return this.#next(false, offset, length);
  }

  /** The first byte of `[offset, offset + length)` that is dirty, or clean. */
  #next(isDirty: boolean, offset: number, length: number): number {
    const end = Math.min(offset + length, this.size);
    let position = offset;
    while (position < end) {
      if (this.get(position) === isDirty) return position;
      position = (Math.floor(position / this.granularity) + 1) * this.granularity;
    }
    return -1;
  }

  nextDirtyArea(
    start: number,
    end: number,
    max: number,
  ): { offset: number; length: number } | undefined {
    const offset = this.nextDirty(start, Math.max(0, end - start));
    if (offset === -1) return undefined;
    const limit = Math.min(end, this.size, offset + max);
    let stop = offset;
    while (stop < limit && this.get(stop)) stop++;
    return { offset, length: stop - offset };
  }

  countBetween(start: number, end: number): number {
    const first = Math.floor(start / this.granularity);
    const last = Math.ceil(Math.min(end, this.size) / this.granularity);
    return start < end ? sum(this.groups.subarray(first, last)) * this.granularity : 0;
  }

  truncate(size: number): void {
    const groups = new Uint8Array(Math.ceil(size / this.granularity));
    groups.set(this.groups.subarray(0, groups.length));
    this.groups = groups;
    this.size = size;
  }

  /** Group n in bit n % 8 of byte n / 8, padded to 8 bytes. */
  bytes(): Uint8Array {
    const bytes = new Uint8Array(Math.max(1, Math.ceil(this.groups.length / 64)) * 8);
    for (let index = 0; index < this.groups.length; index++) {
      if (this.groups[index] === 0) continue;
      const byte = Math.floor(index / 8);
      bytes[byte] = (bytes[byte] as number) | (1 << (index % 8));
    }
    return bytes;
  }

  /** Says what differs, or "same": content, count, full iteration, and the inner structure. */
  compare(bitmap: HBitmap): string {
    bitmap.assertConsistent();
    if (bitmap.size !== this.size) return `size ${bitmap.size} is not ${this.size}`;
    if (bitmap.count !== this.count) return `count ${bitmap.count} is not ${this.count}`;
    if (bitmap.isEmpty !== (this.count === 0)) return "isEmpty is wrong";
    const expected = this.bytes();
    const bytes = bitmap.bottomBytes();
    if (bytes.length !== expected.length) return `${bytes.length} bytes, not ${expected.length}`;
    for (let index = 0; index < bytes.length; index++) {
      if (bytes[index] !== expected[index]) return `byte ${index} is ${bytes[index]}`;
    }
    return this.compareIteration(new HBitmapIterator(bitmap), 0);
  }

  /** Says whether `iterator` visits exactly the dirty groups from the one of `first` on. */
  compareIteration(iterator: HBitmapIterator, first: number): string {
    const { groups, granularity } = this;
    for (let index = Math.floor(first / granularity); index < groups.length; index++) {
      if (groups[index] === 0) continue;
      const offset = iterator.next();
      if (offset !== index * granularity) {
        return `iteration returned ${offset} where ${index * granularity} is next`;
      }
    }
    const end = iterator.next();
    return end === -1 ? "same" : `iteration returned ${end} at the end`;
  }
}

function sum(groups: Uint8Array): number {
  let total = 0;
  for (let index = 0; index < groups.length; index++) total += groups[index] as number;
  return total;
}

/** A bitmap and its shadow, changed together. */
export class Pair {
  readonly bitmap: HBitmap;
  readonly shadow: Shadow;

  constructor(bitmap: HBitmap) {
    this.bitmap = bitmap;
    this.shadow = new Shadow(bitmap.size, bitmap.granularity);
  }

  set(offset: number, length: number): string {
    const expected = this.shadow.fill(offset, length, 1);
    if (this.bitmap.set(offset, length) !== expected) return `set did not return ${expected}`;
    return this.shadow.compare(this.bitmap);
  }

  reset(offset: number, length: number): string {
    const expected = this.shadow.fill(offset, length, 0);
    if (this.bitmap.reset(offset, length) !== expected) return `reset did not return ${expected}`;
    return this.shadow.compare(this.bitmap);
  }

  truncate(size: number): string {
    this.shadow.truncate(size);
    this.bitmap.truncate(size);
    return this.shadow.compare(this.bitmap);
  }
}

/** The borders of words and levels: of 64-bit words as they are serialised, and of 32-bit ones in memory. */
export const borders: { name: string; L1: number; L2: number; L3: number }[] = [
  { name: "64-bit words", L1: 64, L2: 4096, L3: 262_144 },
  { name: "32-bit words", L1: 32, L2: 1024, L3: 32_768 },
];
