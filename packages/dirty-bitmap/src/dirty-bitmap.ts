import type { BlockNode } from "@blocklayer/block-graph";
import { assert, BlockError } from "@blocklayer/errors";
import { HBitmap } from "@blocklayer/hbitmap";
import { bitmapBusy } from "./bitmap-rules.ts";
import type { NodeBitmaps } from "./node-bitmaps.ts";

/**
 * What a use of a bitmap asks of it:
 *
 * | use | refused while it is |
 * | --- | --- |
 * | `"default"`: its content is to change | busy, readonly, inconsistent |
 * | `"allow-readonly"`: it is to be read, enabled or disabled | busy, inconsistent |
 * | `"remove"` | busy, readonly |
 *
 * @see spec/dirty-bitmap.md section 3
 */
export type BitmapUse = "default" | "allow-readonly" | "remove";

/** What a new bitmap is like. */
export interface BitmapTraits {
  /** Without one it is internal: a job's, or a successor. */
  readonly name?: string | undefined;
  /** Bytes per bit. */
  readonly granularity: number;
  readonly enabled?: boolean;
  readonly persistent?: boolean;
}

/**
 * Remembers which bytes of one node were written since it was last cleared.
 *
 * It is made by `BitmapManager`. While it is enabled every write, write-zeroes and discard request to the node
 * that has come to an end, well or badly, is in it. It follows changes of the node's length, also while disabled; new
 * bytes are clean.
 *
 * A job freezes it with {@link DirtyBitmap.createSuccessor}: the content stays as it is, the bitmap is busy and refuses
 * the user's changes, and a nameless successor records what is written meanwhile. In the end
 * {@link DirtyBitmap.abdicate} leaves the successor in its place, {@link DirtyBitmap.reclaim} joins the two.
 *
 * All methods act at once; methods that the user's commands call check {@link DirtyBitmap.check} first.
 *
 * @see spec/dirty-bitmap.md
 */
export class DirtyBitmap {
  readonly node: BlockNode;
  /** Bytes per bit, a power of two. */
  readonly granularity: number;
  readonly #home: NodeBitmaps;
  #name: string | undefined;
  #map: HBitmap;
  #enabled: boolean;
  #busy: boolean = false;
  #persistent: boolean;
  #successor: DirtyBitmap | undefined;
  #readonly: boolean = false;
  #inconsistent: boolean = false;
  #skipStore: boolean = false;
  #released: boolean = false;
  #modified: boolean = false;

  constructor(home: NodeBitmaps, traits: BitmapTraits) {
    this.node = home.node;
    this.granularity = traits.granularity;
    this.#home = home;
    this.#name = traits.name;
    this.#map = new HBitmap(home.node.size, traits.granularity);
    this.#enabled = traits.enabled ?? true;
    this.#persistent = traits.persistent ?? false;
  }

  /** `undefined` for the bitmaps of jobs and for successors. */
  get name(): string | undefined {
    return this.#name;
  }

  /** Bytes that it covers: the length of the node. */
  get size(): number {
    return this.#map.size;
  }

  /** Dirty bytes; whole groups count, so this may exceed `size`. */
  get count(): number {
    return this.#map.count;
  }

  /** The content. Not to be changed from outside; another object after {@link DirtyBitmap.clear}. */
  get map(): HBitmap {
    return this.#map;
  }

  /** Whether it records writes itself. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** Whether writes are recorded, by itself or by its successor. */
  get recording(): boolean {
    return this.#enabled || (this.#successor?.enabled ?? false);
  }

  /** In use by a job or an export. */
  get busy(): boolean {
    return this.#busy;
  }

  /** The image's copy cannot be changed, so neither may this one, nor the node. */
  get readonly(): boolean {
    return this.#readonly;
  }

  /** To be stored in the image when the node closes. */
  get persistent(): boolean {
    return this.#persistent;
  }

  /** Whether it will be stored: persistent, and not about to be removed. */
  get isStored(): boolean {
    return this.#persistent && !this.#skipStore;
  }

  /** The image's copy was not stored since somebody began to write: the content counts for nothing. */
  get inconsistent(): boolean {
    return this.#inconsistent;
  }

  /** What records while this one is frozen. */
  get successor(): DirtyBitmap | undefined {
    return this.#successor;
  }

  get hasSuccessor(): boolean {
    return this.#successor !== undefined;
  }

  /** It was removed, or its node closed: it records nothing any more. */
  get isReleased(): boolean {
    return this.#released;
  }

  /** Whether it differs from the image's copy by more than the writes that it has recorded since. */
  get modified(): boolean {
    return this.#modified;
  }

  /** @throws BlockError `EBUSY`, `EPERM` readonly, `EINVAL` inconsistent; in this order */
  check(use: BitmapUse): void {
    if (this.#busy) throw bitmapBusy(this.node.name, this.#name ?? "");
    const context = { node: this.node.name, bitmap: this.#name };
    const subject = `Bitmap '${this.#name ?? ""}'`;
    if (use !== "allow-readonly" && this.#readonly) {
      throw new BlockError("EPERM", `${subject} is readonly and cannot be modified`, context);
    }
    if (use !== "remove" && this.#inconsistent) {
      const hint = "Try block-dirty-bitmap-remove to delete this bitmap from disk";
      const message = `${subject} is inconsistent and cannot be used`;
      throw new BlockError("EINVAL", message, context, { hint });
    }
  }

  /**
   * Records from here on. The image learns of it with the first write: who must not find a stored bitmap switched off
   * after a crash before that awaits {@link DirtyBitmap.invalidateStored} first, as the step of a transaction does.
   *
   * @throws BlockError `EBUSY`, `EINVAL`
   */
  enable(): void {
    this.check("allow-readonly");
    this.setEnabled(true);
  }

  /** Records no more. @throws BlockError `EBUSY`, `EINVAL` */
  disable(): void {
    this.check("allow-readonly");
    this.setEnabled(false);
  }

  /** Makes everything clean. @throws BlockError `EBUSY`, `EPERM`, `EINVAL` */
  clear(): void {
    this.check("default");
    this.swapMap(new HBitmap(this.size, this.granularity));
  }

  /** Makes a range dirty, for the job that uses the bitmap. @throws RangeError the range does not fit */
  set(offset: number, length: number): void {
    this.#beginChange();
    this.#map.set(offset, length);
  }

  /** Makes whole groups clean, for the job that uses the bitmap. @throws RangeError the range does not fit */
  reset(offset: number, length: number): void {
    this.#beginChange();
    this.#map.reset(offset, length);
  }

  /**
   * Makes dirty what is dirty in `map`, for the job that uses the bitmap.
   *
   * @param map - of the same size; the granularity may differ
   * @throws RangeError the sizes differ
   */
  include(map: HBitmap): void {
    this.#beginChange();
    this.#map.merge(map);
  }

  /**
   * Freezes the bitmap: it is busy and keeps its content, a new nameless bitmap records in its place if it did.
   *
   * @returns the successor
   * @throws BlockError `EBUSY`, `EINVAL`
   */
  createSuccessor(): DirtyBitmap {
    this.check("allow-readonly");
    const successor = new DirtyBitmap(this.#home, {
      granularity: this.granularity,
      enabled: this.#enabled,
    });
    this.#successor = successor;
    this.#enabled = false;
    this.#busy = true;
    this.#home.add(successor);
    return successor;
  }

  /**
   * Leaves name and persistence to the successor and disappears.
   *
   * @returns the successor, which goes on recording if it did
   */
  abdicate(): DirtyBitmap {
    const successor = this.#endFreeze();
    successor.#inherit(this);
    this.#home.release(this);
    return successor;
  }

  /** Takes back what the successor recorded, and goes on recording as it did. */
  reclaim(): void {
    const successor = this.#endFreeze();
    this.#map.merge(successor.#map);
    this.#enabled = successor.#enabled;
    this.#home.release(successor);
  }

  /** Claims the bitmap for a job or an export, or gives it back. */
  setBusy(busy: boolean): void {
    assert(busy !== this.#busy, "a bitmap is claimed, and given back, once");
    assert(this.#successor === undefined, "a frozen bitmap is given back by its successor's end");
    this.#busy = busy;
  }

  /** The content as bytes: the reference's SHA-256 of a bitmap is the hash of these. */
  bottomBytes(): Uint8Array {
    return this.#map.bottomBytes();
  }

  /**
   * Resolves when the image holds no valid copy of the bitmap, so that a crash cannot bring back one that lacks what
   * is about to be added. To be awaited before bits are added to a persistent bitmap by other means than writes, and
   * before it is enabled.
   *
   * @throws BlockError whatever the image reported
   */
  invalidateStored(): Promise<void> {
    return this.#home.invalidateStored((bitmap) => bitmap === this);
  }

  // What follows is for this package.

  /** Records, or not, without asking whether it may. */
  setEnabled(enabled: boolean): void {
    if (enabled === this.#enabled) return;
    this.#enabled = enabled;
    this.#modified = true;
    this.#home.refresh();
  }

  /** Puts another content in place. @returns the one before */
  swapMap(map: HBitmap): HBitmap {
    const before = this.#map;
    this.#map = map;
    this.#modified = true;
    this.#home.refresh();
    return before;
  }

  /** Takes note that it has changed, or that it was stored or loaded. */
  setModified(modified: boolean): void {
    if (modified === this.#modified) return;
    this.#modified = modified;
    this.#home.refresh();
  }

  setReadonly(isReadonly: boolean): void {
    this.#readonly = isReadonly;
    this.#home.refresh();
  }

  /** The image's copy counts for nothing. */
  setInconsistent(): void {
    this.#inconsistent = true;
    this.#enabled = false;
    this.#home.refresh();
  }

  /** Reserves the bitmap for its removal, or gives it back. */
  setLeaving(isLeaving: boolean): void {
    this.setBusy(isLeaving);
    this.#skipStore = isLeaving;
  }

  /** It is in no list any more. */
  markReleased(): void {
    this.#released = true;
    this.#successor = undefined;
    this.#enabled = false;
  }

  #inherit(predecessor: DirtyBitmap): void {
    this.#name = predecessor.#name;
    this.#persistent = predecessor.#persistent;
    this.#modified = true;
  }

  #beginChange(): void {
    assert(!this.#readonly, "a readonly bitmap is not changed");
    this.setModified(true);
  }

  #endFreeze(): DirtyBitmap {
    const successor = this.#successor;
    assert(successor !== undefined, "only a frozen bitmap has a successor");
    this.#successor = undefined;
    this.#busy = false;
    this.#modified = true;
    return successor;
  }
}
