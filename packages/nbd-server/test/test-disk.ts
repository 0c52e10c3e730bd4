import {
  type BlockLimits,
  completed,
  DEFAULT_LIMITS,
  type RequestOptions,
} from "@blocklayer/driver";
import type { WritableExportBackend } from "@blocklayer/nbd-server";

/** What the disk was asked for. */
export interface DiskCall {
  readonly operation: "read" | "write" | "writeZeroes" | "discard" | "flush";
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

interface HeldCall extends DiskCall {
  readonly end: (error?: Error) => void;
}

/** A disk in an array that completes within the call, or when the test says so. */
export class TestDisk implements WritableExportBackend {
  readonly bytes: Uint8Array;
  limits: BlockLimits = DEFAULT_LIMITS;
  /** Requests wait until they are released. */
  isHolding: boolean = false;
  /** The next requests fail with this. */
  error: Error | undefined;
  isClosed: boolean = false;
  readonly calls: DiskCall[] = [];
  readonly held: HeldCall[] = [];
  readonly #idle: (() => void)[] = [];

  constructor(length: number = 65536) {
    this.bytes = Uint8Array.from({ length }, (_, index) => (index * 7 + (index >>> 8)) & 0xff);
  }

  get size(): number {
    return this.bytes.length;
  }

  read(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#run({ operation: "read", offset, length: buffer.length }, options, () =>
      buffer.set(this.bytes.subarray(offset, offset + buffer.length)),
    );
  }

  write(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#run({ operation: "write", offset, length: buffer.length }, options, () =>
      this.bytes.set(buffer, offset),
    );
  }

  writeZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#run({ operation: "writeZeroes", offset, length }, options, () =>
      this.bytes.fill(0, offset, offset + length),
    );
  }

  discard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#run({ operation: "discard", offset, length }, options, () => undefined);
  }

  flush(options?: RequestOptions): Promise<void> {
    return this.#run({ operation: "flush", offset: 0, length: 0 }, options, () => undefined);
  }

  async close(): Promise<void> {
    while (this.held.length > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
    this.isClosed = true;
  }

  /** Ends held requests, oldest first unless `index` names one. */
  release(count: number = this.held.length, error?: Error, index: number = 0): void {
    for (const call of this.held.splice(index, count)) call.end(error);
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #run(
    call: Omit<DiskCall, "flags">,
    options: RequestOptions | undefined,
    work: () => void,
  ): Promise<void> {
    const logged = { ...call, flags: options?.flags ?? 0 };
    this.calls.push(logged);
    if (this.isHolding) {
      return new Promise((resolve, reject) => {
        const end = (error?: Error): void => {
          if (error === undefined) {
            work();
            resolve();
          } else reject(error);
        };
        this.held.push({ ...logged, end });
      });
    }
    if (this.error !== undefined) return Promise.reject(this.error);
    work();
    return completed;
  }
}
