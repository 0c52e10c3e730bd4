import type { BackupOptions } from "@blocklayer/backup";
import type { Decisions } from "../decisions.ts";
import { SECTOR, type SourceShape, type TargetShape } from "./backup-disk.ts";
import { CLUSTER } from "./backup-plan.ts";

/** One of several disks that are backed up together. */
export interface GroupDiskPlan {
  readonly name: string;
  readonly size: number;
  readonly shape: SourceShape;
  readonly filled: number;
}

/** One of several backups that are started together. */
export interface GroupMemberPlan {
  /** Index of its disk. */
  readonly disk: number;
  readonly options: BackupOptions;
  readonly targetShape: TargetShape;
  readonly isCancelled: boolean;
}

/** What happens to bitmaps in the instant of the start, dullest first. */
export const BITMAP_ACTIONS = ["add", "clear", "disable", "merge", "clear its own"] as const;
export type BitmapAction = (typeof BITMAP_ACTIONS)[number];

/** A step beside the backups. */
export interface ActionPlan {
  readonly action: BitmapAction;
  /** Index of the disk. */
  readonly disk: number;
}

type ModeOptions = Partial<BackupOptions> & Pick<BackupOptions, "sync">;

const MODES = [
  { sync: "full" },
  { sync: "incremental", bitmap: "bm" },
  { sync: "full", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "full", bitmap: "bm", "bitmap-mode": "always" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "always" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "never" },
  { sync: "top", bitmap: "bm", "bitmap-mode": "always" },
] as const satisfies readonly [ModeOptions, ...ModeOptions[]];

const ON_ERROR = ["report", "ignore", "stop"] as const;

/** Draws two or three small disks. The last sector of each is nobody's but the journal's. */
export function drawGroupDisks(decisions: Decisions): GroupDiskPlan[] {
  const count = 2 + decisions.weighted("more disks", [4, 1]);
  return Array.from({ length: count }, (_, index) => {
    const clusters = 1 + decisions.weighted("clusters", [4, 1]);
    const size = clusters * CLUSTER - decisions.among("tail", [0, SECTOR]);
    return {
      name: `disk${index}`,
      size,
      shape: decisions.weighted("source shape", [3, 1]) === 0 ? "plain" : "overlay",
      filled: Math.min(size, SECTOR * decisions.choose("filled", 17)),
    };
  });
}

/** Draws the backups of one transaction: one of each disk, and perhaps a second one of the first. */
export function drawGroup(
  decisions: Decisions,
  diskCount: number,
  round: string,
): GroupMemberPlan[] {
  const members = Array.from({ length: diskCount }, (_, disk) =>
    drawMember(decisions, {
      disk,
      name: `${round}-${disk}`,
      mode: decisions.among<ModeOptions>("mode", MODES),
    }),
  );
  if (decisions.chance("two of one disk", 1, 8)) {
    members.push(drawMember(decisions, { disk: 0, name: `${round}-0b`, mode: { sync: "full" } }));
  }
  return members;
}

function drawMember(
  decisions: Decisions,
  {
    disk,
    name,
    mode,
  }: { readonly disk: number; readonly name: string; readonly mode: ModeOptions },
): GroupMemberPlan {
  return {
    disk,
    targetShape: decisions.weighted("target shape", [3, 1]) === 0 ? "plain" : "image",
    isCancelled: decisions.chance("is cancelled", 1, 12),
    options: {
      "job-id": name,
      device: `disk${disk}`,
      target: `to-${name}`,
      "filter-node-name": `filter-${name}`,
      ...mode,
      "on-source-error": decisions.among("on-source-error", ON_ERROR),
      "on-target-error": decisions.among("on-target-error", ON_ERROR),
      "auto-finalize": !decisions.chance("finalize", 1, 8),
      "x-perf": { "max-workers": 1 + decisions.choose("max-workers", 2) },
    },
  };
}

export function drawActions(decisions: Decisions, diskCount: number): ActionPlan[] {
  return Array.from({ length: decisions.choose("actions", 4) }, () => ({
    action: decisions.among("action", BITMAP_ACTIONS),
    disk: decisions.choose("action on", diskCount),
  }));
}
