import type { BlockNode } from "@blocklayer/block-graph";
import type { ResizeRequest, WriteObserver, WriteRequest } from "@blocklayer/driver";
import { assert, BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import { checkBitCount } from "./bitmap-rules.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";

/** A map that a transaction needs to be up to date at its end, whichever way it ends. */
interface KeptMap {
  readonly map: HBitmap;
  readonly isRecording: boolean;
  /** It may be put back, so it follows the length of the node like a bitmap of its own. */
  readonly isOfThisNode: boolean;
}

/**
 * The bitmaps of one node, newest first, and what they do about its writes.
 *
 * A write is recorded when the driver is done with it, before the requester is told, and also when it failed: the
 * content is unknown then. Marking at the end is what makes clearing safe: whoever clears a range while a write to it
 * is in flight finds it dirty again afterwards.
 *
 * @see spec/dirty-bitmap.md section 2
 */
export class NodeBitmaps implements WriteObserver {
  readonly node: BlockNode;
  #bitmaps: readonly DirtyBitmap[] = [];
  readonly #kept = new Set<KeptMap>();
  /** The maps that writes are recorded in; no map twice. */
  #recorders: readonly HBitmap[] = [];
  #watch: Disposable | undefined;
  /** Whether writes may have to wait or be refused. */
  #isGuarded: boolean = false;
  /** Names of the bitmaps that the image holds a valid copy of. */
  readonly #intact = new Set<string>();
  #marking: Promise<void> | undefined;

  constructor(node: BlockNode) {
    this.node = node;
  }

  /** Newest first, nameless ones too. */
  get list(): readonly DirtyBitmap[] {
    return this.#bitmaps;
  }

  find(name: string): DirtyBitmap | undefined {
    return this.#bitmaps.find((bitmap) => bitmap.name === name);
  }

  /** Whether the image's copies are no longer what the bitmaps say. */
  get needsStore(): boolean {
    return this.#bitmaps.some(
      (bitmap) =>
        bitmap.isStored &&
        !bitmap.readonly &&
        // The image has no valid copy of an inconsistent one, but it has its place, unless somebody took it away.
        (bitmap.modified || !(bitmap.inconsistent || this.#isIntact(bitmap))),
    );
  }

  add(bitmap: DirtyBitmap): void {
    this.#bitmaps = [bitmap, ...this.#bitmaps];
    this.#watch ??= this.node.addObserver(this);
    this.refresh();
  }

  /** Takes a bitmap out of the list: it records no more. */
  release(bitmap: DirtyBitmap): void {
    assert(!bitmap.busy, "a bitmap is released when nobody uses it");
    assert(!bitmap.hasSuccessor, "a frozen bitmap is not released");
    this.#drop([bitmap]);
  }

  /** The node closes: nobody uses its bitmaps any more. */
  releaseAll(): void {
    this.#drop(this.#bitmaps);
    this.#intact.clear();
  }

  /** The node is given up: what its image holds leaves memory. Bitmaps that somebody uses stay as long as they do. */
  releaseStored(): void {
    this.#drop(this.#bitmaps.filter(({ isStored, busy }) => isStored && !busy));
    this.setIntact([]);
  }

  /**
   * Keeps a map that is about to be replaced up to date, so that putting it back loses no write.
   *
   * @param map - the present map of one of the bitmaps
   */
  keep(map: HBitmap): Disposable {
    return this.#keep({ map, isRecording: this.records(map), isOfThisNode: true });
  }

  /** Records in `map` too, which may belong to another node. */
  alsoRecord(map: HBitmap): Disposable {
    return this.#keep({ map, isRecording: true, isOfThisNode: false });
  }

  /** Whether writes to the node are recorded in `map` now. */
  records(map: HBitmap): boolean {
    return this.#recorders.includes(map);
  }

  /** Takes note of what bitmaps have become. */
  refresh(): void {
    const maps = new Set<HBitmap>();
    let isGuarded = false;
    for (const bitmap of this.#bitmaps) {
      if (bitmap.enabled) maps.add(bitmap.map);
      isGuarded ||= bitmap.readonly || (this.#isIntact(bitmap) && isOutdatedByWrites(bitmap));
    }
    for (const { map, isRecording } of this.#kept) if (isRecording) maps.add(map);
    this.#recorders = [...maps];
    this.#isGuarded = isGuarded;
  }

  /** The image holds valid copies under these names, and no others. */
  setIntact(names: Iterable<string>): void {
    this.#intact.clear();
    for (const name of names) this.#intact.add(name);
    this.refresh();
  }

  /** The image holds no copy of that name. */
  forgetStored(name: string): void {
    this.#intact.delete(name);
    this.refresh();
  }

  /**
   * Resolves when the image says of its copies of some bitmaps that they are in use.
   *
   * @param affected - which; all by default
   * @throws BlockError whatever the image reported
   */
  async invalidateStored(affected: (bitmap: DirtyBitmap) => boolean = () => true): Promise<void> {
    for (;;) {
      const names = this.#bitmaps
        .filter((bitmap) => this.#isIntact(bitmap) && affected(bitmap))
        .map(({ name = "" }) => name);
      if (names.length === 0) return;
      // The mark that is on its way may be the very one.
      if (this.#marking === undefined) await this.#markOnce(names);
      else await this.#marking;
    }
  }

  beforeWrite(): Promise<void> | undefined {
    return this.#isGuarded ? this.#admit() : undefined;
  }

  afterWrite(request: WriteRequest): void {
    const recorders = this.#recorders;
    for (let index = 0; index < recorders.length; index += 1) {
      const map = recorders[index] as HBitmap;
      const { offset } = request;
      // A failed write may have tried to go beyond the end.
      const length = Math.min(request.length, map.size - offset);
      if (length > 0) map.set(offset, length);
    }
  }

  beforeResize({ newSize }: ResizeRequest): Promise<void> | undefined {
    for (const bitmap of this.#bitmaps) {
      if (bitmap.busy || bitmap.isStored) bitmap.check("default");
      checkBitCount(this.node, newSize, bitmap.granularity);
    }
    // The image's copies would be of the wrong size.
    return this.#intact.size > 0 ? this.invalidateStored() : undefined;
  }

  resized({ newSize }: ResizeRequest): void {
    for (const { map, isOfThisNode } of this.#kept) if (isOfThisNode) map.truncate(newSize);
    for (const { map } of this.#bitmaps) map.truncate(newSize);
  }

  #keep(kept: KeptMap): Disposable {
    this.#kept.add(kept);
    this.refresh();
    return {
      [Symbol.dispose]: () => {
        this.#kept.delete(kept);
        this.refresh();
      },
    };
  }

  #admit(): Promise<void> | undefined {
    for (const bitmap of this.#bitmaps) {
      if (!bitmap.readonly) continue;
      const message = `Bitmap '${bitmap.name ?? ""}' is readonly and cannot be modified`;
      throw new BlockError("EPERM", message, { node: this.node.name, bitmap: bitmap.name });
    }
    return this.invalidateStored(isOutdatedByWrites);
  }

  #isIntact({ name }: DirtyBitmap): boolean {
    return name !== undefined && this.#intact.has(name);
  }

  async #markOnce(names: readonly string[]): Promise<void> {
    this.#marking = this.#markInUse(names);
    try {
      await this.#marking;
    } finally {
      this.#marking = undefined;
    }
  }

  async #markInUse(names: readonly string[]): Promise<void> {
    try {
      await this.node.driver.persistentBitmaps?.markInUse(names);
    } catch (error) {
      // Marked or not: it is to be marked again before a write, and stored in the end.
      for (const name of names) this.find(name)?.setModified(true);
      throw error;
    }
    for (const name of names) this.#intact.delete(name);
    this.refresh();
  }

  #drop(gone: readonly DirtyBitmap[]): void {
    for (const bitmap of gone) bitmap.markReleased();
    this.#bitmaps = this.#bitmaps.filter((bitmap) => !gone.includes(bitmap));
    this.refresh();
    if (this.#bitmaps.length > 0) return;
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
  }
}

/**
 * Whether a write makes the image's copy worthless: the bitmap records it, or has changed in memory. That of a bitmap
 * that was disabled when it was stored, and still is, stays true, and survives a crash.
 */
function isOutdatedByWrites(bitmap: DirtyBitmap): boolean {
  return bitmap.recording || bitmap.modified;
}
