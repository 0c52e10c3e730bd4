import type { BackupOptions } from "@blocklayer/backup";
import type { Decisions } from "../decisions.ts";
import { SECTOR, SOURCE_SHAPES, type SourceShape, type TargetShape } from "./backup-disk.ts";

/** Bytes: the smallest unit of copying. */
export const CLUSTER = 65536;

/** What is drawn before anything begins. */
export interface StackPlan {
  /** Bytes, not always whole clusters. */
  readonly size: number;
  readonly alignment: number;
  readonly shape: SourceShape;
  /** Whether guests use the disk through one more filter. */
  readonly isAbove: boolean;
  /** Bytes from the start of the source that hold data at first. */
  readonly filled: number;
  /** Where the overlay's own data begins and ends, in bytes. */
  readonly held: readonly [from: number, to: number];
  /** Backups, one after the other. */
  readonly rounds: number;
}

/** What is drawn before a backup begins. */
export interface BackupPlan {
  readonly options: BackupOptions;
  readonly targetShape: TargetShape;
  /** What the target holds at first. */
  readonly stale: number;
  readonly isCancelled: boolean;
}

type ModeOptions = Partial<BackupOptions> & Pick<BackupOptions, "sync">;

/** The combinations of sync mode and bitmap mode, dullest first. */
const MODES = [
  { sync: "full" },
  { sync: "full", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "full", bitmap: "bm", "bitmap-mode": "always" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "always" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "never" },
  { sync: "none" },
  { sync: "incremental", bitmap: "bm" },
  { sync: "incremental", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "top" },
  { sync: "top", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "top", bitmap: "bm", "bitmap-mode": "always" },
] as const satisfies readonly [ModeOptions, ...ModeOptions[]];

/** Modes of a backup that runs beside another one, without the bitmap. */
const SIDE_MODES = [{ sync: "full" }, { sync: "none" }, { sync: "top" }] as const;

const ON_ERROR = ["report", "ignore", "stop", "enospc", "auto"] as const;

export function drawStackPlan(decisions: Decisions): StackPlan {
  const clusters = 1 + decisions.weighted("clusters", [3, 3, 2, 1]);
  const size = clusters * CLUSTER - decisions.among("tail", [0, SECTOR, CLUSTER - SECTOR]);
  const shape =
    SOURCE_SHAPES[decisions.weighted("source shape", [4, 3, 1, 1], SOURCE_SHAPES)] ?? "plain";
  const isOverlay = shape === "overlay" || shape === "filtered overlay";
  const heldFrom = isOverlay ? decisions.choose("held from", 3) * (CLUSTER + SECTOR) : 0;
  const heldLength = isOverlay ? decisions.choose("held", 3) * (CLUSTER - SECTOR) : 0;
  return {
    size,
    shape,
    alignment: decisions.among("alignment", [512, 4096, 1]),
    isAbove: decisions.chance("filter above", 1, 5),
    filled: Math.min(size, CLUSTER * decisions.choose("filled clusters", clusters + 1)),
    held: [Math.min(size, heldFrom), Math.min(size, heldFrom + heldLength)],
    rounds: 1 + decisions.weighted("more rounds", [9, 3, 1]),
  };
}

/**
 * Draws a backup.
 *
 * @param name - names the job and its target
 * @param isBeside - whether another one runs on the same source, with the bitmap
 */
export function drawBackupPlan({
  decisions,
  name,
  isBeside,
}: {
  decisions: Decisions;
  name: string;
  isBeside: boolean;
}): BackupPlan {
  const mode: ModeOptions = isBeside
    ? decisions.among<ModeOptions>(`${name} mode`, SIDE_MODES)
    : decisions.among<ModeOptions>(`${name} mode`, MODES);
  const targetShape = drawTargetShape(decisions, name, mode);
  const minClusterSize = decisions.weighted("min-cluster-size", [6, 1]) * 2 * CLUSTER;
  const clusterSize =
    targetShape === "wide image" ? 2 * CLUSTER : Math.max(CLUSTER, minClusterSize);
  const isPatient = decisions.chance(`${name} waits for its user`, 1, 6);
  const options: BackupOptions = {
    "job-id": name,
    device: "disk",
    target: `to-${name}`,
    "filter-node-name": `filter-${name}`,
    ...mode,
    "on-cbw-error": decisions.among("on-cbw-error", ["break-guest-write", "break-snapshot"]),
    "cbw-timeout": decisions.among("cbw-timeout", [0, 0, 1]),
    "on-source-error": decisions.among("on-source-error", ON_ERROR),
    "on-target-error": decisions.among("on-target-error", ON_ERROR),
    compress: takesCompressed(targetShape) && decisions.chance("compress", 1, 2),
    "discard-source": !isBeside && decisions.chance("discard source", 1, 10),
    "auto-finalize": !(isPatient && decisions.chance("finalize", 1, 2)),
    "auto-dismiss": !(isPatient && decisions.chance("dismiss", 1, 2)),
    "x-perf": {
      "max-workers": 1 + decisions.choose("max-workers", 3),
      "max-chunk": clusterSize * decisions.choose("max-chunk", 3),
      "min-cluster-size": minClusterSize,
      "use-copy-range": decisions.chance("copy range", 1, 6),
    },
  };
  return {
    options,
    targetShape,
    stale: targetShape === "fleecing" ? 0 : decisions.among("stale target", [0, 0x77]),
    isCancelled: mode.sync === "none" || decisions.chance("is cancelled", 1, 5),
  };
}

/** An image over the source is of use only where everything that is overwritten is saved. */
function drawTargetShape(decisions: Decisions, name: string, { sync }: ModeOptions): TargetShape {
  const shape = decisions.weighted(`${name} target shape`, [6, 2, 1, 1, 4]);
  const isOver = shape === 4 && (sync === "full" || sync === "none");
  if (isOver) return "fleecing";
  return (["plain", "image", "wide image", "filtered", "plain"] as const)[shape] ?? "plain";
}

function takesCompressed(shape: TargetShape): boolean {
  return shape === "image" || shape === "wide image";
}
