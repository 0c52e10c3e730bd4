import type { BlockNode } from "@blocklayer/block-graph";
import { HBitmap } from "@blocklayer/hbitmap";
import type { TransactionStep } from "@blocklayer/jobs";
import type { AddOptions, BitmapManager, BitmapReference } from "./bitmap-manager.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";
import type { NodeBitmaps } from "./node-bitmaps.ts";

/*
 * Changes of bitmaps as steps of a transaction. As with the commands, `prepare` does the change, so that later steps
 * find it done; `abort` takes it back. Between the two writes may come, and none may be lost whichever way it ends:
 * a map that was replaced goes on recording, and so does a bitmap that was disabled; what a bitmap records after it was
 * merged into another one is recorded there too.
 *
 * spec/dirty-bitmap.md section 6.
 */

/** The step `block-dirty-bitmap-add`. */
export class AddStep implements TransactionStep {
  readonly name = "bitmap add";
  readonly #manager: BitmapManager;
  readonly #node: BlockNode | string;
  readonly #options: AddOptions;
  #bitmap: DirtyBitmap | undefined;

  constructor(manager: BitmapManager, node: BlockNode | string, options: AddOptions) {
    this.#manager = manager;
    this.#node = node;
    this.#options = options;
  }

  /** The bitmap, once prepared. */
  get bitmap(): DirtyBitmap | undefined {
    return this.#bitmap;
  }

  async prepare(): Promise<void> {
    this.#bitmap = await this.#manager.add(this.#node, this.#options);
  }

  abort(): void {
    if (this.#bitmap?.isReleased === false) this.#manager.release(this.#bitmap);
  }
}

/** A step whose `prepare` puts another content in place. */
abstract class ContentStep implements TransactionStep {
  abstract readonly name: string;
  protected readonly manager: BitmapManager;
  readonly #target: BitmapReference;
  #restore: (() => void) | undefined;
  readonly #kept: Disposable[] = [];

  constructor(manager: BitmapManager, target: BitmapReference) {
    this.manager = manager;
    this.#target = target;
  }

  async prepare(): Promise<void> {
    const bitmap = this.manager.resolve(this.#target);
    await this.admit(bitmap);
    this.manager.resolveAgain(this.#target, bitmap);
    try {
      this.#replace(bitmap);
    } catch (error) {
      // A step that was not prepared is not aborted.
      this.#letGo();
      throw error;
    }
  }

  commit(): void {
    this.#letGo();
  }

  abort(): void {
    this.#restore?.();
    this.#letGo();
  }

  /** Disposes of these when the transaction ends. */
  protected keep(...kept: readonly Disposable[]): void {
    this.#kept.push(...kept);
  }

  /** Checks everything that `content` does not. */
  protected admit(_bitmap: DirtyBitmap): Promise<void> | undefined {
    return undefined;
  }

  /** The content to come, complete. @throws BlockError the change is not possible */
  protected abstract content(bitmap: DirtyBitmap): HBitmap;

  #replace(bitmap: DirtyBitmap): void {
    const map = this.content(bitmap);
    this.keep(this.manager.homeOf(bitmap).keep(bitmap.map));
    const before = bitmap.swapMap(map);
    this.#restore = () => void bitmap.swapMap(before);
  }

  #letGo(): void {
    for (const kept of this.#kept.splice(0)) kept[Symbol.dispose]();
  }
}

/** The step `block-dirty-bitmap-clear`. */
export class ClearStep extends ContentStep {
  readonly name = "bitmap clear";

  protected override content(bitmap: DirtyBitmap): HBitmap {
    bitmap.check("default");
    return new HBitmap(bitmap.size, bitmap.granularity);
  }
}

/** The step `block-dirty-bitmap-merge`. */
export class MergeStep extends ContentStep {
  readonly name = "bitmap merge";
  readonly #sources: readonly BitmapReference[];

  constructor(
    manager: BitmapManager,
    target: BitmapReference,
    sources: readonly BitmapReference[],
  ) {
    super(manager, target);
    this.#sources = sources;
  }

  protected override admit(bitmap: DirtyBitmap): Promise<void> {
    this.manager.mergeSources(bitmap, this.#sources);
    return bitmap.invalidateStored();
  }

  protected override content(bitmap: DirtyBitmap): HBitmap {
    // Asked again: the wait may have changed the answers.
    const sources = this.manager.mergeSources(bitmap, this.#sources);
    const map = bitmap.map.clone();
    for (const source of sources) map.merge(source.map);
    // A later step may clear a source: what it records until the end of the transaction is merged as well, and so is
    // what the target itself gets from steps before.
    for (const each of [bitmap, ...sources]) this.keep(...this.manager.recordLike(each.map, map));
    return map;
  }
}

/** The steps `block-dirty-bitmap-enable` and `block-dirty-bitmap-disable`. */
export class EnableStep implements TransactionStep {
  readonly name = "bitmap enable";
  readonly #manager: BitmapManager;
  readonly #target: BitmapReference;
  readonly #enabled: boolean;
  #bitmap: DirtyBitmap | undefined;
  #before = false;
  #kept: Disposable | undefined;

  constructor(manager: BitmapManager, target: BitmapReference, enabled: boolean) {
    this.#manager = manager;
    this.#target = target;
    this.#enabled = enabled;
  }

  async prepare(): Promise<void> {
    const bitmap = this.#manager.resolve(this.#target);
    bitmap.check("allow-readonly");
    if (this.#enabled && !bitmap.enabled && !bitmap.readonly) {
      // A crash must not bring back a bitmap that is switched off when its user knows it switched on.
      await bitmap.invalidateStored();
      // Asked again: the wait may have changed the answers.
      this.#manager.resolveAgain(this.#target, bitmap);
      bitmap.check("allow-readonly");
    }
    this.#bitmap = bitmap;
    this.#before = bitmap.enabled;
    this.#kept = this.#manager.homeOf(bitmap).keep(bitmap.map);
    bitmap.setEnabled(this.#enabled);
  }

  commit(): void {
    this.#kept?.[Symbol.dispose]();
  }

  abort(): void {
    if (this.#bitmap?.isReleased === false) this.#bitmap.setEnabled(this.#before);
    this.#kept?.[Symbol.dispose]();
  }
}

/** The step `block-dirty-bitmap-remove`: gone from the image at once, from memory at the end. */
export class RemoveStep implements TransactionStep {
  readonly name = "bitmap remove";
  readonly #manager: BitmapManager;
  readonly #target: BitmapReference;
  #bitmap: DirtyBitmap | undefined;
  #home: NodeBitmaps | undefined;

  constructor(manager: BitmapManager, target: BitmapReference) {
    this.#manager = manager;
    this.#target = target;
  }

  async prepare(): Promise<void> {
    const bitmap = this.#manager.resolve(this.#target);
    bitmap.check("remove");
    const home = this.#manager.homeOf(bitmap);
    // Nobody else may begin to use it while the image is changed.
    bitmap.setLeaving(true);
    try {
      if (bitmap.persistent) await removeStored(home, bitmap);
    } catch (error) {
      this.#stay(bitmap);
      throw error;
    }
    this.#bitmap = bitmap;
    this.#home = home;
  }

  commit(): void {
    if (this.#bitmap === undefined || this.#bitmap.isReleased) return;
    this.#bitmap.setLeaving(false);
    this.#home?.release(this.#bitmap);
  }

  abort(): void {
    if (this.#bitmap !== undefined) this.#stay(this.#bitmap);
  }

  /** It stays, and is to be stored again. */
  #stay(bitmap: DirtyBitmap): void {
    if (bitmap.isReleased) return;
    bitmap.setLeaving(false);
    bitmap.setModified(true);
  }
}

async function removeStored(home: NodeBitmaps, { name = "" }: DirtyBitmap): Promise<void> {
  await home.node.driver.persistentBitmaps?.remove(name);
  home.forgetStored(name);
}
