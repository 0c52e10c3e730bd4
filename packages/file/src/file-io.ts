import { completed, type RequestOptions, rejected } from "@blocklayer/driver";
import type { Clock } from "@blocklayer/env";
import { isAligned } from "@blocklayer/offsets";
import type { BounceSlots } from "./bounce-slots.ts";
import type { CallQueue } from "./call-queue.ts";
import type { Descriptor } from "./descriptor.ts";
import { readDirect, writeDirect } from "./direct-io.ts";
import { ioError, retried } from "./io-error.ts";
import { LatencyGate } from "./latency-gate.ts";
import { Errno } from "./native-calls.ts";
import type { OperatingSystem } from "./operating-system.ts";
import type { TurnBudget } from "./turn-budget.ts";
import { dropBytes, lengthOf, writeFully } from "./write-fully.ts";

/** Longer requests go to the thread pool, bytes: there another processor copies. */
const READ_NOW_MAX = 2 ** 20;
const WRITE_NOW_MAX = 2 ** 18;
/** A write of a part of a page reads the rest of it first, maybe from the disk. */
const PAGE = 4096;

/**
 * How requests reach the file:
 *
 * | way | for reads | for writes |
 * | --- | --- | --- |
 * | `"now"` | file systems in memory | file systems in memory |
 * | `"no-wait"` | the page cache answers or says that it cannot | |
 * | `"measured"` | no native calls: within the turn while that is known to be fast | the same, whole pages only |
 * | `"pool"` | bypassing the page cache, network file systems | the same |
 */
export type Way = "now" | "no-wait" | "measured" | "pool";

export interface FileIoSettings {
  readonly system: OperatingSystem;
  readonly clock: Clock;
  readonly calls: CallQueue;
  readonly budget: TurnBudget;
  readonly nodeName: string;
  readonly reads: Way;
  readonly writes: Exclude<Way, "no-wait">;
  /** For I/O that bypasses the page cache. */
  readonly direct: { readonly slots: BounceSlots; readonly alignment: number } | undefined;
}

/** Reads and writes one file: within the call where that cannot take long, else on the thread pool. */
export class FileIo {
  /** Where requests go. Whoever replaces it retires the old one. */
  descriptor: Descriptor;
  /** Bytes. */
  size: number;
  /** Whether something was written since it was last set to `false`. */
  isDirty = false;
  readonly #system: OperatingSystem;
  readonly #settings: FileIoSettings;
  readonly #readGate = new LatencyGate();
  readonly #writeGate = new LatencyGate();
  #reads: Way;

  constructor(settings: FileIoSettings, descriptor: Descriptor, size: number) {
    this.#settings = settings;
    this.#system = settings.system;
    this.#reads = settings.reads;
    this.descriptor = descriptor;
    this.size = size;
  }

  /** The way that reads take now. */
  get reads(): Way {
    return this.#reads;
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const signal = options?.signal;
    if (signal?.aborted === true) return rejected(signal.reason);
    let done = 0;
    if (this.#reads !== "pool" && buffer.length <= READ_NOW_MAX) {
      done = this.#readNow(offset, buffer);
      if (done === buffer.length) return completed;
    }
    return this.#readRest(offset, buffer, done, signal);
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const signal = options?.signal;
    if (signal?.aborted === true) return rejected(signal.reason);
    this.isDirty = true;
    const done = this.#mayWriteNow(offset, buffer.length) ? this.#writeNow(offset, buffer) : 0;
    if (done < buffer.length) {
      const rest = done === 0 ? buffer : buffer.subarray(done);
      return this.#writeRest(offset + done, [rest], rest.length, signal);
    }
    if (offset + done > this.size) this.size = offset + done;
    return completed;
  }

  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    const signal = options?.signal;
    if (signal?.aborted === true) return rejected(signal.reason);
    this.isDirty = true;
    const length = lengthOf(buffers);
    const done = this.#mayWriteNow(offset, length) ? this.#writeNow(offset, buffers, length) : 0;
    if (done < length) {
      return this.#writeRest(offset + done, dropBytes(buffers, done), length - done, signal);
    }
    if (offset + length > this.size) this.size = offset + length;
    return completed;
  }

  /** Asks the operating system for the size. */
  async refreshSize(): Promise<void> {
    const { size } = await this.descriptor.hold((fd) => this.#system.fstat(fd));
    this.size = size;
  }

  /** @returns bytes read within the call, 0 when it cannot be known to be short */
  #readNow(offset: number, buffer: Uint8Array): number {
    if (
      this.#reads === "measured" &&
      !(this.#readGate.isOpen && !this.#settings.calls.isStalled())
    ) {
      return 0;
    }
    if (!this.#settings.budget.take(buffer.length)) return 0;
    if (this.#reads === "no-wait") return this.#readNoWait(offset, buffer);
    const sinceMs = this.#settings.clock.now();
    let count = 0;
    try {
      count = this.#system.readNow(this.descriptor.fd, buffer, offset);
    } catch {
      // The thread pool makes the call again, and reports what is wrong if it still is.
      count = 0;
    }
    if (this.#reads === "measured") {
      const nowMs = this.#settings.clock.now();
      const tookMs = nowMs - sinceMs;
      this.#readGate.ranNow(tookMs, buffer.length, nowMs);
      this.#settings.budget.charge(tookMs);
    }
    return count;
  }

  #readNoWait(offset: number, buffer: Uint8Array): number {
    const count =
      this.#system.native?.readNoWait(this.descriptor.fd, buffer, offset) ?? -Errno.ENOSYS;
    if (count >= 0) return count;
    if (count !== -Errno.EAGAIN && count !== -Errno.EINTR && count !== -Errno.EIO)
      this.#reads = "measured";
    return 0;
  }

  async #readRest(
    offset: number,
    buffer: Uint8Array,
    alreadyDone: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { calls, direct, nodeName } = this.#settings;
    const gate = this.#reads === "measured" ? this.#readGate : undefined;
    let done = alreadyDone;
    try {
      await this.descriptor.hold(async (fd) => {
        while (done < buffer.length) {
          const rest = done === 0 ? buffer : buffer.subarray(done);
          const position = offset + done;
          const count = await calls.run(
            () =>
              direct === undefined
                ? this.#measured(gate, rest.length, () =>
                    retried(() => this.#system.read(fd, rest, position)),
                  )
                : readDirect(this.#system, direct.slots, { fd, ...direct }, rest, position),
            signal,
          );
          done += count;
          if (count === 0 || (direct !== undefined && !isAligned(count, direct.alignment))) break;
        }
      });
    } catch (error) {
      if (error === signal?.reason && signal?.aborted === true) throw error;
      const { length } = buffer;
      const context = { node: nodeName, operation: "pread", offset, length };
      throw ioError(error, `read of ${length} bytes at ${offset} failed`, context);
    }
    // The file ends here; what is behind it reads as zeroes.
    if (done < buffer.length) buffer.fill(0, done);
  }

  /** Tells a gate how long a call on the thread pool took; what it waited for its turn says nothing of the disk. */
  async #measured<T>(
    gate: LatencyGate | undefined,
    length: number,
    call: () => Promise<T>,
  ): Promise<T> {
    const { clock } = this.#settings;
    const sinceMs = clock.now();
    const result = await call();
    const nowMs = clock.now();
    gate?.ranPooled(nowMs - sinceMs, length, nowMs);
    return result;
  }

  #mayWriteNow(offset: number, length: number): boolean {
    const { writes, calls, budget } = this.#settings;
    if (writes === "pool" || length > WRITE_NOW_MAX) return false;
    if (writes === "measured") {
      if (!this.#writeGate.isOpen || calls.isStalled()) return false;
      if (!isAligned(offset, PAGE) || !isAligned(length, PAGE)) return false;
    }
    return budget.take(length);
  }

  /** @returns bytes written within the call */
  #writeNow(offset: number, data: Uint8Array | readonly Uint8Array[], length?: number): number {
    const { clock, writes, budget } = this.#settings;
    const sinceMs = clock.now();
    let count = 0;
    try {
      count =
        data instanceof Uint8Array
          ? this.#system.writeNow(this.descriptor.fd, data, offset)
          : this.#system.writevNow(this.descriptor.fd, data, offset);
    } catch {
      // The thread pool makes the call again, and reports what is wrong if it still is.
      count = 0;
    }
    if (writes === "measured") {
      const nowMs = clock.now();
      const tookMs = nowMs - sinceMs;
      this.#writeGate.ranNow(tookMs, length ?? data.length, nowMs);
      budget.charge(tookMs);
    }
    return count;
  }

  async #writeRest(
    offset: number,
    buffers: readonly Uint8Array[],
    length: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { calls, direct, nodeName } = this.#settings;
    const gate = this.#settings.writes === "measured" ? this.#writeGate : undefined;
    try {
      await this.descriptor.hold((fd) =>
        writeFully(
          (rest, position) =>
            calls.run(
              () =>
                direct === undefined
                  ? this.#measured(gate, lengthOf(rest), () =>
                      this.#system.write(fd, rest, position),
                    )
                  : writeDirect(this.#system, direct.slots, { fd, ...direct }, rest, position),
              signal,
            ),
          buffers,
          offset,
        ),
      );
    } catch (error) {
      // A part may have been written, and the file may have grown by it.
      if (offset + length > this.size) await this.refreshSize().catch(() => undefined);
      if (error === signal?.reason && signal?.aborted === true) throw error;
      const context = { node: nodeName, operation: "pwrite", offset, length };
      throw ioError(error, `write of ${length} bytes at ${offset} failed`, context);
    } finally {
      this.isDirty = true;
    }
    if (offset + length > this.size) this.size = offset + length;
  }
}
