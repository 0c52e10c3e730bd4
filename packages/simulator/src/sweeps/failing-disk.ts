import {
  type BitmapContent,
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type DriverDefinition,
  type DriverFlags,
  defineDriver,
  type ImageInfo,
  type PersistentBitmaps,
  type PreparedReopen,
  RequestFlag,
  type RequestOptions,
  StatusFlag,
  type StoredBitmap,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { object, string } from "@blocklayer/schema";
import type { FaultPlan, SweptOperation } from "./fault-plan.ts";

/** A bitmap as an image keeps it. */
interface KeptBitmap extends StoredBitmap {
  readonly bytes: Uint8Array;
}

/** Storage that outlives the nodes that open it. */
export class FailingStore {
  readonly name: string;
  content: Uint8Array;
  /** How much of it is known to be stable: changes since the last flush that succeeded. */
  unstableChanges = 0;
  bitmaps: KeptBitmap[] = [];
  /** Drivers that have it open. */
  openCount = 0;

  constructor(name: string, content: Uint8Array) {
    this.name = name;
    this.content = content;
  }
}

/** What disks of a sweep share. */
export interface FailingDisks {
  readonly stores: ReadonlyMap<string, FailingStore>;
  readonly plan: FaultPlan;
  /** Resolves later, in a turn of its own. */
  readonly turn: (tag: string) => Promise<void>;
}

/** A disk every operation of which can be made to fail; what fails has been done by half. */
class FailingDisk implements BlockDriver {
  readonly driverName: string = "x-blocklayer-failing";
  readonly limits: Partial<BlockLimits> = { requestAlignment: 512 };
  readonly flags: DriverFlags = {
    read: 0,
    write: RequestFlag.fua,
    zeroes: RequestFlag.fua | RequestFlag.mayUnmap,
    truncateZero: true,
  };
  readonly zeroes = "native";
  readonly persistentBitmaps: PersistentBitmaps;
  readonly #store: FailingStore;
  readonly #disks: FailingDisks;
  #closing: Promise<void> | undefined;

  constructor(store: FailingStore, disks: FailingDisks) {
    this.#store = store;
    this.#disks = disks;
    this.persistentBitmaps = new FailingBitmaps(store, disks);
    store.openCount += 1;
  }

  get size(): number {
    return this.#store.content.length;
  }

  async pread(offset: number, buffer: Uint8Array): Promise<void> {
    buffer.fill(0xee);
    await this.#do("read", { offset, length: buffer.length });
    buffer.fill(0);
    buffer.set(this.#store.content.subarray(offset, offset + buffer.length));
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#change("write", offset, buffer, options);
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#change("zeroes", offset, new Uint8Array(length), options);
  }

  pdiscard(offset: number, length: number): Promise<void> {
    return this.#change("discard", offset, new Uint8Array(length));
  }

  async flushToDisk(): Promise<void> {
    const covered = this.#store.unstableChanges;
    await this.#do("flush");
    this.#store.unstableChanges -= covered;
  }

  async blockStatus(offset: number, length: number): Promise<BlockStatus> {
    await this.#do("status", { offset, length });
    const part = this.#store.content.subarray(offset, offset + length);
    const isZero = part.findIndex((byte) => byte !== 0) < 0;
    const kind = isZero ? StatusFlag.zero : StatusFlag.data;
    return { flags: kind | StatusFlag.offsetValid, length, offset };
  }

  async truncate(size: number): Promise<void> {
    await this.#do("truncate", { size });
    const before = this.#store.content;
    this.#store.content = new Uint8Array(size);
    this.#store.content.set(before.subarray(0, size));
  }

  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return target.copyRangeTo(this, offset, targetOffset, length, options);
  }

  async copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<void> {
    if (!(source instanceof FailingDisk)) {
      throw new BlockError("ENOTSUP", "a failing disk copies from its like alone", { offset });
    }
    const from = source.#store.content.subarray(sourceOffset, sourceOffset + length);
    await this.#do("copy range", { offset, length });
    this.#store.content.set(from, offset);
    this.#store.unstableChanges += 1;
  }

  inactivate(): Promise<void> {
    return this.#do("inactivate");
  }

  activate(): Promise<void> {
    return this.#do("activate");
  }

  async getInfo(): Promise<ImageInfo> {
    await this.#do("info");
    return { clusterSize: 65536 };
  }

  preparePermissions(): Promise<void> {
    return this.#do("permissions");
  }

  async prepareReopen(): Promise<PreparedReopen> {
    await this.#do("reopen");
    return { commit: () => undefined, abort: () => undefined };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Closed it is in any case. */
  async #close(): Promise<void> {
    this.#store.openCount -= 1;
    await this.#do("close");
  }

  async #change(
    operation: "write" | "zeroes" | "discard",
    offset: number,
    buffer: Uint8Array,
    options?: RequestOptions,
  ): Promise<void> {
    const { content } = this.#store;
    try {
      await this.#do(operation, { offset, length: buffer.length });
      content.set(buffer, offset);
      if (((options?.flags ?? 0) & RequestFlag.fua) === 0) this.#store.unstableChanges += 1;
    } catch (error) {
      content.set(buffer.subarray(0, Math.floor(buffer.length / 1024) * 512), offset);
      throw error;
    }
  }

  #do(operation: SweptOperation, detail?: object): Promise<void> {
    return act(this.#disks, this.#store, operation, detail);
  }
}

class FailingBitmaps implements PersistentBitmaps {
  readonly owner = "unknown";
  readonly #store: FailingStore;
  readonly #disks: FailingDisks;

  constructor(store: FailingStore, disks: FailingDisks) {
    this.#store = store;
    this.#disks = disks;
  }

  async list(): Promise<readonly StoredBitmap[]> {
    await this.#do("bitmap list");
    return this.#store.bitmaps;
  }

  async load(name: string): Promise<BitmapContent> {
    await this.#do("bitmap load");
    const { bytes } = this.#store.bitmaps.find((kept) => kept.name === name) as KeptBitmap;
    return {
      serializedLength: bytes.length,
      read: (offset, length) => bytes.subarray(offset, offset + length),
    };
  }

  canStore(): Promise<void> {
    return this.#do("bitmap check");
  }

  async store(
    bitmaps: readonly (StoredBitmap & { readonly content: BitmapContent })[],
  ): Promise<void> {
    await this.#do("bitmap store");
    const kept: KeptBitmap[] = [];
    for (const { content, ...stored } of bitmaps) {
      const bytes = new Uint8Array(content.serializedLength);
      const part = await content.read(0, bytes.length);
      if (part !== undefined) bytes.set(part);
      kept.push({ ...stored, bytes });
    }
    this.#store.bitmaps = kept;
  }

  async remove(name: string): Promise<void> {
    await this.#do("bitmap remove");
    this.#store.bitmaps = this.#store.bitmaps.filter((kept) => kept.name !== name);
  }

  async markInUse(names: readonly string[]): Promise<void> {
    await this.#do("bitmap in use");
    this.#store.bitmaps = this.#store.bitmaps.map((kept) =>
      names.includes(kept.name) ? { ...kept, inUse: true } : kept,
    );
  }

  log(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  createLog(): Promise<never> {
    return Promise.reject(new BlockError("ENOTSUP", "a failing disk keeps no log"));
  }

  setOwner(): Promise<void> {
    return Promise.resolve();
  }

  clearOwner(): Promise<void> {
    return Promise.resolve();
  }

  #do(operation: SweptOperation): Promise<void> {
    return act(this.#disks, this.#store, operation);
  }
}

/** Takes a turn. @throws BlockError the plan wants it to fail */
async function act(
  { plan, turn }: FailingDisks,
  store: FailingStore,
  operation: SweptOperation,
  detail: object = {},
): Promise<void> {
  await turn(`${store.name} ${operation}`);
  const error = plan.strike(store.name, operation, detail);
  if (error !== undefined) throw error;
}

/** Returns the driver `x-blocklayer-failing`, which opens these stores. */
export function failingDisk(
  disks: FailingDisks,
): DriverDefinition<"x-blocklayer-failing", { readonly store: string }, never> {
  return defineDriver({
    driverName: "x-blocklayer-failing",
    schema: object({ store: string() }),
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    reopenable: [],
    open: async (host, options) => {
      const store = disks.stores.get(options.store);
      if (store === undefined) {
        throw new BlockError("ENOENT", `there is no store '${options.store}'`, {
          node: host.nodeName,
        });
      }
      await act(disks, store, "open");
      return new FailingDisk(store, disks);
    },
  });
}
