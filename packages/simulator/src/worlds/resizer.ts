import type { ResizableBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import type { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";
import type { SizeOracle } from "./size-oracle.ts";

export interface ResizerOptions {
  readonly simulation: Simulation;
  /** Covers the longest disk there may be. */
  readonly oracle: RegisterOracle;
  readonly sizes: SizeOracle;
  readonly disk: Pick<ResizableBackend, "size" | "truncate">;
  /** Makes a length stable. May fail as the disk may. */
  readonly flush: () => Promise<void>;
  /** Bytes: lengths are multiples of it. */
  readonly unit: number;
  /** Bytes: the longest the disk may become. */
  readonly capacity: number;
  /** Whether a request may fail with this error now. */
  readonly mayFail: (error: BlockError) => boolean;
}

/** Makes a disk longer and shorter while others work on it. What is beyond its end reads as zeroes once it grows. */
export class Resizer {
  readonly #options: ResizerOptions;

  constructor(options: ResizerOptions) {
    this.#options = options;
  }

  /** Changes the length so many times, sometimes before the last change has ended. */
  async work(count: number): Promise<void> {
    const { simulation } = this.#options;
    const running: Promise<void>[] = [];
    for (let index = 0; index < count; index += 1) {
      await simulation.scheduler.turn("before a resize");
      const request = this.#resize();
      if (simulation.decisions.chance("resizer goes on", 1, 4)) running.push(request);
      else await request;
    }
    await Promise.all(running);
    if (simulation.decisions.chance("flushes the length", 1, 2)) await this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      await this.#options.flush();
    } catch (error) {
      this.#judge(error);
    }
  }

  #resize(): Promise<void> {
    const { simulation, unit, capacity } = this.#options;
    const size = unit * (1 + simulation.decisions.choose("new size", capacity / unit));
    return simulation.operation(`resize to ${size}`, () => this.#truncate(size));
  }

  async #truncate(size: number): Promise<void> {
    const { simulation, oracle, sizes, disk, capacity } = this.#options;
    const change = sizes.begin(size);
    const cut = oracle.begin("zeroes", size, capacity - size);
    if (size < disk.size) simulation.sometimes("a disk became shorter");
    let succeeded = false;
    try {
      await disk.truncate(size);
      succeeded = true;
    } catch (error) {
      this.#judge(error);
    }
    oracle.end(cut, succeeded);
    sizes.end(change, succeeded);
    const problem = sizes.check(disk.size);
    if (problem !== undefined) simulation.fail("wrong length", problem);
  }

  #judge(error: unknown): void {
    const { simulation, mayFail } = this.#options;
    if (!(error instanceof BlockError)) throw error;
    simulation.sometimes(`a resize failed with ${error.code}`);
    const what = (): string => `resize: ${error.code} ${error.message}`;
    simulation.expect(mayFail(error), "error from nowhere", what);
  }
}
