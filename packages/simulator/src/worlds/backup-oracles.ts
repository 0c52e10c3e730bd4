import type { BackupOptions } from "@blocklayer/backup";
import type { DirtyBitmap } from "@blocklayer/dirty-bitmap";
import type { BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import type { Medium } from "../disk/medium.ts";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import { CLUSTER } from "./backup-plan.ts";

/** The instant in which a backup was started. */
export interface Instant {
  readonly source: Uint8Array;
  readonly target: Uint8Array;
  readonly bitmap: HBitmap;
}

export interface JudgedDisks {
  readonly source: Medium;
  readonly target: Medium;
}

/** What a backup has to be, by models that know nothing of how it is made. */
export class BackupOracles {
  readonly #simulation: Simulation;
  readonly #disks: JudgedDisks;
  readonly #options: BackupOptions;
  #instant: Instant | undefined;

  constructor(simulation: Simulation, disks: JudgedDisks, options: BackupOptions) {
    this.#simulation = simulation;
    this.#disks = disks;
    this.#options = options;
  }

  get instant(): Instant | undefined {
    return this.#instant;
  }

  /** To be called in the very turn of the start. */
  remember(bitmap: DirtyBitmap): void {
    this.#instant = {
      source: this.#disks.source.cache.visible.slice(),
      target: this.#disks.target.cache.visible.slice(),
      bitmap: bitmap.map.clone(),
    };
  }

  /** A change of the source is submitted under the filter: what it overwrites is in the target by now. */
  beforeOverwrite(operation: string, offset: number, length: number): void {
    const instant = this.#instant;
    if (instant === undefined) return;
    for (const { at, end } of clusters(instant.source.length)) {
      if (end <= offset || at >= offset + length || !this.#isWanted(at, end)) continue;
      this.#simulation.expect(
        this.#targetHolds(instant.source, at, end),
        "overwrote before copying",
        () => `${operation} of ${length} bytes at ${offset}, cluster at ${at}`,
      );
    }
  }

  /** The job has ended. */
  judge(error: BlockError | undefined, bitmap: DirtyBitmap): void {
    const instant = this.#instant;
    if (instant === undefined) return;
    if (error === undefined) this.#judgeSuccess(instant);
    else this.#judgeFailure(instant, bitmap.map);
    const mode = this.#options["bitmap-mode"];
    const isKept = mode === undefined || mode === "never" || (mode === "on-success" && error);
    if (isKept) this.#expectKept(instant.bitmap, bitmap.map);
  }

  /** What differs from the instant is marked. */
  expectSound(bitmap: DirtyBitmap): void {
    const instant = this.#instant;
    if (instant === undefined) return;
    const { map } = bitmap;
    const now = this.#disks.source.cache.visible;
    for (let at = 0; at < now.length; at += map.granularity) {
      const end = Math.min(at + map.granularity, now.length);
      const isSame = sameBytes(now.subarray(at, end), instant.source.subarray(at, end));
      this.#simulation.expect(
        isSame || map.get(at),
        "change not marked",
        () => `bytes at ${at} differ from the instant of the backup`,
      );
    }
  }

  #judgeSuccess(instant: Instant): void {
    for (const { at, end } of clusters(instant.source.length)) {
      const isWanted = this.#isWanted(at, end);
      this.#simulation.expect(
        this.#targetHolds(isWanted ? instant.source : instant.target, at, end),
        isWanted ? "not the point in time" : "wrote what was not wanted",
        () => `cluster at ${at} of the target`,
      );
    }
    const { dirtySectors } = this.#disks.target.cache;
    this.#simulation.expect(
      dirtySectors === 0,
      "backup not stable",
      () => `${dirtySectors} sectors of the target were not flushed when the job succeeded`,
    );
  }

  /** What a failed backup lacks is marked, if the bitmap says how far it got. */
  #judgeFailure(instant: Instant, map: HBitmap): void {
    if (this.#options["bitmap-mode"] !== "always") return;
    for (const { at, end } of clusters(instant.source.length)) {
      const isIn = !this.#isWanted(at, end) || this.#targetHolds(instant.source, at, end);
      this.#simulation.expect(
        isIn || map.nextDirty(at, end - at) >= 0,
        "not copied and not marked",
        () => `cluster at ${at}`,
      );
    }
  }

  #expectKept(before: HBitmap, after: HBitmap): void {
    for (let at = before.nextDirty(0); at >= 0; ) {
      const offset = at;
      this.#simulation.expect(after.get(offset), "bit lost", () => `dirty byte at ${offset}`);
      const next = offset + before.granularity;
      at = next >= before.size ? -1 : before.nextDirty(next);
    }
  }

  #isWanted(at: number, end: number): boolean {
    if (this.#options.sync !== "bitmap") return true;
    return (this.#instant?.bitmap.nextDirty(at, end - at) ?? -1) >= 0;
  }

  #targetHolds(content: Uint8Array, at: number, end: number): boolean {
    const { visible } = this.#disks.target.cache;
    return sameBytes(visible.subarray(at, end), content.subarray(at, end));
  }
}

function* clusters(size: number): Iterable<{ readonly at: number; readonly end: number }> {
  for (let at = 0; at < size; at += CLUSTER) yield { at, end: Math.min(at + CLUSTER, size) };
}
