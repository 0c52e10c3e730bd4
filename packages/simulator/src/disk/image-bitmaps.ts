import {
  type BitmapContent,
  type BlockChild,
  completed,
  type LogStore,
  type PersistentBitmaps,
  rejected,
  type StoredBitmap,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import {
  AREA_LENGTH,
  checksumOf,
  decodeArea,
  decodeRoot,
  EMPTY_ROOT,
  encodeArea,
  encodeRoot,
  type ImageBitmap,
  type ImageRoot,
  ROOT_LENGTH,
} from "./image-layout.ts";

/** Bits of the mask of bitmaps in use. */
const BITMAPS_MAX = 31;

type GivenBitmap = StoredBitmap & { readonly content: BitmapContent };

/**
 * The bitmaps of a simulated image, stored so that at every moment a crash finds a whole set, old or new.
 *
 * Operations wait for each other. One that failed may have had its effect: the next one flushes first, and reads again
 * what the image holds.
 */
export class ImageBitmaps implements PersistentBitmaps {
  readonly owner = "unknown";
  readonly #file: BlockChild;
  /** Bytes of data before the metadata. */
  readonly #dataLength: number;
  #root: ImageRoot = EMPTY_ROOT;
  #bitmaps: readonly ImageBitmap[] = [];
  /** Whether a crash may leave something else than what was read or written last. */
  #isUncertain: boolean = true;
  #last: Promise<unknown> = completed;

  constructor(file: BlockChild, dataLength: number) {
    this.#file = file;
    this.#dataLength = dataLength;
  }

  /** Reads what the image holds. @throws BlockError `EIO` it is damaged, or cannot be read */
  open(): Promise<void> {
    return this.#exclusively(() => this.#read());
  }

  list(): Promise<readonly StoredBitmap[]> {
    return this.#exclusively(async () => {
      if (this.#isUncertain) await this.#read();
      return this.#bitmaps.map(({ bytes: _, ...stored }, index) => ({
        ...stored,
        inUse: this.#isInUse(index),
      }));
    });
  }

  load(name: string): Promise<BitmapContent> {
    const found = this.#bitmaps.find((bitmap) => bitmap.name === name);
    if (found === undefined) return rejected(new BlockError("ENOENT", `no bitmap '${name}'`));
    const bytes = Uint8Array.from(found.bytes);
    return Promise.resolve({
      serializedLength: bytes.length,
      read: (offset, length) => bytes.subarray(offset, offset + length),
    });
  }

  canStore({ name }: { readonly name: string }): Promise<void> {
    if (this.#bitmaps.length < BITMAPS_MAX && name.length < 64) return completed;
    return rejected(new BlockError("EFBIG", `no room for bitmap '${name}'`));
  }

  store(bitmaps: readonly GivenBitmap[]): Promise<void> {
    return this.#exclusively(async () => {
      const contents: ImageBitmap[] = [];
      let inUse = 0;
      for (const [index, { content, inUse: isInUse, ...stored }] of bitmaps.entries()) {
        contents.push({ ...stored, bytes: [...(await wholeOf(content))] });
        if (isInUse) inUse += 2 ** index;
      }
      await this.#replace(contents, inUse);
    });
  }

  remove(name: string): Promise<void> {
    return this.#exclusively(async () => {
      await this.#beCertain();
      const kept = [...this.#bitmaps.entries()].filter(([, bitmap]) => bitmap.name !== name);
      if (kept.length === this.#bitmaps.length) return;
      const inUse = kept.reduce(
        (mask, [from], to) => mask + (this.#isInUse(from) ? 2 ** to : 0),
        0,
      );
      await this.#replace(
        kept.map(([, bitmap]) => bitmap),
        inUse,
      );
    });
  }

  markInUse(names: readonly string[]): Promise<void> {
    return this.#exclusively(async () => {
      await this.#beCertain();
      let { inUse } = this.#root;
      for (const [index, { name }] of this.#bitmaps.entries()) {
        if (names.includes(name) && !this.#isInUse(index)) inUse += 2 ** index;
      }
      if (inUse !== this.#root.inUse) await this.#switch({ ...this.#root, inUse }, this.#bitmaps);
    });
  }

  log(): Promise<LogStore | undefined> {
    return Promise.resolve(undefined);
  }

  createLog(): Promise<LogStore> {
    return rejected(new BlockError("ENOTSUP", "a simulated image keeps no log"));
  }

  setOwner(): Promise<void> {
    return completed;
  }

  clearOwner(): Promise<void> {
    return completed;
  }

  #isInUse(index: number): boolean {
    return Math.floor(this.#root.inUse / 2 ** index) % 2 === 1;
  }

  async #replace(bitmaps: readonly ImageBitmap[], inUse: number): Promise<void> {
    await this.#beCertain();
    const bytes = encodeArea(bitmaps);
    if (bytes.length > AREA_LENGTH) throw new BlockError("EFBIG", "no room for so many bitmaps");
    const area = 1 - this.#root.area;
    // Nobody reads this area, whichever of the roots counts.
    await this.#file.pwrite(this.#areaOffset(area), bytes);
    await this.#file.flush();
    const { generation } = this.#root;
    const checksum = checksumOf(bytes);
    await this.#switch({ generation, area, length: bytes.length, checksum, inUse }, bitmaps);
  }

  /** Makes another root count. */
  async #switch(root: ImageRoot, bitmaps: readonly ImageBitmap[]): Promise<void> {
    const next = { ...root, generation: this.#root.generation + 1 };
    this.#isUncertain = true;
    await this.#file.pwrite(this.#rootOffset(next.generation), encodeRoot(next));
    await this.#file.flush();
    this.#root = next;
    this.#bitmaps = bitmaps;
    this.#isUncertain = false;
  }

  async #beCertain(): Promise<void> {
    if (!this.#isUncertain) return;
    // What can be read is what a crash leaves, once it is flushed.
    await this.#file.flush();
    await this.#read();
    this.#isUncertain = false;
  }

  async #read(): Promise<void> {
    let newest = EMPTY_ROOT;
    for (const index of [0, 1]) {
      const bytes = new Uint8Array(ROOT_LENGTH);
      await this.#file.pread(this.#rootOffset(index), bytes);
      const root = decodeRoot(bytes);
      if (root !== undefined && root.generation > newest.generation) newest = root;
    }
    const area = new Uint8Array(AREA_LENGTH);
    await this.#file.pread(this.#areaOffset(newest.area), area);
    const bitmaps = decodeArea(newest, area);
    if (bitmaps === undefined) {
      const message = `the bitmaps of generation ${newest.generation} are damaged`;
      throw new BlockError("EIO", message, { damaged: true });
    }
    this.#root = newest;
    this.#bitmaps = bitmaps;
  }

  #areaOffset(area: number): number {
    return this.#dataLength + area * AREA_LENGTH;
  }

  #rootOffset(generation: number): number {
    return this.#dataLength + 2 * AREA_LENGTH + (generation % 2) * ROOT_LENGTH;
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const done = (async () => {
      await before;
      return work();
    })();
    // The next one waits for the end of this one, however it ends.
    this.#last = done.catch(() => undefined);
    return done;
  }
}

/** Reads content in odd parts, as a format with small clusters may. */
async function wholeOf(content: BitmapContent): Promise<Uint8Array> {
  const whole = new Uint8Array(content.serializedLength);
  const step = 3;
  for (let offset = 0; offset < whole.length; offset += step) {
    const part = await content.read(offset, Math.min(step, whole.length - offset));
    if (part !== undefined) whole.set(part, offset);
  }
  return whole;
}
