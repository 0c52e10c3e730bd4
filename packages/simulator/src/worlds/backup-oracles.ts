import type { BackupOptions } from "@blocklayer/backup";
import type { DirtyBitmap } from "@blocklayer/dirty-bitmap";
import type { BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import { SECTOR, type SourceDisk } from "./backup-disk.ts";
import { CLUSTER } from "./backup-plan.ts";
import type { TargetDisk } from "./backup-stack.ts";

/** The instant in which a backup was started. */
export interface Instant {
  readonly source: Uint8Array;
  readonly target: Uint8Array;
  /** What the backup's bitmap said, if it has one. */
  readonly bitmap: HBitmap | undefined;
  /** Whether the source's own layer holds some of a range. */
  readonly isAllocated: (at: number, end: number) => boolean;
}

/** Bytes, as a range. */
export interface ClusterRange {
  readonly at: number;
  readonly end: number;
}

/** What a backup has to be, by models that know nothing of how it is made. */
export class BackupOracles {
  readonly clusterSize: number;
  readonly #simulation: Simulation;
  readonly #source: SourceDisk;
  readonly #target: TargetDisk;
  readonly #options: BackupOptions;
  #instant: Instant | undefined;

  constructor(
    simulation: Simulation,
    source: SourceDisk,
    target: TargetDisk,
    options: BackupOptions,
  ) {
    this.#simulation = simulation;
    this.#source = source;
    this.#target = target;
    this.#options = options;
    const wanted = options["x-perf"]?.["min-cluster-size"] ?? 0;
    this.clusterSize = Math.max(CLUSTER, target.clusterSize, wanted);
  }

  get instant(): Instant | undefined {
    return this.#instant;
  }

  /** To be called in the very turn of the start. */
  remember(bitmap: DirtyBitmap | undefined): void {
    const { content } = this.#source;
    this.#instant = {
      source: content.now().slice(),
      target: this.#target.content.now().slice(),
      bitmap: bitmap?.map.clone(),
      isAllocated: content.allocation(),
    };
  }

  /** A change of the source is submitted under the filter: what it overwrites is in the target by now. */
  beforeOverwrite(operation: string, offset: number, length: number): void {
    const instant = this.#instant;
    if (instant === undefined) return;
    for (const { at, end } of this.#clusters()) {
      if (end <= offset || at >= offset + length || !this.isWanted(at, end)) continue;
      this.#simulation.expect(
        this.#target.content.holds(instant.source, at, end),
        "overwrote before copying",
        () => `${operation} of ${length} bytes at ${offset}, cluster at ${at} of ${this.#name}`,
      );
    }
  }

  /** The job itself gives back a range of the source: it has copied it, and nobody has written there since. */
  beforeGivingBack(offset: number, length: number): void {
    const { instant } = this;
    if (instant === undefined) return;
    const end = Math.min(offset + length, instant.source.length);
    const now = this.#source.content.now().subarray(offset, end);
    this.#simulation.expect(
      sameBytes(now, instant.source.subarray(offset, end)),
      "discarded what was written since",
      () => `${length} bytes at ${offset}`,
    );
    this.#simulation.expect(
      this.#target.content.holds(instant.source, offset, end),
      "discarded before copying",
      () => `${length} bytes at ${offset}`,
    );
  }

  /** Somebody has read the target of a fleecing backup while it lasted. */
  expectFleeced(offset: number, buffer: Uint8Array): void {
    const { instant } = this;
    if (instant === undefined) return;
    this.#simulation.expect(
      sameBytes(buffer, instant.source.subarray(offset, offset + buffer.length)),
      "fleeced another instant",
      () => `${buffer.length} bytes at ${offset} of ${this.#name}`,
    );
  }

  /** The job has ended. */
  judge(error: BlockError | undefined, bitmap: DirtyBitmap | undefined): void {
    const instant = this.#instant;
    if (instant === undefined) return;
    if (error === undefined) this.#judgeSuccess(instant);
    if (bitmap === undefined) return;
    const { sync, "bitmap-mode": given } = this.#options;
    if (error !== undefined) this.#judgeFailure(instant, bitmap.map);
    const mode = sync === "incremental" ? "on-success" : given;
    const isKept = mode === undefined || mode === "never" || (mode === "on-success" && error);
    if (isKept && instant.bitmap !== undefined) this.#expectKept(instant.bitmap, bitmap.map);
  }

  /** Whether a cluster is one that the backup is asked for. */
  isWanted(at: number, end: number): boolean {
    const { sync } = this.#options;
    if (sync === "top") return this.#instant?.isAllocated(at, end) ?? true;
    if (sync !== "bitmap" && sync !== "incremental") return true;
    return (this.#instant?.bitmap?.nextDirty(at, end - at) ?? -1) >= 0;
  }

  /** The clusters that the backup is asked for. */
  *wanted(): Iterable<ClusterRange> {
    for (const range of this.#clusters()) if (this.isWanted(range.at, range.end)) yield range;
  }

  #judgeSuccess(instant: Instant): void {
    const { content, medium } = this.#target;
    for (const { at, end } of this.#clusters()) {
      const isWanted = this.isWanted(at, end);
      const isRight = isWanted
        ? content.holds(instant.source, at, end)
        : this.#isUntouched(instant, at, end);
      this.#simulation.expect(
        isRight,
        isWanted ? "not the point in time" : "wrote what was not wanted",
        () => `cluster at ${at} of ${this.#name}`,
      );
    }
    const { dirtySectors } = medium.cache;
    this.#simulation.expect(
      dirtySectors === 0,
      "backup not stable",
      () => `${dirtySectors} sectors of ${this.#name} were not flushed when the job succeeded`,
    );
  }

  /**
   * In mode top the source may be unable to say what it holds: then more is copied than is needed, and of a copy that
   * failed halfway some sectors.
   */
  #isUntouched(instant: Instant, at: number, end: number): boolean {
    const now = this.#target.content.now();
    const isSame = (other: Uint8Array, from: number, to: number): boolean =>
      sameBytes(now.subarray(from, to), other.subarray(from, to));
    if (isSame(instant.target, at, end)) return true;
    if (this.#options.sync !== "top") return false;
    for (let from = at; from < end; from += SECTOR) {
      const to = Math.min(from + SECTOR, end);
      if (!(isSame(instant.target, from, to) || isSame(instant.source, from, to))) return false;
    }
    return true;
  }

  /** What a failed backup lacks is marked, if the bitmap says how far it got. */
  #judgeFailure(instant: Instant, map: HBitmap): void {
    if (this.#options["bitmap-mode"] !== "always") return;
    for (const { at, end } of this.wanted()) {
      this.#simulation.expect(
        this.#target.content.holds(instant.source, at, end) || map.nextDirty(at, end - at) >= 0,
        "not copied and not marked",
        () => `cluster at ${at} of ${this.#name}`,
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

  get #name(): string {
    return `'${this.#target.name}'`;
  }

  *#clusters(): Iterable<ClusterRange> {
    const { size } = this.#source;
    for (let at = 0; at < size; at += this.clusterSize) {
      yield { at, end: Math.min(at + this.clusterSize, size) };
    }
  }
}

/** What differs from the content that a bitmap refers to is marked in it. */
export function expectSound(
  simulation: Simulation,
  { map }: DirtyBitmap,
  { now, reference }: { readonly now: Uint8Array; readonly reference: Uint8Array },
): void {
  for (let at = 0; at < now.length; at += map.granularity) {
    const end = Math.min(at + map.granularity, now.length);
    const isSame = sameBytes(now.subarray(at, end), reference.subarray(at, end));
    simulation.expect(
      isSame || map.get(at),
      "change not marked",
      () => `bytes at ${at} differ from what the bitmap refers to`,
    );
  }
}
