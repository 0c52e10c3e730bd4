import { completed } from "@blocklayer/driver";
import { concatenated } from "../format/header-extensions.ts";
import { type L2Words, type Run, readsAsZeroes } from "../image/mapping.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { type ByteRange, type CopyPlan, planCopies } from "./copy-on-write.ts";
import { EntryChange } from "./entry-change.ts";
import { PartQueue } from "./parallel.ts";
import type { Reader } from "./reader.ts";

/** Bytes that one allocation covers at most. */
const ALLOCATION_MAX: number = 2 * 2 ** 20;

/** Clusters in a row that are about to be in the host file. */
interface Allocation {
  /** Guest offset of the first cluster. */
  readonly start: number;
  readonly host: number;
  readonly clusters: number;
  /** The host clusters are new. */
  readonly isFresh: boolean;
  /** What the host file has there reads as zeroes: nobody was ever there. */
  readonly isUntouched: boolean;
  readonly first: CopyPlan;
  readonly last: CopyPlan;
}

/**
 * Writes guests' data: in place where the disk alone has the cluster, else to new clusters that are linked when
 * their data is written.
 *
 * @see spec/qcow2.md section 6
 */
export class Writer {
  readonly #image: Qcow2Image;
  readonly #reader: Reader;
  readonly #entries: EntryChange;

  constructor(image: Qcow2Image, reader: Reader) {
    this.#image = image;
    this.#reader = reader;
    this.#entries = new EntryChange(image);
  }

  write(offset: number, buffer: Uint8Array): Promise<void> {
    const run = this.#image.mapping.find(offset, buffer.length);
    if (run !== undefined && run.length === buffer.length && isInPlace(run)) {
      return this.#writeHost(run.host, buffer);
    }
    return this.#writeParts(offset, buffer);
  }

  async #writeParts(offset: number, buffer: Uint8Array): Promise<void> {
    const { mapping } = this.#image;
    const parts = new PartQueue();
    for (let done = 0; done < buffer.length && !parts.hasFailed; ) {
      const at = offset + done;
      const run = mapping.find(at, buffer.length - done);
      if (run === undefined) {
        await parts.need(mapping.load(at));
      } else if (isInPlace(run)) {
        const part = buffer.subarray(done, done + run.length);
        done += part.length;
        await parts.track(this.#writeHost(run.host, part));
      } else {
        const part = buffer.subarray(done, done + this.#lengthToAllocate(at, buffer.length - done));
        done += part.length;
        await parts.track(this.#allocateAndWrite(at, part));
      }
    }
    await parts.end();
  }

  /** Bytes up to the next cluster that can be written in place, as far as is known now. */
  #lengthToAllocate(offset: number, most: number): number {
    const { mapping, geometry } = this.#image;
    const bound = geometry.startOfCluster(offset) + ALLOCATION_MAX - offset;
    let length = 0;
    while (length < Math.min(most, bound)) {
      const run = mapping.find(offset + length, Math.min(most, bound) - length);
      if (run === undefined || isInPlace(run)) break;
      length += run.length;
    }
    return length;
  }

  #writeHost(host: number, buffer: Uint8Array): Promise<void> {
    const { file, hasDataFile, data } = this.#image;
    if (hasDataFile) return data.pwrite(host, buffer);
    const pin = file.pins.pin(host, buffer.length);
    const writing = file.write(host, buffer);
    if (writing !== completed) return writing.finally(() => file.pins.unpin(pin));
    file.pins.unpin(pin);
    return completed;
  }

  async #allocateAndWrite(offset: number, buffer: Uint8Array): Promise<void> {
    const { changing, geometry, mapping } = this.#image;
    const start = geometry.startOfCluster(offset);
    const end = geometry.startOfCluster(offset + buffer.length - 1) + geometry.clusterSize;
    const hold = await changing.acquire(start, end - start, { mode: "exclusive" });
    try {
      for (let done = 0; done < buffer.length; ) {
        // Who held the range before may have made room.
        const run = mapping.find(offset + done, buffer.length - done);
        if (run === undefined) {
          await mapping.load(offset + done);
        } else if (isInPlace(run)) {
          await this.#writeHost(run.host, buffer.subarray(done, done + run.length));
          done += run.length;
        } else if (run.kind === "invalid") {
          await this.#reader.readRun(run, offset + done, buffer.subarray(done));
        } else {
          done += await this.#allocateSome(offset + done, buffer.subarray(done));
        }
      }
    } finally {
      hold.release();
    }
  }

  /** Returns how many bytes were written. */
  async #allocateSome(offset: number, buffer: Uint8Array): Promise<number> {
    const image = this.#image;
    const { geometry, file, allocator } = image;
    const { clusterSize } = geometry;
    await image.prepareToAllocate();
    const words = await this.#entries.prepare(offset);
    const isKept = this.#isKept(words);
    const clusters = this.#countAlike(offset, buffer.length, words);
    const start = geometry.startOfCluster(offset);
    const length = Math.min(buffer.length, start + clusters * clusterSize - offset);
    const lastStart = start + (clusters - 1) * clusterSize;
    const lastWords = clusters === 1 ? words : await this.#entries.prepare(lastStart);
    const plan = (at: number, of: L2Words): CopyPlan => {
      const range = {
        start: Math.max(0, offset - at),
        end: Math.min(clusterSize, offset + length - at),
      };
      return planCopies(of, geometry, range, !isKept);
    };
    const sizeBefore = file.size;
    const host = await this.#hostFor(start, words, clusters, isKept);
    const allocation: Allocation = {
      start,
      host,
      clusters,
      isFresh: !isKept,
      isUntouched: !(isKept || image.hasDataFile) && host >= sizeBefore,
      first: plan(start, words),
      last: plan(lastStart, lastWords),
    };
    let linked = 0;
    try {
      await this.#fill(allocation, offset, buffer.subarray(0, length));
      for (; linked < clusters; linked += 1) await this.#link(allocation, linked);
    } catch (error) {
      const rest = (clusters - linked) * clusterSize;
      const isAbandoned = !(isKept || image.hasDataFile);
      if (isAbandoned) allocator.abandon(host + linked * clusterSize, rest);
      throw error;
    }
    return length;
  }

  #isKept(words: L2Words): boolean {
    return this.#entries.hasHost(words) && words.high >= 0x80000000;
  }

  /** Clusters from `offset` on that are allocated in the same way, within a slice; kept ones in a row in the host file. */
  #countAlike(offset: number, length: number, words: L2Words): number {
    const { geometry, l2, mapping } = this.#image;
    const { clusterSize } = geometry;
    const start = geometry.startOfCluster(offset);
    const most = geometry.clustersOf(Math.min(length + offset - start, l2.bytesLeftInSlice(start)));
    const isKept = this.#isKept(words);
    let count = 1;
    for (; count < most; count += 1) {
      const at = start + count * clusterSize;
      const next = mapping.words(at);
      if (next === undefined || this.#isKept(next) !== isKept) break;
      const run = mapping.find(at, clusterSize);
      if (run === undefined || isInPlace(run) || run.kind === "invalid") break;
      if (isKept && hostOf(next) !== hostOf(words) + count * clusterSize) break;
    }
    return count;
  }

  #hostFor(start: number, words: L2Words, clusters: number, isKept: boolean): Promise<number> {
    if (this.#image.hasDataFile) return Promise.resolve(start);
    if (isKept) return Promise.resolve(hostOf(words));
    return this.#image.allocator.allocate(clusters);
  }

  /** Writes the data, and what has to be copied around it. */
  async #fill(allocation: Allocation, offset: number, buffer: Uint8Array): Promise<void> {
    const { clusterSize } = this.#image.geometry;
    const { start, host, clusters, first, last } = allocation;
    const lastStart = (clusters - 1) * clusterSize;
    const copies =
      clusters === 1
        ? [...first.copies]
        : [
            ...first.copies,
            ...last.copies.map((one) => ({
              start: one.start + lastStart,
              end: one.end + lastStart,
            })),
          ];
    const data: ByteRange = { start: offset - start, end: offset - start + buffer.length };
    const before = copies.find(({ end }) => end === data.start);
    const after = copies.find((one) => one.start === data.end);
    const alone = copies.filter((one) => one !== before && one !== after);
    const pieces: Uint8Array[] = [];
    let from = data.start;
    if (before !== undefined) {
      const piece = await this.#content(allocation, before);
      if (piece !== undefined) {
        pieces.push(piece);
        from = before.start;
      }
    }
    pieces.push(buffer);
    if (after !== undefined) {
      const piece = await this.#content(allocation, after);
      if (piece !== undefined) pieces.push(piece);
    }
    await this.#writeHost(host + from, pieces.length === 1 ? buffer : concatenated(pieces));
    for (const range of alone) {
      const piece = await this.#content(allocation, range);
      if (piece !== undefined) await this.#writeHost(host + range.start, piece);
    }
  }

  /** Reads what the disk shows now; `undefined` for zeroes where the host file has zeroes anyway. */
  async #content(
    allocation: Allocation,
    { start, end }: ByteRange,
  ): Promise<Uint8Array | undefined> {
    const at = allocation.start + start;
    if (allocation.isUntouched && (await this.#isKnownZero(at, end - start))) return undefined;
    const piece = new Uint8Array(end - start);
    // The disk ends before the cluster does: behind it are zeroes.
    const inside = Math.min(piece.length, Math.max(0, this.#image.size - at));
    if (inside > 0) await this.#reader.read(at, piece.subarray(0, inside));
    return piece;
  }

  async #isKnownZero(offset: number, length: number): Promise<boolean> {
    const { mapping, backing } = this.#image;
    for (let done = 0; done < length; ) {
      const run = mapping.find(offset + done, length - done);
      if (run === undefined) {
        await mapping.load(offset + done);
        continue;
      }
      if (!readsAsZeroes(run, offset + done, backing?.size ?? 0)) return false;
      done += run.length;
    }
    return true;
  }

  async #link(allocation: Allocation, index: number): Promise<void> {
    const { start, host, clusters, isFresh, first, last } = allocation;
    const { clusterSize } = this.#image.geometry;
    const at = start + index * clusterSize;
    const isFirst = index === 0;
    const isLast = index === clusters - 1;
    let allocated = 0xffffffff;
    if (isFirst) allocated &= first.allocated;
    if (isLast) allocated &= last.allocated;
    const place = host + index * clusterSize;
    await this.#entries.within(at, (words) => {
      this.#entries.link(at, words, place, allocated >>> 0, !isFresh);
    });
  }
}

/** Whether a write needs no change of metadata. */
function isInPlace(run: Run): boolean {
  return run.kind === "normal" && run.isOwn;
}

function hostOf({ high, low }: L2Words): number {
  return (high & 0x00ffffff) * 2 ** 32 + ((low & 0xfffffe00) >>> 0);
}
