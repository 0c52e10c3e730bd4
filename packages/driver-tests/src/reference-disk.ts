import {
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  completed,
  type DriverDefinition,
  type DriverFlags,
  defineDriver,
  mergeLimits,
  RequestFlag,
  rejected,
  StatusFlag,
  type TruncateOptions,
} from "@blocklayer/driver";
import { assert, BlockError } from "@blocklayer/errors";
import { alignUp, isAligned } from "@blocklayer/offsets";
import { object, optional, type Schema, size } from "@blocklayer/schema";

export interface ReferenceDiskOptions {
  /** Bytes. */
  readonly size: number;
  /** What requests it accepts; others are an assertion, since nobody may send them. */
  readonly limits?: Partial<BlockLimits>;
  /** Whether a write beyond the end makes the disk longer, as it does with a file. Default `false`. */
  readonly growing?: boolean;
}

/**
 * The dumbest correct disk: one array of bytes, every request done within the call.
 *
 * It knows no holes: everything is data. Requests that a driver may not send (unaligned, longer than the
 * limits, of zero length, outside) fail with an assertion, so it also judges what is above it.
 */
export class ReferenceDisk implements BlockDriver {
  readonly driverName: string = "x-blocklayer-reference";
  readonly limits: BlockLimits;
  readonly flags: DriverFlags = {
    read: 0,
    write: RequestFlag.fua | RequestFlag.writeUnchanged,
    zeroes: RequestFlag.fua | RequestFlag.writeUnchanged | RequestFlag.mayUnmap,
    truncateZero: true,
  };
  readonly zeroes = "native";
  /** The content. Replaced when the length changes. */
  bytes: Uint8Array;
  readonly #growing: boolean;
  #closed: boolean = false;

  constructor(options: ReferenceDiskOptions) {
    this.bytes = new Uint8Array(options.size);
    this.limits = mergeLimits([], options.limits);
    this.#growing = options.growing ?? false;
  }

  get size(): number {
    return this.bytes.length;
  }

  pread(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#within("pread", offset, buffer.length, this.limits.maxTransfer, () => {
      const inside = this.bytes.subarray(offset, offset + buffer.length);
      buffer.set(inside);
      buffer.fill(0, inside.length);
    });
  }

  pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#within("pwrite", offset, buffer.length, this.limits.maxTransfer, () => {
      this.bytes.set(buffer, offset);
    });
  }

  pwriteZeroes(offset: number, length: number): Promise<void> {
    return this.#within("pwriteZeroes", offset, length, this.limits.maxPwriteZeroes, () => {
      this.bytes.fill(0, offset, offset + length);
    });
  }

  pdiscard(offset: number, length: number): Promise<void> {
    return this.#within("pdiscard", offset, length, this.limits.maxPdiscard, () => {
      this.bytes.fill(0, offset, offset + length);
    });
  }

  flushToDisk(): Promise<void> {
    return this.#closed ? this.#refuse("flushToDisk") : completed;
  }

  blockStatus(offset: number, length: number): Promise<BlockStatus> {
    if (this.#closed) return rejected(this.#closedError("blockStatus"));
    const flags = StatusFlag.data | StatusFlag.offsetValid;
    return Promise.resolve({ flags, length: Math.min(length, this.size - offset), offset });
  }

  truncate(newSize: number, options?: TruncateOptions): Promise<void> {
    if (this.#closed) return this.#refuse("truncate");
    const preallocation = options?.preallocation ?? "off";
    if (preallocation !== "off" && newSize < this.size) {
      return rejected(new BlockError("ENOTSUP", "preallocation is for growing only"));
    }
    this.#resize(newSize);
    return completed;
  }

  allocatedSize(): Promise<number | undefined> {
    return Promise.resolve(this.size);
  }

  close(): Promise<void> {
    this.#closed = true;
    return completed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #within(
    operation: string,
    offset: number,
    length: number,
    lengthMax: number,
    work: () => void,
  ): Promise<void> {
    if (this.#closed) return this.#refuse(operation);
    try {
      this.#checkRequest(operation, offset, length, lengthMax);
    } catch (error) {
      return rejected(error);
    }
    work();
    return completed;
  }

  #checkRequest(operation: string, offset: number, length: number, lengthMax: number): void {
    const what = `${operation} of ${length} bytes at ${offset}`;
    const { requestAlignment } = this.limits;
    assert(Number.isSafeInteger(offset) && offset >= 0, `${what}: the offset is not valid`);
    assert(length > 0, `${what}: the length is zero`);
    assert(
      isAligned(offset, requestAlignment) && isAligned(length, requestAlignment),
      `${what} is not aligned to ${requestAlignment}`,
    );
    assert(lengthMax === 0 || length <= lengthMax, `${what} is longer than ${lengthMax}`);
    const end = offset + length;
    if (end <= this.size) return;
    // The last block of a disk that is not a multiple of its alignment can only be read whole.
    if (operation === "pread" && end <= alignUp(this.size, requestAlignment)) return;
    assert(operation !== "pread" && operation !== "pdiscard", `${what} goes beyond ${this.size}`);
    if (!this.#growing) {
      throw new BlockError("ENOSPC", `${what} goes beyond ${this.size}`, {
        operation,
        offset,
        length,
      });
    }
    this.#resize(end);
  }

  #resize(newSize: number): void {
    const bytes = new Uint8Array(newSize);
    bytes.set(this.bytes.subarray(0, newSize));
    this.bytes = bytes;
  }

  #refuse(operation: string): Promise<void> {
    return rejected(this.#closedError(operation));
  }

  #closedError(operation: string): BlockError {
    return new BlockError("ESHUTDOWN", `${operation} after the disk was closed`, { operation });
  }
}

const schema: Schema<ReferenceOptions> = object({
  size: size(),
  "request-alignment": optional(size(), 1),
  "max-transfer": optional(size(), 0),
});

/** Options of the driver `x-blocklayer-reference`, in bytes; `max-transfer` 0 means no limit. */
export interface ReferenceOptions {
  readonly size: number;
  readonly "request-alignment": number;
  readonly "max-transfer": number;
}

/** {@link ReferenceDisk} for a graph, under the driver name `x-blocklayer-reference`. */
export const reference: DriverDefinition<"x-blocklayer-reference", ReferenceOptions, never> =
  defineDriver({
    driverName: "x-blocklayer-reference",
    schema,
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    open: (_host, options) =>
      Promise.resolve(
        new ReferenceDisk({
          size: options.size,
          limits: {
            requestAlignment: options["request-alignment"],
            maxTransfer: options["max-transfer"],
          },
        }),
      ),
  });
