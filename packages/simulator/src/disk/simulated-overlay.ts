import {
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  completed,
  type DriverDefinition,
  type DriverFlags,
  defineDriver,
  type ImageInfo,
  type NodeHost,
  RequestFlag,
  type RequestOptions,
  Role,
  rejected,
  StatusFlag,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { object, optional, type Schema, size, string } from "@blocklayer/schema";
import type { OverlayStore } from "./overlay-store.ts";

/** Options of the driver `x-blocklayer-simulated-overlay`, beside its child `backing`. */
export interface SimulatedOverlayOptions {
  /** Name of the store to open. */
  readonly store: string;
  /** Bytes that the image says it allocates at once; 0 says nothing. Compressed writes are of whole ones. */
  readonly "cluster-size": number;
}

/**
 * An image with a map of what it holds: what it does not hold is read from its backing node, or is zeroes.
 *
 * Its unit of allocation is also its alignment, so that the graph completes smaller writes.
 */
export class SimulatedOverlay implements BlockDriver {
  readonly driverName: string = "x-blocklayer-simulated-overlay";
  readonly limits: Partial<BlockLimits>;
  readonly flags: DriverFlags = {
    read: 0,
    write: RequestFlag.fua | RequestFlag.writeUnchanged | RequestFlag.compressed,
    zeroes: RequestFlag.fua | RequestFlag.writeUnchanged | RequestFlag.mayUnmap,
    truncateZero: false,
  };
  readonly zeroes = "native";
  readonly #host: NodeHost;
  readonly #store: OverlayStore;
  readonly #clusterSize: number;
  #closing: Promise<void> | undefined;

  constructor(host: NodeHost, store: OverlayStore, clusterSize: number) {
    this.#host = host;
    this.#store = store;
    this.#clusterSize = clusterSize;
    this.limits = { requestAlignment: store.unit };
  }

  get size(): number {
    return this.#store.medium.size;
  }

  async pread(offset: number, buffer: Uint8Array): Promise<void> {
    this.#checkOpen("pread");
    const end = offset + buffer.length;
    for (let at = offset; at < end; ) {
      const { isAllocated, length } = this.#store.run(at, end - at);
      const part = buffer.subarray(at - offset, at - offset + length);
      if (isAllocated) await this.#store.medium.read(at, part);
      else await this.#readBelow(at, part);
      at += length;
    }
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const flags = options?.flags ?? 0;
    const isPart = (flags & RequestFlag.compressed) !== 0 && !this.#isClusters(offset, buffer);
    if (isPart) return this.#refuse("compressed write of a part of a cluster", offset, buffer);
    return this.#change(offset, buffer.length, () =>
      this.#store.medium.write(offset, buffer, (flags & RequestFlag.fua) !== 0),
    );
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const flags = options?.flags ?? 0;
    const unmaps = (flags & RequestFlag.mayUnmap) !== 0;
    return this.#change(offset, length, () =>
      this.#store.medium.zero(offset, length, unmaps, (flags & RequestFlag.fua) !== 0),
    );
  }

  /** What the image does not hold stays so. */
  async pdiscard(offset: number, length: number): Promise<void> {
    this.#checkOpen("pdiscard");
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const run = this.#store.run(at, end - at);
      if (run.isAllocated) await this.#store.medium.discard(at, run.length);
      at += run.length;
    }
  }

  async flushToDisk(): Promise<void> {
    this.#checkOpen("flushToDisk");
    await this.#store.medium.flush();
  }

  async blockStatus(offset: number, length: number): Promise<BlockStatus> {
    this.#checkOpen("blockStatus");
    const { isAllocated, length: run } = this.#store.run(offset, length);
    const status = await this.#store.status(offset, run);
    // What was written meanwhile counts neither way.
    if (!isAllocated) return { flags: 0, length: run };
    const kind = status.isHole ? StatusFlag.zero : StatusFlag.data;
    return { flags: kind | StatusFlag.offsetValid, length: status.length, offset };
  }

  getInfo(): Promise<ImageInfo> {
    const clusterSize = this.#clusterSize;
    return Promise.resolve(clusterSize === 0 ? {} : { clusterSize });
  }

  close(): Promise<void> {
    const { medium } = this.#store;
    this.#closing ??= medium.cache.dirtySectors === 0 ? completed : medium.flush();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A unit is held from the moment in which its write has ended well. */
  async #change(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    this.#checkOpen("a change");
    await work();
    this.#store.allocate(offset, length);
  }

  async #readBelow(offset: number, buffer: Uint8Array): Promise<void> {
    const backing: BlockChild | undefined = this.#host.children.get("backing");
    const inside = Math.min(buffer.length, Math.max(0, (backing?.size ?? 0) - offset));
    buffer.fill(0, inside);
    if (inside > 0) await backing?.pread(offset, buffer.subarray(0, inside));
  }

  #checkOpen(operation: string): void {
    if (this.#closing === undefined) return;
    const message = `${operation} after the image was closed`;
    throw new BlockError("ESHUTDOWN", message, { node: this.#host.nodeName, operation });
  }

  #isClusters(offset: number, { length }: Uint8Array): boolean {
    const unit = Math.max(this.#clusterSize, this.#store.unit);
    return offset % unit === 0 && (length % unit === 0 || offset + length === this.size);
  }

  #refuse(what: string, offset: number, { length }: Uint8Array): Promise<void> {
    const message = `${what}: ${length} bytes at ${offset}`;
    return rejected(new BlockError("EINVAL", message, { node: this.#host.nodeName, offset }));
  }
}

const schema: Schema<SimulatedOverlayOptions> = object({
  store: string(),
  "cluster-size": optional(size(), 0),
});

/**
 * Returns the driver `x-blocklayer-simulated-overlay`, which opens these stores.
 *
 * `open` fails with `ENOENT` when there is no store of the name.
 */
export function simulatedOverlay(
  stores: ReadonlyMap<string, OverlayStore>,
): DriverDefinition<"x-blocklayer-simulated-overlay", SimulatedOverlayOptions, "backing"> {
  return defineDriver({
    driverName: "x-blocklayer-simulated-overlay",
    schema,
    children: [{ name: "backing", role: Role.cow, required: false }],
    isFilter: false,
    isProtocol: false,
    supportsBacking: true,
    open: async (host, options) => {
      const store = stores.get(options.store);
      if (store === undefined) {
        const message = `there is no store '${options.store}'`;
        throw new BlockError("ENOENT", message, { node: host.nodeName });
      }
      if (host.childOption("backing") === "given") await host.openChild("backing", Role.cow);
      return new SimulatedOverlay(host, store, options["cluster-size"]);
    },
  });
}
