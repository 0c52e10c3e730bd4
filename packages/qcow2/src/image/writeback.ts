import type { Env } from "@blocklayer/env";
import type { Allocator } from "./allocator.ts";
import type { HostFile } from "./host-file.ts";
import { Mutex } from "./mutex.ts";
import type { PendingFree, PendingFrees } from "./pending-frees.ts";
import type { LentTable, TableCache } from "./table-cache.ts";
import type { TableFile } from "./table-file.ts";

export interface WritebackOptions {
  readonly env: Env;
  readonly file: HostFile;
  readonly allocator: Allocator;
  readonly l1: TableFile;
  readonly l2: TableCache;
  readonly frees: PendingFrees;
  /** Makes guests' data stable that is in another file; what is in this one comes with its own flush. */
  readonly flushData: () => Promise<void>;
  /** Whether counts stay in memory because the image is marked as dirty. */
  readonly isLazy: () => boolean;
}

/** References as they were at one instant: all of them are counted, and their data was written before. */
interface LentReferences {
  readonly slices: readonly LentTable[];
  readonly hasL1: boolean;
  readonly frees: readonly PendingFree[];
}

/**
 * Writes metadata back in stages, with a flush of the file between them, so that the image is consistent at
 * every instant of death:
 *
 * 1. refcount blocks: increases for references that follow, decreases for references that are durably gone;
 * 2. if blocks are new: flush, then the entries of the refcount table for them;
 * 3. flush, an external data file first: now all counts and all data written before are stable;
 * 4. L2 slices and L1 entries, as they were when the run began;
 * 5. flush: now the clusters that nothing refers to any more are durably unreferenced;
 * 6. these are counted down, and written in stage 1 of the next run.
 *
 * A run that only has to make room ends after stage 4.
 *
 * @see docs/decisions/0004-qcow2-staged-writeback.md; spec/qcow2.md section 7
 */
export class Writeback {
  readonly #options: WritebackOptions;
  readonly #mutex: Mutex;

  constructor(options: WritebackOptions) {
    this.#options = options;
    this.#mutex = new Mutex(options.env, "qcow2 writeback");
  }

  /** Whether there is anything to write or to free. */
  get isClean(): boolean {
    const { allocator, l1, l2, frees } = this.#options;
    return !(l1.hasDirty || l2.hasDirty || allocator.refcounts.hasDirty) && frees.isEmpty;
  }

  /** Makes everything stable that was written before the call, and frees what became free by it. */
  flush(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#run(true);
      await this.#free();
    });
  }

  /** Writes out what is dirty, so that tables can be forgotten. */
  makeRoom(): Promise<void> {
    return this.#mutex.run(() => this.#run(false));
  }

  /** Flushes until nothing is left to write, the counts of what was freed included. */
  async finish(): Promise<void> {
    await this.flush();
    if (this.#options.allocator.refcounts.hasDirty) await this.#mutex.run(() => this.#run(true));
  }

  async #run(isDurable: boolean): Promise<void> {
    const { allocator, file, l1, l2, frees, flushData, isLazy } = this.#options;
    const references: LentReferences = {
      slices: l2.lendDirty(),
      hasL1: l1.lendDirty(),
      frees: frees.takeWaiting(),
    };
    const hasReferences = references.slices.length > 0 || references.hasL1;
    let isWritten = false;
    try {
      if (!isLazy()) await allocator.refcounts.write();
      if (hasReferences || isDurable) {
        await flushData();
        await file.flush();
      }
      await this.#writeReferences(references);
      if (hasReferences && isDurable) await file.flush();
      isWritten = true;
    } finally {
      l2.giveBack(references.slices, isWritten);
      l1.giveBack(isWritten);
      if (isWritten && isDurable) frees.becameDurable(references.frees);
      else frees.giveBack(references.frees);
    }
  }

  /** Stage 4. */
  async #writeReferences({ slices, hasL1 }: LentReferences): Promise<void> {
    const { file, l1 } = this.#options;
    for (const { table, bytes } of slices) await file.write(table.offset, bytes, "active-l2");
    if (hasL1) await l1.writeLent();
  }

  /** Stage 6. */
  async #free(): Promise<void> {
    const { allocator, file, frees } = this.#options;
    const free = frees.takeDurable(({ offset, length }) => file.pins.overlaps(offset, length));
    if (free.length > 0) await allocator.release(free);
  }
}
