import type { BackupOptions } from "@blocklayer/backup";
import type { BlockError } from "@blocklayer/errors";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import type { SourceDisk } from "./backup-disk.ts";
import type { BackupOracles } from "./backup-oracles.ts";
import type { TargetDisk } from "./backup-stack.ts";

/** Bytes of what was never restored. */
const UNKNOWN = 0xa5;

/** A backup that has ended. */
export interface ChainLink {
  readonly options: BackupOptions;
  readonly oracles: BackupOracles;
  readonly target: TargetDisk;
  readonly error: BlockError | undefined;
}

/**
 * Restores a chain of backups that share one bitmap, as its user would: the base first, then, link by link, the
 * clusters that the link was asked for. Links that failed are thrown away, unless the bitmap goes by what is in them.
 *
 * After each link that succeeded the restored disk is the source as of that link's instant.
 */
export class ChainOracle {
  readonly #simulation: Simulation;
  readonly #source: SourceDisk;
  readonly #restored: Uint8Array;
  /** Whether the bitmap says all that the restored disk lacks. */
  #isBegun: boolean = false;
  #length = 0;

  constructor(simulation: Simulation, source: SourceDisk) {
    this.#simulation = simulation;
    this.#source = source;
    this.#restored = new Uint8Array(source.size).fill(UNKNOWN);
  }

  /** Adds a link. */
  add(link: ChainLink): void {
    const { options, error } = link;
    const { sync, bitmap, "bitmap-mode": mode } = options;
    if (bitmap === undefined) return;
    if (error !== undefined && mode !== "always") return;
    const isBase = sync === "full" || sync === "top";
    if (!(isBase || this.#isBegun)) return;
    this.#apply(link);
    if (isBase) this.#isBegun = true;
    this.#length += 1;
    if (error === undefined) this.#expectRestored(link);
  }

  #apply({ options, oracles, target, error }: ChainLink): void {
    // What the top layer does not hold is its user's already, below.
    const below = options.sync === "top" ? this.#source.base?.cache.visible : undefined;
    if (below !== undefined) this.#restored.set(below);
    const content = target.content.now();
    for (const { at, end } of oracles.wanted()) {
      // Of a link that failed its user takes what was written, which is not all.
      if (error !== undefined && !target.written.isTouched(at, end)) continue;
      this.#restored.set(content.subarray(at, end), at);
    }
  }

  #expectRestored({ oracles: { instant } }: ChainLink): void {
    if (instant === undefined) return;
    if (this.#length > 1) this.#simulation.sometimes("a chain of backups was restored");
    const { source } = instant;
    for (let at = 0; at < source.length; at += 4096) {
      const end = Math.min(at + 4096, source.length);
      this.#simulation.expect(
        sameBytes(this.#restored.subarray(at, end), source.subarray(at, end)),
        "restored something else",
        () => `bytes at ${at} after ${this.#length} links`,
      );
    }
  }
}
