import type { BackupOptions } from "@blocklayer/backup";
import type { Decisions } from "../decisions.ts";

/** Bytes: the smallest unit of copying. */
export const CLUSTER = 65536;

/** What is drawn before a backup begins. */
export interface BackupPlan {
  /** Bytes, not always whole clusters. */
  readonly size: number;
  readonly alignment: number;
  /** Bytes of the source that hold data at first. */
  readonly filled: number;
  /** What the target holds at first. */
  readonly stale: number;
  readonly options: BackupOptions;
  readonly isCancelled: boolean;
}

/** The combinations of sync mode and bitmap mode, dullest first. */
const MODES = [
  { sync: "full" },
  { sync: "full", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "full", bitmap: "bm", "bitmap-mode": "always" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "on-success" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "always" },
  { sync: "bitmap", bitmap: "bm", "bitmap-mode": "never" },
  { sync: "none" },
] as const satisfies readonly [Partial<BackupOptions>, ...Partial<BackupOptions>[]];

export function drawBackupPlan(decisions: Decisions): BackupPlan {
  const clusters = 1 + decisions.choose("clusters", 4);
  const size = clusters * CLUSTER - decisions.among("tail", [0, 4096, CLUSTER - 4096]);
  const mode = decisions.among<Partial<BackupOptions> & Pick<BackupOptions, "sync">>("mode", MODES);
  const onError = ["report", "ignore", "stop"] as const;
  const options: BackupOptions = {
    "job-id": "job",
    device: "disk",
    target: "target",
    ...mode,
    "on-cbw-error": decisions.among("on-cbw-error", ["break-guest-write", "break-snapshot"]),
    "cbw-timeout": decisions.among("cbw-timeout", [0, 0, 1]),
    "on-source-error": decisions.among("on-source-error", onError),
    "on-target-error": decisions.among("on-target-error", onError),
    "x-perf": {
      "max-workers": 1 + decisions.choose("max-workers", 3),
      "max-chunk": CLUSTER * decisions.choose("max-chunk", 3),
    },
  };
  return {
    size,
    options,
    alignment: decisions.among("alignment", [512, 4096, 1]),
    filled: Math.min(size, CLUSTER * decisions.choose("filled clusters", clusters + 1)),
    stale: decisions.among("stale target", [0, 0x77]),
    isCancelled: mode.sync === "none" || decisions.chance("is cancelled", 1, 5),
  };
}
