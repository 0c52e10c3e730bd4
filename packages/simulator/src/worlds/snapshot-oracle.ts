import { BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import type { Medium } from "../disk/medium.ts";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import type { SnapshotPlan } from "./snapshot-access-plan.ts";

/** Where findings go. */
export type Findings = Pick<Simulation, "expect" | "fail" | "sometimes">;

/** The disks of the world. */
export interface SnapshotDisks {
  readonly source: Medium;
  readonly target: Medium;
  /** Where a backup of the snapshot goes. */
  readonly final: Medium;
}

/** An access to the snapshot, as it began. */
export interface SnapshotAccess {
  readonly what: string;
  readonly offset: number;
  readonly length: number;
  /** Why it may not succeed. */
  readonly obstacle: string | undefined;
}

type ClusterState = "shown" | "hidden" | "being discarded" | "discarded";

/** The snapshot by a model of its own: the image of the instant, which clusters it shows, and whether it is broken. */
export class SnapshotOracle {
  readonly #simulation: Findings;
  readonly #plan: SnapshotPlan;
  readonly #disks: SnapshotDisks;
  #image: Uint8Array | undefined;
  readonly #states: ClusterState[] = [];
  #isBroken: boolean = false;

  constructor(simulation: Findings, plan: SnapshotPlan, disks: SnapshotDisks) {
    this.#simulation = simulation;
    this.#plan = plan;
    this.#disks = disks;
  }

  get isBroken(): boolean {
    return this.#isBroken;
  }

  /** Whether accesses may find the snapshot broken although this model does not know it yet. */
  get mayBreak(): boolean {
    const { onError, timeout } = this.#plan;
    return onError === "break-snapshot" && (timeout !== 0 || this.#faults > 0);
  }

  /** This very turn is the instant. @param marked - what is kept and shown; everything by default */
  begin(marked: HBitmap | undefined): void {
    const { size, clusterSize } = this.#plan;
    this.#image = this.#disks.source.cache.visible.slice();
    for (let at = 0; at < size; at += clusterSize) {
      const length = Math.min(clusterSize, size - at);
      const isShown = marked === undefined || marked.nextDirty(at, length) >= 0;
      this.#states.push(isShown ? "shown" : "hidden");
    }
  }

  /** The snapshot does not count any more. */
  end(): void {
    this.#image = undefined;
  }

  /** The filter says that the snapshot is broken. */
  broken(): void {
    this.#expect(this.mayBreak, "broke for nothing", () => this.#plan.onError);
    this.#expect(!this.#isBroken, "broke twice", () => "");
    this.#isBroken = true;
    this.#simulation.sometimes("a snapshot was broken");
  }

  /** A change of the source is submitted under the filter: what it overwrites is kept, or the snapshot is broken. */
  beforeOverwrite(operation: string, offset: number, length: number): void {
    if (this.#image === undefined || this.#isBroken) return;
    for (const cluster of this.#clustersOf(offset, length)) {
      const isKept = this.#states[cluster] !== "shown" || this.#holds("target", cluster);
      // A backup that discards what it has copied gives the cluster up.
      const isMoved = this.#plan.backup === "discards" && this.#holds("final", cluster);
      this.#expect(
        isKept || isMoved,
        "overwrote before copying",
        () => `${operation} of ${length} bytes at ${offset}, cluster ${cluster}`,
      );
    }
  }

  access(what: string, offset: number, length: number): SnapshotAccess {
    if (this.#isBroken) this.#simulation.sometimes("an access after the snapshot was broken");
    this.#lookForMixture(what, offset, length);
    return { what, offset, length, obstacle: this.#obstacle(offset, length) };
  }

  /** A read has succeeded. */
  judgeRead(access: SnapshotAccess, buffer: Uint8Array): void {
    this.#judgeSuccess(access);
    const { offset, length } = access;
    const expected = this.#image?.subarray(offset, offset + length);
    if (expected === undefined || sameBytes(expected, buffer)) return;
    const at = offset + expected.findIndex((byte, index) => byte !== buffer[index]);
    this.#simulation.fail("not the point in time", `${describe(access)}, byte ${at}`);
  }

  /** A status says of the first `length` bytes whether they are zeroes. */
  judgeStatus(access: SnapshotAccess, length: number, isZero: boolean): void {
    const { offset } = access;
    this.#judgeSuccess({ ...access, length, obstacle: this.#obstacleIn(access, length) });
    this.#expect(length > 0 && length <= access.length, "wrong run", () => String(length));
    const run = this.#image?.subarray(offset, offset + length);
    this.#expect(
      !isZero || run === undefined || run.every((byte) => byte === 0),
      "zeroes that are data",
      () => describe(access),
    );
  }

  /** An access has failed. */
  judgeError(access: SnapshotAccess, error: unknown): void {
    if (!(error instanceof BlockError)) throw error;
    const { offset, length } = access;
    const isHidden =
      this.mayBreak ||
      this.#clustersOf(offset, length).some(
        (cluster) =>
          this.#states[cluster] !== "shown" ||
          (this.#plan.backup === "discards" && this.#holds("final", cluster)),
      );
    if (error.code === "EACCES") {
      this.#simulation.sometimes("an access was refused");
      if (access.obstacle === "hidden") this.#simulation.sometimes("an access beside the bitmap");
      if (access.obstacle === "discarded")
        this.#simulation.sometimes("an access to what was discarded");
    }
    this.#expect(
      error.code === "EACCES" ? isHidden : this.#faults > 0,
      "error from nowhere",
      () => `${describe(access)}: ${error.code} ${error.message}`,
    );
  }

  /** Clusters that lie wholly inside are given up from here on. Returns what to call when that has succeeded. */
  discard(offset: number, length: number): () => void {
    const { clusterSize, size } = this.#plan;
    const end = offset + length;
    const inside = this.#clustersOf(offset, length).filter((cluster) => {
      const at = cluster * clusterSize;
      return offset <= at && Math.min(at + clusterSize, size) <= end;
    });
    for (const cluster of inside) {
      if (this.#states[cluster] === "shown") this.#states[cluster] = "being discarded";
    }
    return () => {
      for (const cluster of inside) {
        if (this.#states[cluster] === "being discarded") this.#states[cluster] = "discarded";
      }
    };
  }

  /** A backup of the snapshot has succeeded. */
  judgeBackup(): void {
    const image = this.#image;
    const { visible, dirtySectors } = this.#disks.final.cache;
    this.#expect(
      image === undefined || sameBytes(image, visible),
      "backup is not the point in time",
      () => "",
    );
    this.#expect(dirtySectors === 0, "backup not stable", () => `${dirtySectors} sectors`);
  }

  #judgeSuccess(access: SnapshotAccess): void {
    const { obstacle } = access;
    this.#expect(
      obstacle === undefined,
      "succeeded without right",
      () => `${describe(access)}: ${obstacle ?? ""}`,
    );
  }

  /** Why an access that begins now may not succeed. */
  #obstacle(offset: number, length: number): string | undefined {
    if (this.#isBroken) return "broken";
    const states = this.#clustersOf(offset, length).map((cluster) => this.#states[cluster]);
    if (states.includes("hidden")) return "hidden";
    return states.includes("discarded") ? "discarded" : undefined;
  }

  /** The same of an answer about a first part of what was asked. What was discarded meanwhile may be answered. */
  #obstacleIn(access: SnapshotAccess, length: number): string | undefined {
    if (access.obstacle === undefined || access.obstacle === "broken") return access.obstacle;
    const now = this.#obstacle(access.offset, length);
    return now === "hidden" ? now : undefined;
  }

  #lookForMixture(what: string, offset: number, length: number): void {
    const kept = this.#clustersOf(offset, length).map((cluster) => this.#holds("target", cluster));
    if (kept.includes(true) && kept.includes(false)) {
      this.#simulation.sometimes(`a ${what} of kept and other clusters`);
    }
  }

  #clustersOf(offset: number, length: number): number[] {
    const { clusterSize } = this.#plan;
    const first = Math.floor(offset / clusterSize);
    const count = Math.ceil((offset + length) / clusterSize) - first;
    return Array.from({ length: count }, (_, index) => first + index);
  }

  /** Whether a disk holds what the source held at the instant. */
  #holds(disk: "target" | "final", cluster: number): boolean {
    const at = cluster * this.#plan.clusterSize;
    const end = at + this.#plan.clusterSize;
    const { visible } = this.#disks[disk].cache;
    const image = this.#image;
    return image === undefined || sameBytes(visible.subarray(at, end), image.subarray(at, end));
  }

  get #faults(): number {
    const { source, target, final } = this.#disks;
    return source.faultCount + target.faultCount + final.faultCount;
  }

  #expect(condition: boolean, kind: string, message: () => string): void {
    this.#simulation.expect(condition, kind, message);
  }
}

function describe({ what, offset, length }: SnapshotAccess): string {
  return `${what} of ${length} bytes at ${offset}`;
}
