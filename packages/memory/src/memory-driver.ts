import {
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  completed,
  type DriverFlags,
  type ImageInfo,
  type NodeHost,
  type PreparedReopen,
  type ReopenChange,
  RequestFlag,
  type RequestOptions,
  rejected,
  StatusFlag,
  type TruncateOptions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { alignDown, divideDown, divideUp } from "@blocklayer/offsets";
import { BackingClusters } from "./backing-clusters.ts";
import { ClusterMap, ZERO } from "./cluster-map.ts";
import { type FailureRule, FailureRules, type MemoryOperation } from "./failure-rules.ts";

/** Clusters that one write-zeroes or discard goes through: it does so within the call. */
const CLUSTERS_MAX = 16384;

export interface MemoryDriverOptions {
  /** Bytes. */
  readonly size: number;
  /** Bytes, a power of two. */
  readonly clusterSize: number;
  readonly fail?: readonly FailureRule[];
  /** Where the memory of a cluster comes from; a `RangeError` means there is none. Default `Uint8Array`. */
  readonly allocate?: (length: number) => Uint8Array;
}

/** A sparse disk in RAM: memory is taken for the clusters that hold data, and for nothing else. */
export class MemoryDriver implements BlockDriver {
  readonly driverName: string = "memory";
  readonly zeroes = "native";
  readonly limits: Partial<BlockLimits>;
  readonly flags: DriverFlags = {
    read: 0,
    write: RequestFlag.fua | RequestFlag.writeUnchanged,
    zeroes:
      RequestFlag.fua | RequestFlag.writeUnchanged | RequestFlag.mayUnmap | RequestFlag.noFallback,
    truncateZero: true,
  };
  readonly #host: Pick<NodeHost, "nodeName" | "children">;
  readonly #clusterSize: number;
  readonly #clusters: ClusterMap;
  readonly #backing: BackingClusters;
  #failures: FailureRules;
  #size: number;
  #closed: boolean = false;

  /** @param host - where the backing child is looked up, since a graph may attach and detach it */
  constructor(host: Pick<NodeHost, "nodeName" | "children">, options: MemoryDriverOptions) {
    this.#host = host;
    this.#size = options.size;
    this.#clusterSize = options.clusterSize;
    this.#clusters = new ClusterMap({
      clusterSize: options.clusterSize,
      allocate: options.allocate ?? ((length) => new Uint8Array(length)),
      node: host.nodeName,
    });
    this.#failures = new FailureRules(options.fail);
    this.#backing = new BackingClusters(host, this.#clusters);
    const longest = CLUSTERS_MAX * options.clusterSize;
    this.limits = {
      pdiscardAlignment: options.clusterSize,
      maxPdiscard: longest,
      maxPwriteZeroes: longest,
    };
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Tells the disk to fail from now on.
   *
   * @returns a disposable that takes the rule back
   */
  fail(rule: FailureRule): Disposable {
    return this.#failures.add(rule);
  }

  pread(offset: number, buffer: Uint8Array): Promise<void> {
    const refusal = this.#refusal("pread", offset, buffer.length);
    if (refusal !== undefined) return rejected(refusal);
    const position = this.#readUntilFetch(offset, buffer, 0);
    return position === buffer.length ? completed : this.#readOn(offset, buffer, position);
  }

  pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    const refusal =
      this.#refusal("pwrite", offset, buffer.length) ?? this.#grow(offset, buffer.length);
    return refusal === undefined ? this.#write(offset, buffer) : rejected(refusal);
  }

  pwritev(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    const length = buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    const refusal = this.#refusal("pwrite", offset, length) ?? this.#grow(offset, length);
    if (refusal !== undefined) return rejected(refusal);
    let position = offset;
    for (const [index, buffer] of buffers.entries()) {
      const work = this.#write(position, buffer);
      position += buffer.length;
      if (work !== completed) {
        return work.then(() => this.#writeRest(position, buffers.slice(index + 1)));
      }
    }
    return completed;
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const refusal = this.#refusal("pwriteZeroes", offset, length) ?? this.#grow(offset, length);
    if (refusal !== undefined) return rejected(refusal);
    const mayUnmap = ((options?.flags ?? 0) & RequestFlag.mayUnmap) !== 0;
    return this.#zero(offset, length, mayUnmap && this.#backing.child === undefined);
  }

  pdiscard(offset: number, length: number): Promise<void> {
    const refusal = this.#refusal("pdiscard", offset, length);
    if (refusal !== undefined) return rejected(refusal);
    const isUnallocated = this.#backing.child === undefined;
    const end = offset + length;
    const first = divideUp(offset, this.#clusterSize);
    const last = end === this.#size ? this.#clusterCount() : divideDown(end, this.#clusterSize);
    for (let index = first; index < last; index += 1) this.#clusters.clear(index, isUnallocated);
    return completed;
  }

  flushToDisk(): Promise<void> {
    const refusal = this.#refusal("flush", 0, 0);
    return refusal === undefined ? completed : rejected(refusal);
  }

  blockStatus(offset: number, length: number): Promise<BlockStatus> {
    if (this.#closed) return rejected(this.#closedError("blockStatus", offset, length));
    const end = Math.min(offset + length, this.#size);
    const flags = this.#flagsAt(offset);
    let runEnd = this.#clusterEnd(offset);
    if (flags === 0 && (end - runEnd) / this.#clusterSize > this.#clusters.count) {
      const first = divideDown(runEnd, this.#clusterSize);
      const last = divideUp(end, this.#clusterSize);
      runEnd = this.#clusters.nextAllocated(first, last) * this.#clusterSize;
    }
    while (runEnd < end && this.#flagsAt(runEnd) === flags) runEnd += this.#clusterSize;
    return Promise.resolve({ flags, length: Math.min(runEnd, end) - offset });
  }

  truncate(newSize: number, options: TruncateOptions = {}): Promise<void> {
    const refusal =
      this.#refusal("truncate", newSize, 0) ?? this.#preallocationError(newSize, options);
    if (refusal !== undefined) return rejected(refusal);
    const oldSize = this.#size;
    this.#size = newSize;
    if (newSize < oldSize) this.#dropBeyondEnd();
    // Beyond the end of the backing disk everything reads as zeroes anyway.
    const zeroEnd = options.zero === true ? Math.min(newSize, this.#backing.child?.size ?? 0) : 0;
    return zeroEnd <= oldSize ? completed : this.#zeroNewArea(oldSize, zeroEnd);
  }

  makeEmpty(): Promise<void> {
    if (this.#closed) return rejected(this.#closedError("makeEmpty", 0, this.#size));
    this.#backing.forgetFetches();
    this.#clusters.empty();
    return completed;
  }

  getInfo(): Promise<ImageInfo> {
    return Promise.resolve({ clusterSize: this.#clusterSize });
  }

  allocatedSize(): Promise<number | undefined> {
    return Promise.resolve(this.#clusters.dataSize);
  }

  prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    const { fail } = change.options as { readonly fail?: readonly FailureRule[] };
    const failures = new FailureRules(fail);
    return Promise.resolve({
      commit: () => {
        this.#failures = failures;
      },
      abort: () => undefined,
    });
  }

  /** Gives the memory back: the content is gone. */
  close(): Promise<void> {
    this.#closed = true;
    this.#backing.forgetFetches();
    this.#clusters.empty();
    return completed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Fills `buffer` from `position` on with what is known within this call.
   *
   * @returns the position of the first byte that the backing child has, else the buffer's length
   */
  #readUntilFetch(offset: number, buffer: Uint8Array, start: number): number {
    let position = start;
    while (position < buffer.length) {
      const at = offset + position;
      const end = Math.min(this.#clusterEnd(at) - offset, buffer.length);
      const cluster = this.#clusters.get(divideDown(at, this.#clusterSize));
      if (cluster === undefined && this.#backing.reaches(at)) return position;
      if (cluster === undefined || cluster === ZERO) {
        buffer.fill(0, position, end);
      } else {
        const within = at - alignDown(at, this.#clusterSize);
        buffer.set(cluster.subarray(within, within + end - position), position);
      }
      position = end;
    }
    return position;
  }

  async #readOn(offset: number, buffer: Uint8Array, start: number): Promise<void> {
    for (let position = start; position < buffer.length; ) {
      const end = this.#unallocatedEnd(offset, position, buffer.length);
      await this.#backing.read(offset + position, buffer.subarray(position, end));
      this.#assertThere("pread", offset, buffer.length);
      position = this.#readUntilFetch(offset, buffer, end);
    }
  }

  /** Where the run of clusters that show the backing child ends, as a position in the buffer. */
  #unallocatedEnd(offset: number, start: number, length: number): number {
    let end = this.#clusterEnd(offset + start) - offset;
    while (end < length && !this.#clusters.has(divideDown(offset + end, this.#clusterSize))) {
      end += this.#clusterSize;
    }
    return Math.min(end, length);
  }

  #write(offset: number, buffer: Uint8Array): Promise<void> {
    try {
      const position = this.#writeUntilFetch(offset, buffer, 0);
      return position === buffer.length ? completed : this.#writeOn(offset, buffer, position);
    } catch (error) {
      return rejected(error);
    }
  }

  async #writeRest(offset: number, buffers: readonly Uint8Array[]): Promise<void> {
    let position = offset;
    for (const buffer of buffers) {
      await this.#write(position, buffer);
      position += buffer.length;
    }
  }

  /** Returns the position at which a cluster has to be fetched first, else the buffer's length. */
  #writeUntilFetch(offset: number, buffer: Uint8Array, start: number): number {
    let position = start;
    while (position < buffer.length) {
      const at = offset + position;
      const end = Math.min(this.#clusterEnd(at) - offset, buffer.length);
      const cluster = this.#clusterForWrite(at, end - position);
      if (cluster === undefined) return position;
      cluster.set(buffer.subarray(position, end), at - alignDown(at, this.#clusterSize));
      position = end;
    }
    return position;
  }

  async #writeOn(offset: number, buffer: Uint8Array, start: number): Promise<void> {
    for (let position = start; position < buffer.length; ) {
      await this.#backing.fetch(divideDown(offset + position, this.#clusterSize), this.#size);
      this.#assertThere("pwrite", offset, buffer.length);
      position = this.#writeUntilFetch(offset, buffer, position);
    }
  }

  /** The bytes of a cluster of which `length` from `offset` are written, `undefined` if it has to be fetched. */
  #clusterForWrite(offset: number, length: number): Uint8Array | undefined {
    const index = divideDown(offset, this.#clusterSize);
    const cluster = this.#clusters.get(index);
    if (cluster !== undefined && cluster !== ZERO) return cluster;
    const start = index * this.#clusterSize;
    const isWhole = offset === start && length >= Math.min(this.#clusterSize, this.#size - start);
    if (cluster === undefined && !isWhole && this.#backing.reaches(start)) return undefined;
    return this.#clusters.setData(index, this.#clusters.allocate());
  }

  /** Write-zeroes, of whole clusters and of parts. */
  #zero(offset: number, length: number, isUnallocated: boolean): Promise<void> {
    const position = this.#zeroUntilFetch(offset, length, 0, isUnallocated);
    return position === length ? completed : this.#zeroOn(offset, length, position, isUnallocated);
  }

  #zeroUntilFetch(offset: number, length: number, start: number, isUnallocated: boolean): number {
    let position = start;
    while (position < length) {
      const at = offset + position;
      const end = Math.min(this.#clusterEnd(at) - offset, length);
      const index = divideDown(at, this.#clusterSize);
      const within = at - index * this.#clusterSize;
      const cluster = this.#clusters.get(index);
      if (within === 0 && this.#reachesEnd(index, end - position)) {
        this.#clusters.clear(index, isUnallocated);
      } else if (cluster === undefined && this.#backing.reaches(index * this.#clusterSize)) {
        return position;
      } else if (cluster === undefined) {
        // The bytes are zeroes already; the mark keeps them so when a backing child is attached later.
        if (!isUnallocated) this.#clusters.clear(index, false);
      } else if (cluster !== ZERO) {
        cluster.fill(0, within, within + end - position);
      }
      position = end;
    }
    return position;
  }

  async #zeroOn(
    offset: number,
    length: number,
    start: number,
    isUnallocated: boolean,
  ): Promise<void> {
    for (let position = start; position < length; ) {
      await this.#backing.fetch(divideDown(offset + position, this.#clusterSize), this.#size);
      this.#assertThere("pwriteZeroes", offset, length);
      position = this.#zeroUntilFetch(offset, length, position, isUnallocated);
    }
  }

  async #zeroNewArea(oldSize: number, zeroEnd: number): Promise<void> {
    try {
      await this.#zero(oldSize, zeroEnd - oldSize, false);
    } catch (error) {
      this.#size = oldSize;
      this.#dropBeyondEnd();
      throw error;
    }
  }

  /** Whether `length` bytes from a cluster's start are all of it that lies within the disk. */
  #reachesEnd(index: number, length: number): boolean {
    return length >= Math.min(this.#clusterSize, this.#size - index * this.#clusterSize);
  }

  /** Drops the clusters beyond the end and clears what the last one has there. */
  #dropBeyondEnd(): void {
    this.#backing.forgetFetches();
    const count = this.#clusterCount();
    this.#clusters.dropFrom(count);
    const cluster = this.#clusters.get(count - 1);
    if (cluster instanceof Uint8Array)
      cluster.fill(0, this.#size - (count - 1) * this.#clusterSize);
  }

  #clusterCount(): number {
    return divideUp(this.#size, this.#clusterSize);
  }

  #clusterEnd(offset: number): number {
    return alignDown(offset, this.#clusterSize) + this.#clusterSize;
  }

  #flagsAt(offset: number): number {
    const cluster = this.#clusters.get(divideDown(offset, this.#clusterSize));
    if (cluster === undefined) return 0;
    return cluster === ZERO ? StatusFlag.zero : StatusFlag.data;
  }

  #preallocationError(newSize: number, options: TruncateOptions): BlockError | undefined {
    const preallocation = options.preallocation ?? "off";
    if (preallocation === "off") return undefined;
    return new BlockError(
      "ENOTSUP",
      `memory disks are sparse: preallocation ${preallocation} is not supported`,
      { node: this.#host.nodeName, operation: "truncate", size: newSize },
    );
  }

  #refusal(operation: MemoryOperation, offset: number, length: number): BlockError | undefined {
    if (this.#closed) return this.#closedError(operation, offset, length);
    return this.#failures.check(this.#host.nodeName, operation, offset, length);
  }

  /** A write beyond the end makes the disk longer, unless old data of the backing disk would appear in between. */
  #grow(offset: number, length: number): BlockError | undefined {
    const end = offset + length;
    if (end <= this.#size) return undefined;
    const { child } = this.#backing;
    if (child === undefined || child.size <= this.#size) {
      this.#size = end;
      return undefined;
    }
    return new BlockError(
      "ENOSPC",
      `${length} bytes at ${offset} end beyond the ${this.#size} bytes of a disk that is shorter than its backing disk`,
      { node: this.#host.nodeName, offset, length, size: this.#size },
      { hint: "truncate grows it, with zeroes" },
    );
  }

  /** After a fetch: the disk may have been closed or cut meanwhile. */
  #assertThere(operation: string, offset: number, length: number): void {
    if (this.#closed) throw this.#closedError(operation, offset, length);
    if (offset + length <= this.#size) return;
    throw new BlockError(
      "EIO",
      `${operation} of ${length} bytes at ${offset}: the disk was cut to ${this.#size} bytes meanwhile`,
      { node: this.#host.nodeName, operation, offset, length },
    );
  }

  #closedError(operation: string, offset: number, length: number): BlockError {
    return new BlockError("ESHUTDOWN", `${operation} after the disk was closed`, {
      node: this.#host.nodeName,
      operation,
      offset,
      length,
    });
  }
}
