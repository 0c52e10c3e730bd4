import type { Decisions } from "../decisions.ts";

/** Bytes: the smallest unit of copying. */
const CLUSTER_MIN = 65536;

/** What is drawn before the snapshot begins. */
export interface SnapshotPlan {
  /** Bytes, not always whole clusters. */
  readonly size: number;
  readonly minClusterSize: number;
  /** Bytes: the unit of copying. */
  readonly clusterSize: number;
  readonly alignment: number;
  /** Bytes of the source that hold data at first. */
  readonly filled: number;
  /** What the target holds at first. */
  readonly stale: number;
  readonly onError: "break-guest-write" | "break-snapshot";
  /** Seconds, 0 for ever. */
  readonly timeout: number;
  /** Only what a dirty bitmap marks is kept and shown. */
  readonly hasBitmap: boolean;
  /** Nothing can be saved: whatever is asked of the target fails, until nothing fails any more. */
  readonly isTargetGone: boolean;
  /** Guests' discards pass the filter. */
  readonly passesDiscards: boolean;
  /** The snapshot is copied in the background too. */
  readonly isPrefetched: boolean;
  /** The source is discarded where it was copied. Prefetched, without a backup. */
  readonly movesAway: boolean;
  /** Guests use the disk although it moves away. */
  readonly guestsStay: boolean;
  /** A backup of the snapshot to a third disk; `discards`: what it has copied is given up. */
  readonly backup: "none" | "keeps" | "discards";
  /** The snapshot ends while everybody is at work. */
  readonly endsEarly: boolean;
}

export function drawSnapshotPlan(decisions: Decisions): SnapshotPlan {
  const clusters = 1 + decisions.choose("clusters", 4);
  const size = clusters * CLUSTER_MIN - decisions.among("tail", [0, 4096, CLUSTER_MIN - 4096]);
  const minClusterSize = decisions.among("min cluster size", [0, 2 * CLUSTER_MIN, 4096]);
  const hasBitmap = decisions.chance("bitmap", 1, 4);
  const movesAway = decisions.chance("moves away", 1, 4);
  const backups = ["none", "none", "keeps", "discards"] as const;
  const plan: SnapshotPlan = {
    size,
    minClusterSize,
    clusterSize: Math.max(CLUSTER_MIN, minClusterSize),
    alignment: decisions.among("alignment", [512, 4096, 1]),
    filled: Math.min(size, CLUSTER_MIN * decisions.choose("filled clusters", clusters + 1)),
    stale: decisions.among("stale target", [0, 0x77]),
    onError: decisions.among("on-cbw-error", ["break-guest-write", "break-snapshot"]),
    timeout: decisions.among("cbw-timeout", [0, 0, 1]),
    hasBitmap,
    isTargetGone: decisions.chance("target is gone", 1, 8),
    passesDiscards: decisions.chance("discards pass", 1, 2),
    isPrefetched: movesAway || decisions.chance("prefetched", 1, 3),
    movesAway,
    guestsStay: false,
    backup: hasBitmap || movesAway ? "none" : decisions.among("backup", backups),
    endsEarly: decisions.chance("ends early", 1, 2),
  };
  if (!movesAway) return plan;
  const changed = { ...plan, ...drawGuestsOfMove(decisions) };
  return { ...changed, filled: Math.min(changed.filled, changed.size) };
}

/** Guests whose writes break the snapshot while the source is discarded: what they write from then on has to stay. */
function drawGuestsOfMove(decisions: Decisions): Partial<SnapshotPlan> {
  if (!decisions.chance("guests stay", 5, 6)) return {};
  return {
    guestsStay: true,
    // Several clusters, so that some are copied while others are discarded.
    size: CLUSTER_MIN * (3 + decisions.choose("more clusters of a move", 2)),
    minClusterSize: 0,
    clusterSize: CLUSTER_MIN,
    onError: decisions.chance("guests bear a move", 1, 5) ? "break-guest-write" : "break-snapshot",
    timeout: decisions.among("cbw-timeout of a move", [1, 0]),
    isTargetGone: false,
    // So that every discard that reaches the source is that of the move.
    passesDiscards: false,
  };
}
