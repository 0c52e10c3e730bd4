import { completed } from "@blocklayer/driver";
import { ReferenceDisk, type ReferenceDiskOptions } from "@blocklayer/driver-tests";
import type { SeededScheduler } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";

export interface SimulatedDiskOptions extends ReferenceDiskOptions {
  readonly scheduler: SeededScheduler;
  /** The request, from 1, that fails. */
  readonly failNth?: number;
}

/**
 * A disk whose requests take effect and complete when the scheduler says, some of them within the call. One of them
 * may fail, before or after its effect.
 */
export class SimulatedDisk extends ReferenceDisk {
  /** Changes that have completed. */
  changeCount = 0;
  /** {@link changeCount} from when the last successful flush started. */
  flushedCount = 0;
  /** Whether the failure has happened. */
  hasFailed: boolean = false;
  readonly #scheduler: SeededScheduler;
  #countdown: number;

  constructor(options: SimulatedDiskOptions) {
    super(options);
    this.#scheduler = options.scheduler;
    this.#countdown = options.failNth ?? 0;
  }

  override pread(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#request("pread", () => super.pread(offset, buffer));
  }

  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#request("pwrite", () => super.pwrite(offset, buffer), true);
  }

  override pwriteZeroes(offset: number, length: number): Promise<void> {
    return this.#request("pwriteZeroes", () => super.pwriteZeroes(offset, length), true);
  }

  override pdiscard(offset: number, length: number): Promise<void> {
    return this.#request("pdiscard", () => super.pdiscard(offset, length), true);
  }

  override async flushToDisk(): Promise<void> {
    const count = this.changeCount;
    await this.#request("flush", () => super.flushToDisk());
    this.flushedCount = count;
  }

  #request(operation: string, effect: () => Promise<void>, changes = false): Promise<void> {
    this.#countdown -= 1;
    const fails = this.#countdown === 0;
    const choice = this.#scheduler.random.below(4);
    if (choice === 0 && !fails) {
      if (changes) this.changeCount += 1;
      return effect();
    }
    return this.#later(operation, effect, { fails, effectFirst: choice === 1, changes });
  }

  async #later(
    operation: string,
    effect: () => Promise<void>,
    how: { readonly fails: boolean; readonly effectFirst: boolean; readonly changes: boolean },
  ): Promise<void> {
    // A failed request may have done its work, all the same.
    if (how.effectFirst) await effect();
    await this.#scheduler.turn(operation);
    if (how.fails) {
      this.hasFailed = true;
      throw new BlockError("EIO", `${operation} failed as told`);
    }
    if (!how.effectFirst) await effect();
    if (how.changes) this.changeCount += 1;
    return completed;
  }
}
