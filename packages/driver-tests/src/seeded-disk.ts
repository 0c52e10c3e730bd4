import { type BlockStatus, completed, rejected, StatusFlag } from "@blocklayer/driver";
import type { SeededScheduler } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { ReferenceDisk } from "./reference-disk.ts";

/** A disk whose requests complete when the scheduler says: some in the same turn, some never well. */
export class SeededDisk extends ReferenceDisk {
  /** Requests that fail, of 100. Default 0. */
  failures: number = 0;
  /** Requests under way. */
  running: number = 0;
  readonly #scheduler: SeededScheduler;

  /** @param size - bytes */
  constructor(scheduler: SeededScheduler, size: number) {
    super({ size });
    this.#scheduler = scheduler;
  }

  override pread(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#later("read", () => super.pread(offset, buffer));
  }

  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#later("write", () => super.pwrite(offset, buffer));
  }

  override pwriteZeroes(offset: number, length: number): Promise<void> {
    return this.#later("zeroes", () => super.pwriteZeroes(offset, length));
  }

  override pdiscard(offset: number, length: number): Promise<void> {
    return this.#later("discard", () => super.pdiscard(offset, length));
  }

  /** True, and of a run as short as the seed wants it. */
  override async blockStatus(offset: number, length: number): Promise<BlockStatus> {
    await this.#later("status", () => completed);
    const most = 1 + this.#scheduler.random.below(length);
    const isZero = this.bytes[offset] === 0;
    let run = 1;
    while (run < most && (this.bytes[offset + run] === 0) === isZero) run += 1;
    return { flags: isZero ? StatusFlag.zero : StatusFlag.data, length: run };
  }

  #later(what: string, work: () => Promise<void>): Promise<void> {
    const { random } = this.#scheduler;
    const fails = random.below(100) < this.failures;
    const attempt = (): Promise<void> =>
      fails ? rejected(new BlockError("EIO", `${what} failed by chance`)) : work();
    if (random.below(3) === 0) {
      const done = attempt();
      return fails ? done : completed;
    }
    this.running += 1;
    const delayMs = random.below(4) === 0 ? random.below(30) : 0;
    return this.#scheduler.turn(what, delayMs).then(() => {
      this.running -= 1;
      return attempt();
    });
  }
}
