import {
  ALL_PERMISSIONS,
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type ChainStatusOptions,
  type CheckOptions,
  type CheckResult,
  completed,
  type DriverFlags,
  type ImageInfo,
  mergeLimits,
  type Permission,
  RequestFlag,
  type RequestOptions,
  Role,
  type RoleMask,
  rejected,
  StatusFlag,
  type StatusOptions,
  type TruncateOptions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { joinBuffers } from "./pattern.ts";
import { RequestGate } from "./request-gate.ts";

export interface TestChildOptions {
  /** Default `"file"`. */
  readonly name?: string;
  /** Default data and primary. */
  readonly role?: RoleMask;
  /** Default the child's name. */
  readonly nodeName?: string;
  /** Default: a gate of its own that lets everything through. */
  readonly gate?: RequestGate;
}

/**
 * Wraps a driver as the child of another, without a graph.
 *
 * It emulates what is trivial (vectored writes, zeroes, flushes, flags that the driver lacks) and passes
 * everything else: requests have to be valid for the driver as they are.
 */
export function testChild(driver: BlockDriver, options: TestChildOptions = {}): TestChild {
  return new TestChild(driver, options);
}

/** The edge that {@link testChild} makes. */
export class TestChild implements BlockChild {
  readonly name: string;
  readonly role: RoleMask;
  readonly nodeName: string;
  readonly perm: Permission = ALL_PERMISSIONS;
  readonly shared: Permission = ALL_PERMISSIONS;
  /** The driver below. */
  readonly driver: BlockDriver;
  readonly gate: RequestGate;
  #closed: boolean = false;

  constructor(driver: BlockDriver, options: TestChildOptions = {}) {
    this.driver = driver;
    this.name = options.name ?? "file";
    this.role = options.role ?? Role.data | Role.primary;
    this.nodeName = options.nodeName ?? this.name;
    this.gate = options.gate ?? new RequestGate();
  }

  get driverName(): string {
    return this.driver.driverName;
  }

  get size(): number {
    return this.driver.size;
  }

  get limits(): BlockLimits {
    return mergeLimits([], this.driver.limits);
  }

  get flags(): DriverFlags {
    return this.driver.flags;
  }

  get zeroes(): BlockDriver["zeroes"] {
    return this.driver.zeroes;
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const inside = Math.min(buffer.length, Math.max(0, this.size - offset));
    buffer.fill(0, inside);
    if (inside === 0) return completed;
    const part = inside === buffer.length ? buffer : buffer.subarray(0, inside);
    return this.#pass("pread", offset, buffer.length, () =>
      this.driver.pread(offset, part, this.#masked(options, this.flags.read)),
    );
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    if (buffer.length === 0) return completed;
    return this.#pass("pwrite", offset, buffer.length, () => this.#write(offset, buffer, options));
  }

  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    const { driver } = this;
    const length = buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    if (length === 0) return completed;
    return this.#pass("pwritev", offset, length, () =>
      driver.pwritev === undefined
        ? this.#write(offset, joinBuffers(buffers), options)
        : this.#stable(options, this.flags.write, (masked) =>
            driver.pwritev?.(offset, buffers, masked),
          ),
    );
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    if (length === 0) return completed;
    return this.#pass("pwriteZeroes", offset, length, () =>
      this.#writeZeroes(offset, length, options),
    );
  }

  pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const { driver } = this;
    if (length === 0 || driver.pdiscard === undefined) return completed;
    return this.#pass("pdiscard", offset, length, async () => {
      try {
        await driver.pdiscard?.(offset, length, options);
      } catch (error) {
        if (!isUnsupported(error)) throw error;
      }
    });
  }

  flush(options?: RequestOptions): Promise<void> {
    return this.#pass("flush", 0, 0, () => this.#flush(options));
  }

  blockStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    return this.#pass("blockStatus", offset, length, () => this.#status(offset, length, options));
  }

  async chainStatus(
    offset: number,
    length: number,
    options?: ChainStatusOptions,
  ): Promise<BlockStatus & { readonly depth: number }> {
    const status = await this.blockStatus(offset, length, options);
    const isDecided = (status.flags & (StatusFlag.data | StatusFlag.zero)) !== 0;
    return { ...status, depth: isDecided ? 1 : 0 };
  }

  truncate(size: number, options?: TruncateOptions): Promise<void> {
    return this.#pass(
      "truncate",
      size,
      0,
      () => this.driver.truncate?.(size, options) ?? this.#unsupported("truncate"),
    );
  }

  makeEmpty(options?: RequestOptions): Promise<void> {
    return this.#pass(
      "makeEmpty",
      0,
      0,
      () => this.driver.makeEmpty?.(options) ?? this.#unsupported("makeEmpty"),
    );
  }

  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.#pass(
      "copyRangeFrom",
      offset,
      length,
      () =>
        this.driver.copyRangeFrom?.(offset, target, targetOffset, length, options) ??
        this.#unsupported("copyRangeFrom"),
    );
  }

  copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.#pass(
      "copyRangeTo",
      offset,
      length,
      () =>
        this.driver.copyRangeTo?.(source, sourceOffset, offset, length, options) ??
        this.#unsupported("copyRangeTo"),
    );
  }

  getInfo(): Promise<ImageInfo> {
    return this.driver.getInfo?.() ?? this.#unsupported("getInfo");
  }

  check(options?: CheckOptions): Promise<CheckResult> {
    return this.driver.check?.(options) ?? this.#unsupported("check");
  }

  allocatedSize(): Promise<number | undefined> {
    return this.driver.allocatedSize?.() ?? Promise.resolve(undefined);
  }

  freeSpace(): Promise<number | undefined> {
    return this.driver.freeSpace?.() ?? Promise.resolve(undefined);
  }

  /** Lets nothing more through. The driver below is closed by whoever opened it. */
  detach(): void {
    this.#closed = true;
  }

  #pass<T>(operation: string, offset: number, length: number, run: () => Promise<T>): Promise<T> {
    if (this.#closed) {
      const context = { node: this.nodeName, operation, offset, length };
      return rejected(
        new BlockError("ESHUTDOWN", `${operation} after the child was closed`, context),
      );
    }
    return this.gate.pass({ child: this.name, operation, offset, length }, run);
  }

  #write(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#stable(options, this.flags.write, (masked) =>
      this.driver.pwrite?.(offset, buffer, masked),
    );
  }

  async #writeZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const { driver } = this;
    if (driver.zeroes === "none") return this.#unsupported("pwriteZeroes");
    try {
      if (driver.zeroes === "native") {
        await this.#stable(options, this.flags.zeroes, (masked) =>
          driver.pwriteZeroes?.(offset, length, masked),
        );
        return;
      }
    } catch (error) {
      if (!isUnsupported(error)) throw error;
    }
    if (((options?.flags ?? 0) & RequestFlag.noFallback) !== 0) {
      return this.#unsupported("pwriteZeroes without fallback");
    }
    await this.#write(offset, new Uint8Array(length), options);
  }

  /** Runs a write with the flags that the driver understands, and flushes after it in place of FUA. */
  #stable(
    options: RequestOptions | undefined,
    understood: number,
    run: (masked: RequestOptions | undefined) => Promise<void> | undefined,
  ): Promise<void> {
    const flags = options?.flags ?? 0;
    if ((flags & RequestFlag.compressed & ~understood) !== 0) {
      return this.#unsupported("compressed writes");
    }
    const work = run(this.#masked(options, understood)) ?? this.#unsupported("pwrite");
    if ((flags & RequestFlag.fua & ~understood) === 0) return work;
    return work.then(() => this.#flush());
  }

  async #flush(options?: RequestOptions): Promise<void> {
    const { driver } = this;
    if (driver.flush !== undefined) return driver.flush(options);
    await driver.flushToOs?.(options);
    await driver.flushToDisk?.(options);
  }

  #status(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    const { driver, size } = this;
    if (offset >= size) return Promise.resolve({ flags: StatusFlag.eof, length: 0 });
    const inside = Math.min(length, size - offset);
    return (
      driver.blockStatus?.(offset, inside, options) ??
      Promise.resolve({ flags: StatusFlag.data, length: inside })
    );
  }

  #masked(options: RequestOptions | undefined, understood: number): RequestOptions | undefined {
    const flags = options?.flags ?? 0;
    return (flags & ~understood) === 0 ? options : { ...options, flags: flags & understood };
  }

  #unsupported<T = void>(operation: string): Promise<T> {
    const context = { node: this.nodeName, operation };
    return rejected(
      new BlockError("ENOTSUP", `${this.driverName} does not support ${operation}`, context),
    );
  }
}

function isUnsupported(error: unknown): boolean {
  return error instanceof BlockError && error.code === "ENOTSUP";
}
