import { RequestFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { CallQueue } from "./call-queue.ts";
import type { Descriptor } from "./descriptor.ts";
import { ioError, nativeError } from "./io-error.ts";
import { Errno, Fallocate } from "./native-calls.ts";
import type { OperatingSystem } from "./operating-system.ts";
import { writeFully } from "./write-fully.ts";

const RETRY_MAX = 1000;

/** A way to change how a range is stored. */
type Method = "zero-range" | "punch-hole" | "allocate";

const MODE: Readonly<Record<Method, number>> = {
  "zero-range": Fallocate.zeroRange,
  "punch-hole": Fallocate.punchHole + Fallocate.keepSize,
  allocate: 0,
};

/** A request to make a range read as zeroes. */
export interface ZeroRequest {
  readonly offset: number;
  readonly length: number;
  /** Bytes of the file now. */
  readonly size: number;
  /** `RequestFlag` bits. */
  readonly flags: number;
  /** Whether discards reach the disk, so that a hole may be made. */
  readonly mayUnmap: boolean;
}

/** Counts of discards, as statistics show them. */
export interface DiscardStats {
  discardsOk: number;
  discardsFailed: number;
  discardedBytes: number;
}

/**
 * Writes zeroes and discards without moving bytes, by what the file system offers.
 *
 * Each method that is not supported is not tried again; one that refuses the range or is busy leaves the request
 * to the next.
 *
 * @see spec/filters-and-raw.md section 6.3
 */
export class Space {
  readonly stats: DiscardStats = { discardsOk: 0, discardsFailed: 0, discardedBytes: 0 };
  readonly #system: OperatingSystem;
  readonly #calls: CallQueue;
  readonly #nodeName: string;
  readonly #isDevice: boolean;
  readonly #isDirect: boolean;
  readonly #disabled = new Set<Method>();

  constructor(
    system: OperatingSystem,
    options: {
      readonly calls: CallQueue;
      readonly nodeName: string;
      readonly isDevice: boolean;
      /** Whether the page cache is bypassed, so that single bytes cannot be written. */
      readonly isDirect: boolean;
    },
  ) {
    this.#system = system;
    this.#calls = options.calls;
    this.#nodeName = options.nodeName;
    this.#isDevice = options.isDevice;
    this.#isDirect = options.isDirect;
  }

  /**
   * Makes a range read as zeroes. A range beyond the end makes the file longer.
   *
   * @throws BlockError `ENOTSUP` no method works, zeroes have to be written; `ENOSPC`, `EIO` a method failed
   */
  async zero(descriptor: Descriptor, request: ZeroRequest): Promise<void> {
    const { offset, length, size, flags, mayUnmap } = request;
    const unmap = mayUnmap && (flags & RequestFlag.mayUnmap) !== 0;
    if (unmap && (await this.#makeHole(descriptor, request))) return;
    // On a device the kernel may write zeroes by itself, which is not what was asked for.
    const isSlow = this.#isDevice && (flags & RequestFlag.noFallback) !== 0;
    if (!isSlow && (await this.#try(descriptor, "zero-range", offset, length))) return;
    if (!this.#isDevice) {
      if (!unmap && (await this.#punchAndAllocate(descriptor, offset, length))) return;
      if (offset >= size && (await this.#growOver(descriptor, offset, length))) return;
    }
    throw this.#unsupported("pwriteZeroes", "write-zeroes", offset, length);
  }

  async #makeHole(descriptor: Descriptor, request: ZeroRequest): Promise<boolean> {
    const { offset, length, size } = request;
    if (!(await this.#try(descriptor, "punch-hole", offset, length))) return false;
    return offset + length <= size || this.#isDevice || this.#extend(descriptor, offset + length);
  }

  async #growOver(descriptor: Descriptor, offset: number, length: number): Promise<boolean> {
    if (await this.#try(descriptor, "allocate", offset, length)) return true;
    return this.#extend(descriptor, offset + length);
  }

  /**
   * Gives the space of a range back; it reads as zeroes.
   *
   * @throws BlockError `ENOTSUP` the file system cannot
   */
  async discard(descriptor: Descriptor, offset: number, length: number): Promise<void> {
    try {
      if (!(await this.#try(descriptor, "punch-hole", offset, length))) {
        throw this.#unsupported("pdiscard", "discard", offset, length);
      }
    } catch (error) {
      this.stats.discardsFailed += 1;
      throw error;
    }
    this.stats.discardsOk += 1;
    this.stats.discardedBytes += length;
  }

  /** Allocates a range. @returns whether the file system could */
  allocate(descriptor: Descriptor, offset: number, length: number): Promise<boolean> {
    return this.#try(descriptor, "allocate", offset, length);
  }

  /** A hole reads as zeroes already; allocating it again only keeps the promise of space. */
  async #punchAndAllocate(
    descriptor: Descriptor,
    offset: number,
    length: number,
  ): Promise<boolean> {
    if (this.#disabled.has("allocate")) return false;
    if (!(await this.#try(descriptor, "punch-hole", offset, length))) return false;
    return this.#try(descriptor, "allocate", offset, length);
  }

  /**
   * Makes the file reach to `size`, by the last byte of the range that the request owns. Setting the size
   * instead could cut off what a request beyond this one has written meanwhile.
   *
   * @returns whether it could
   */
  async #extend(descriptor: Descriptor, size: number): Promise<boolean> {
    if (await this.#try(descriptor, "allocate", size - 1, 1)) return true;
    if (this.#isDirect) return false;
    const zero = [new Uint8Array(1)];
    try {
      await this.#calls.run(() =>
        descriptor.hold((fd) =>
          writeFully((rest, position) => this.#system.write(fd, rest, position), zero, size - 1),
        ),
      );
    } catch (error) {
      const context = { node: this.#nodeName, operation: "pwriteZeroes", size };
      throw ioError(error, `growing to ${size} bytes failed`, context);
    }
    return true;
  }

  /** @returns whether it is done; `false`: another method has to do it */
  async #try(
    descriptor: Descriptor,
    method: Method,
    offset: number,
    length: number,
  ): Promise<boolean> {
    const { native } = this.#system;
    if (native === undefined || this.#disabled.has(method)) return false;
    const result = await this.#calls.run(() =>
      descriptor.hold(async (fd) => {
        let answer = 0;
        for (let attempt = 0; attempt < RETRY_MAX; attempt += 1) {
          answer = await native.fallocate(fd, MODE[method], offset, length);
          if (answer !== -Errno.EINTR) break;
        }
        return answer;
      }),
    );
    if (result >= 0) return true;
    if (result === -Errno.ENOTSUP || result === -Errno.ENOSYS) this.#disabled.add(method);
    else if (result !== -Errno.EINVAL && result !== -Errno.EBUSY) {
      const context = { node: this.#nodeName, operation: method, offset, length };
      throw nativeError(result, `${method} of ${length} bytes at ${offset} failed`, context);
    }
    return false;
  }

  #unsupported(operation: string, what: string, offset: number, length: number): BlockError {
    const { native, nativeMissing } = this.#system;
    const why = native === undefined ? nativeMissing : "the file system has no call for it";
    return new BlockError(
      "ENOTSUP",
      `${what} of ${length} bytes at ${offset} is not supported`,
      { node: this.#nodeName, operation, offset, length },
      { hint: why },
    );
  }
}
