import {
  type BitmapContent,
  completed,
  type DriverDefinition,
  defineDriver,
  type NodeHost,
  type PersistentBitmaps,
  type PreparedReopen,
  type ReopenChange,
  type StoredBitmap,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { MemoryDriver } from "@blocklayer/memory";
import { object, optional, size, string } from "@blocklayer/schema";

/** A bitmap as the image keeps it. */
export interface KeptBitmap extends StoredBitmap {
  readonly bytes: Uint8Array;
}

/** An image that outlives the nodes that open it. */
export class KeptImage {
  bitmaps: KeptBitmap[] = [];
  /** What was asked of the image, in order. */
  readonly log: string[] = [];
  /** Operations that fail: `store`, `load`, … */
  readonly fail: Set<string> = new Set();
  /** Called before an operation is done; may wait. */
  onOperation: (operation: string) => Promise<void> | void = () => undefined;
}

/** The images of a machine, by name. */
export type ImageShelf = Map<string, KeptImage>;

export function imageOf(shelf: ImageShelf, name: string): KeptImage {
  let image = shelf.get(name);
  if (image === undefined) {
    image = new KeptImage();
    shelf.set(name, image);
  }
  return image;
}

class KeepingDisk extends MemoryDriver {
  override readonly driverName: string = "keeper";
  readonly persistentBitmaps: PersistentBitmaps;
  readonly #image: KeptImage;

  constructor(host: NodeHost, image: KeptImage, length: number) {
    super(host, { size: length, clusterSize: 65536 });
    this.#image = image;
    this.persistentBitmaps = new KeptBitmaps(image);
  }

  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    this.#image.log.push("pwrite");
    return super.pwrite(offset, buffer);
  }

  override prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    if (this.#image.fail.has("reopen"))
      return Promise.reject(new BlockError("EIO", "reopen failed"));
    return super.prepareReopen(change);
  }
}

class KeptBitmaps implements PersistentBitmaps {
  readonly owner = "unknown";
  readonly #image: KeptImage;

  constructor(image: KeptImage) {
    this.#image = image;
  }

  async list(): Promise<readonly StoredBitmap[]> {
    await this.#do("list");
    return this.#image.bitmaps;
  }

  async load(name: string): Promise<BitmapContent> {
    await this.#do("load", name);
    const { bytes } = this.#image.bitmaps.find((kept) => kept.name === name) as KeptBitmap;
    return {
      serializedLength: bytes.length,
      read: (offset, length) => {
        const part = bytes.subarray(offset, offset + length);
        return part.every((byte) => byte === 0) ? undefined : part;
      },
    };
  }

  async canStore({ name }: { readonly name: string }): Promise<void> {
    await this.#do("canStore", name);
  }

  async store(bitmaps: readonly (StoredBitmap & { content: BitmapContent })[]): Promise<void> {
    await this.#do("store", bitmaps.map(({ name }) => name).join(","));
    this.#image.bitmaps = await Promise.all(
      bitmaps.map(async ({ content, ...stored }) => ({ ...stored, bytes: await wholeOf(content) })),
    );
  }

  async remove(name: string): Promise<void> {
    await this.#do("remove", name);
    this.#image.bitmaps = this.#image.bitmaps.filter((kept) => kept.name !== name);
  }

  async markInUse(names: readonly string[]): Promise<void> {
    await this.#do("markInUse", names.join(","));
    this.#image.bitmaps = this.#image.bitmaps.map((kept) =>
      names.includes(kept.name) ? { ...kept, inUse: true } : kept,
    );
  }

  log(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  createLog(): Promise<never> {
    return Promise.reject(new BlockError("ENOTSUP", "no log"));
  }

  setOwner(): Promise<void> {
    return completed;
  }

  clearOwner(): Promise<void> {
    return completed;
  }

  async #do(operation: string, what = ""): Promise<void> {
    this.#image.log.push(`${operation} ${what}`.trim());
    await this.#image.onOperation(operation);
    if (this.#image.fail.has(operation)) throw new BlockError("ENOSPC", `${operation} failed`);
  }
}

/** Reads content in odd parts, as a format with small clusters may. */
async function wholeOf(content: BitmapContent): Promise<Uint8Array> {
  const whole = new Uint8Array(content.serializedLength);
  const step = 13;
  for (let offset = 0; offset < whole.length; offset += step) {
    const length = Math.min(step, whole.length - offset);
    const part = await content.read(offset, length);
    if (part !== undefined) whole.set(part, offset);
  }
  return whole;
}

/** The driver `keeper`: a disk in memory whose image keeps bitmaps. */
export function keeper(shelf: ImageShelf): DriverDefinition {
  return defineDriver({
    driverName: "keeper",
    schema: object({ image: string(), size: optional(size(), 1 << 20) }),
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    reopenable: [],
    open: (host, options) =>
      Promise.resolve(new KeepingDisk(host, imageOf(shelf, options.image), options.size)),
  }) as unknown as DriverDefinition;
}
