import type { ReadableBackend, WritableBackend } from "@blocklayer/block-graph";
import type { BitmapManager, DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { assert, BlockError } from "@blocklayer/errors";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import type { ModelDisk } from "./bitmap-model.ts";

export interface ToyMirrorOptions {
  readonly simulation: Simulation;
  readonly bitmaps: BitmapManager;
  readonly source: ReadableBackend;
  readonly target: WritableBackend;
  /** The source, as the model sees it. */
  readonly model: ModelDisk;
  /** What the target holds now. */
  readonly targetContent: () => Uint8Array;
  /** Bytes of a bit, and of a copy. */
  readonly granularity: number;
  readonly isExplained: (error: BlockError) => boolean;
}

const IDLE_MS = 10;

/**
 * A job that copies what its own bitmap says, as simply as can be: take a dirty group, make it clean, copy it, make it
 * dirty again if that failed.
 *
 * What is clean and not being copied is the same on both sides, unless a change of it is under way.
 *
 * @see docs/reliability.md section 3.2, BM-1, BM-2
 */
export class ToyMirror {
  readonly #options: ToyMirrorOptions;
  readonly #bitmap: DirtyBitmap;
  /** Groups that are being copied. */
  readonly #copying = new Set<number>();
  #isStopping: boolean = false;

  constructor(options: ToyMirrorOptions) {
    this.#options = options;
    const { node } = options.source;
    assert(node !== undefined, "the source is open");
    const { granularity } = options;
    this.#bitmap = options.bitmaps.createAnonymous(node, { granularity });
    this.#bitmap.set(0, this.#bitmap.size);
  }

  /** Copies until it is told to stop, and then until nothing is dirty. */
  async work(): Promise<void> {
    const { simulation } = this.#options;
    const worker = (): Promise<void> => this.#copyAll();
    const workers = 1 + simulation.decisions.choose("workers of the mirror", 2);
    await Promise.all(Array.from({ length: workers }, worker));
  }

  /** Nothing changes any more: it ends when all is copied. */
  stop(): void {
    this.#isStopping = true;
  }

  judge(): void {
    const { simulation, model, targetContent } = this.#options;
    const { map, size, granularity } = this.#bitmap;
    const [source, target] = [model.content, targetContent()];
    for (let at = 0; at < size; at += granularity) {
      const end = Math.min(at + granularity, size);
      if (map.get(at) || this.#copying.has(at) || model.isRunning(at, end)) continue;
      simulation.expect(
        sameBytes(source.subarray(at, end), target.subarray(at, end)),
        "clean and not copied",
        () => `${end - at} bytes at ${at}`,
      );
    }
  }

  release(): void {
    this.#options.bitmaps.release(this.#bitmap);
  }

  async #copyAll(): Promise<void> {
    const { simulation } = this.#options;
    for (;;) {
      const at = this.#next();
      if (at < 0 && this.#isStopping && this.#bitmap.map.isEmpty) return;
      const isCopied = at >= 0 && (await this.#copy(at));
      // Who has nothing to do, or failed, waits in earnest: others have to come first.
      await simulation.scheduler.turn("mirror", isCopied ? 0 : IDLE_MS);
    }
  }

  #next(): number {
    const { map, granularity } = this.#bitmap;
    for (let at = map.nextDirty(0); at >= 0; at = map.nextDirty(at + granularity)) {
      if (!this.#copying.has(at)) return at;
      if (at + granularity >= map.size) return -1;
    }
    return -1;
  }

  /** Returns whether it was copied. */
  async #copy(at: number): Promise<boolean> {
    const { simulation, source, target, granularity, isExplained } = this.#options;
    const length = Math.min(granularity, this.#bitmap.size - at);
    const buffer = new Uint8Array(length);
    this.#copying.add(at);
    this.#bitmap.reset(at, length);
    let isCopied = false;
    try {
      await source.read(at, buffer);
      await target.write(at, buffer);
      isCopied = true;
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      simulation.sometimes("a copy failed");
      simulation.expect(isExplained(error), "error from nowhere", () => `mirror: ${error.message}`);
      this.#bitmap.set(at, length);
    } finally {
      this.#copying.delete(at);
    }
    this.judge();
    return isCopied;
  }
}
