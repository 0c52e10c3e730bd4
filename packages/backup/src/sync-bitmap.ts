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

  /** Freezes the bitmap: from this moment its successor records. @throws BlockError the bitmap is in use by now */
  freeze(): void {
    this.#bitmap?.check(this.#mode === "never" ? "allow-readonly" : "default");
    this.#bitmap?.createSuccessor();
    this.#isFrozen = this.#bitmap !== undefined;
  }

  succeed(): void {
    if (this.#take() === undefined) return;
    if (this.#mode === "never") this.#bitmap?.reclaim();
    else this.#bitmap?.abdicate();
  }

  /** @param remaining - clusters that are not in the backup; `undefined`: all that were to be copied may be missing */
  fail(remaining: HBitmap | undefined): void {
    const bitmap = this.#take();
    if (bitmap === undefined) return;
    if (this.#mode !== "always" || remaining === undefined) {
      bitmap.reclaim();
      return;
    }
    bitmap.abdicate().include(remaining);
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
