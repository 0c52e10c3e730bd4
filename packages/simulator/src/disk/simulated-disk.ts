import {
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  completed,
  type DriverDefinition,
  type DriverFlags,
  defineDriver,
  RequestFlag,
  type RequestOptions,
  rejected,
  StatusFlag,
  type TruncateOptions,
} from "@blocklayer/driver";
import { assert, BlockError } from "@blocklayer/errors";
import { alignUp } from "@blocklayer/offsets";
import { object, optional, type Schema, size, string } from "@blocklayer/schema";
import { afterClose, type Medium, unanswered } from "./medium.ts";

/** Options of the driver `x-blocklayer-simulated`, in bytes; `max-transfer` 0 means no limit. */
export interface SimulatedDiskOptions {
  /** Name of the medium to open. */
  readonly medium: string;
  readonly "request-alignment": number;
  readonly "max-transfer": number;
}

/**
 * A disk of simulated storage: one opening of a {@link Medium}.
 *
 * A flush that has failed and forgotten what it covered is reported by every later one, until the medium is opened
 * anew: nothing else would tell that data is lost.
 */
export class SimulatedDisk implements BlockDriver {
  readonly driverName: string = "x-blocklayer-simulated";
  readonly limits: Partial<BlockLimits>;
  readonly flags: DriverFlags = {
    read: 0,
    write: RequestFlag.fua | RequestFlag.writeUnchanged,
    zeroes: RequestFlag.fua | RequestFlag.writeUnchanged | RequestFlag.mayUnmap,
    truncateZero: true,
  };
  readonly zeroes = "native";
  readonly #medium: Medium;
  readonly #life: number;
  readonly #alignment: number;
  readonly #statusUnit: number;
  /** Flushes that had lost data before this opening. */
  readonly #lostCount: number;
  #closing: Promise<void> | undefined;

  constructor(medium: Medium, options: Omit<SimulatedDiskOptions, "medium">) {
    const alignment = options["request-alignment"];
    this.#medium = medium;
    this.#life = medium.life;
    this.#lostCount = medium.lostCount;
    this.#alignment = alignment;
    this.#statusUnit = Math.max(alignment, medium.cache.sectorSize);
    this.limits = { requestAlignment: alignment, maxTransfer: options["max-transfer"] };
  }

  get size(): number {
    return this.#medium.size;
  }

  pread(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#open("pread", () => this.#medium.read(offset, buffer));
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#open("pwrite", () => {
      const refusal = this.#beyondEnd("pwrite", offset, buffer.length);
      return refusal ?? this.#medium.write(offset, buffer, isFua(options));
    });
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const unmaps = ((options?.flags ?? 0) & RequestFlag.mayUnmap) !== 0;
    return this.#open("pwriteZeroes", () => {
      const refusal = this.#beyondEnd("pwriteZeroes", offset, length);
      return refusal ?? this.#medium.zero(offset, length, unmaps, isFua(options));
    });
  }

  pdiscard(offset: number, length: number): Promise<void> {
    return this.#open("pdiscard", () => this.#medium.discard(offset, length));
  }

  flushToDisk(): Promise<void> {
    return this.#open("flushToDisk", () => this.#flush());
  }

  truncate(newSize: number, { preallocation = "off" }: TruncateOptions = {}): Promise<void> {
    return this.#open("truncate", () => {
      const context = { operation: "truncate", size: newSize };
      if (preallocation !== "off") {
        const message = `preallocation ${preallocation} is not supported`;
        return rejected(new BlockError("ENOTSUP", message, context));
      }
      if (newSize <= this.#medium.capacity) return this.#medium.truncate(newSize);
      const message = `${newSize} bytes are more than the capacity of ${this.#medium.capacity}`;
      return rejected(new BlockError("ENOSPC", message, context));
    });
  }

  blockStatus(offset: number, length: number): Promise<BlockStatus> {
    return this.#open("blockStatus", async () => {
      const run = await this.#medium.status(offset, length, this.#statusUnit);
      const kind = run.isHole ? StatusFlag.zero : StatusFlag.data;
      return { flags: kind | StatusFlag.offsetValid, length: run.length, offset };
    });
  }

  /** Flushes what is not stable. A request that is still in flight is somebody's mistake. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #close(): Promise<void> {
    if (this.#life !== this.#medium.life) return unanswered();
    const { inFlight, name } = this.#medium;
    assert(inFlight === 0, () => `${name} is closed with ${inFlight} requests in flight`);
    return this.#medium.cache.isStable ? completed : this.#flush();
  }

  #flush(): Promise<void> {
    const { lostCount } = this.#medium;
    if (lostCount === this.#lostCount) return this.#medium.flush();
    const message = "an earlier flush failed";
    return rejected(new BlockError("EIO", message, { operation: "flush" }));
  }

  #open<T>(operation: string, work: () => Promise<T>): Promise<T> {
    if (this.#life !== this.#medium.life) return unanswered();
    return this.#closing === undefined ? work() : afterClose(operation);
  }

  /** Beyond the last block only a medium that grows takes writes. */
  #beyondEnd(operation: string, offset: number, length: number): Promise<void> | undefined {
    const { grows, capacity } = this.#medium;
    const end = grows ? capacity : Math.min(alignUp(this.size, this.#alignment), capacity);
    if (offset + length <= end) return undefined;
    const message = `${operation} of ${length} bytes at ${offset} goes beyond ${end}`;
    return rejected(new BlockError("ENOSPC", message, { operation, offset, length }));
  }
}

function isFua(options: RequestOptions | undefined): boolean {
  return ((options?.flags ?? 0) & RequestFlag.fua) !== 0;
}

const schema: Schema<SimulatedDiskOptions> = object({
  medium: string(),
  "request-alignment": optional(size(), 1),
  "max-transfer": optional(size(), 0),
});

/**
 * Returns the driver `x-blocklayer-simulated`, which opens these media.
 *
 * `open` fails with `ENOENT` when there is no medium of the name.
 */
export function simulatedDisk(
  media: ReadonlyMap<string, Medium>,
): DriverDefinition<"x-blocklayer-simulated", SimulatedDiskOptions, never> {
  return defineDriver({
    driverName: "x-blocklayer-simulated",
    schema,
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    open: (host, options) => {
      const medium = media.get(options.medium);
      if (medium !== undefined) return Promise.resolve(new SimulatedDisk(medium, options));
      const message = `there is no medium '${options.medium}'`;
      return rejected(new BlockError("ENOENT", message, { node: host.nodeName }));
    },
  });
}
