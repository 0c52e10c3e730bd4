import type { DirtyBitmap } from "@blocklayer/dirty-bitmap";
import type { HBitmap } from "@blocklayer/hbitmap";
import type { BitmapMode } from "./backup-options.ts";

/**
 * The user's bitmap during a backup: frozen, with a successor that records, until the job knows its end.
 *
 * | job ends | on-success | never | always |
 * | --- | --- | --- | --- |
 * | well | successor | bitmap or successor | successor |
 * | badly | bitmap or successor | bitmap or successor | successor or what was not copied |
 *
 * @see spec/copy-before-write-and-backup.md section 5.2
 */
export class SyncBitmap {
  readonly #mode: BitmapMode | undefined;
  readonly #bitmap: DirtyBitmap | undefined;
  #isFrozen: boolean = false;

  constructor(bitmap: DirtyBitmap | undefined, mode: BitmapMode | undefined) {
    this.#bitmap = bitmap;
    this.#mode = mode;
  }

  /** What the backup was asked to copy, as long as it is frozen. */
  get map(): HBitmap | undefined {
    return this.#bitmap?.map;
  }

  /** @throws BlockError the bitmap is in use by now */
  check(): void {
    this.#bitmap?.check(this.#mode === "never" ? "allow-readonly" : "default");
  }

  /** Freezes the bitmap: from this moment its successor records. After `check`, in the same turn. */
  freeze(): void {
    this.#bitmap?.createSuccessor();
    this.#isFrozen = this.#bitmap !== undefined;
  }

  succeed(): void {
    if (this.#take() === undefined) return;
    if (this.#mode === "never") this.#bitmap?.reclaim();
    else this.#bitmap?.abdicate();
  }

  /** @param remaining - clusters that are not in the backup */
  fail(remaining: HBitmap): void {
    const bitmap = this.#take();
    if (bitmap === undefined) return;
    if (this.#mode !== "always") {
      bitmap.reclaim();
      return;
    }
    const successor = bitmap.abdicate();
    for (let area = remaining.nextDirtyArea(0); area !== undefined; ) {
      successor.set(area.offset, area.length);
      area = remaining.nextDirtyArea(area.offset + area.length);
    }
  }

  /** Undoes {@link freeze} when the job never came to be. */
  thaw(): void {
    this.#take()?.reclaim();
  }

  /** The frozen bitmap, once. */
  #take(): DirtyBitmap | undefined {
    if (!this.#isFrozen) return undefined;
    this.#isFrozen = false;
    return this.#bitmap;
  }
}
