import type { Decisions } from "../decisions.ts";

/** Bytes of a sector of the disks, and of a cell that a guest writes. */
export const CELL = 512;

/** What is drawn before a copy begins. */
export interface BlockCopyPlan {
  /** Bytes: the unit of copying. */
  readonly clusterSize: number;
  readonly clusterCount: number;
  /** Bytes, not always whole clusters. */
  readonly size: number;
  readonly sourceAlignment: number;
  readonly targetAlignment: number;
  /** Bytes of a request to the target, 0 for no limit. */
  readonly targetMaxTransfer: number;
  /** Writes of copies overlap with no other request to the target. */
  readonly isSerialising: boolean;
  /** Half clusters of the source that hold data at first. */
  readonly isFilled: readonly boolean[];
  /** Half clusters that the source's top layer holds: all of them, or those that are to be copied are among these. */
  readonly isPresent: readonly boolean[] | undefined;
  /** What the target holds at first. */
  readonly stale: number;
  /** Whether copies without buffers are tried, and whether they work. */
  readonly copyRange: "off" | "refused" | "works";
  readonly discardsSource: boolean;
  /** Tasks have to wait for memory. */
  readonly hasTightMemory: boolean;
  /** Times that everything begins anew. */
  readonly rounds: number;
}

export function drawBlockCopyPlan(decisions: Decisions): BlockCopyPlan {
  const clusterSize = decisions.among("cluster size", [4096, 1024, 16384]);
  const clusterCount = 1 + decisions.choose("clusters", 12);
  const size = clusterCount * clusterSize - decisions.among("tail", [0, CELL, clusterSize - CELL]);
  const alignment = (name: string): number => {
    const drawn = decisions.among(`${name} alignment`, [CELL, 1, 4096]);
    return size % drawn === 0 ? drawn : CELL;
  };
  const halves = (name: string): boolean[] =>
    Array.from({ length: 2 * clusterCount }, () => !decisions.chance(name, 1, 3));
  const sourceAlignment = alignment("source");
  const targetAlignment = alignment("target");
  const maxTransfer = clusterSize * decisions.among("max transfer", [0, 2, 0.5]);
  return {
    clusterSize,
    clusterCount,
    size,
    sourceAlignment,
    targetAlignment,
    targetMaxTransfer: maxTransfer === 0 ? 0 : Math.max(maxTransfer, targetAlignment),
    isSerialising: decisions.chance("serialising", 1, 4),
    isFilled: halves("half cluster is empty"),
    isPresent: decisions.chance("top layer only", 1, 4)
      ? halves("half cluster is not allocated")
      : undefined,
    stale: decisions.among("stale target", [0, 0x77]),
    copyRange: decisions.among("copy range", ["off", "off", "refused", "works"]),
    discardsSource: decisions.chance("discards the source", 1, 4),
    hasTightMemory: decisions.chance("tight memory", 1, 2),
    rounds: 1 + decisions.choose("rounds", 2),
  };
}

/** Whether the source's top layer holds any of a cluster. */
export function isAllocated({ isPresent, size, clusterSize }: BlockCopyPlan, at: number): boolean {
  if (isPresent === undefined) return true;
  const half = at / (clusterSize / 2);
  const hasSecond = at + clusterSize / 2 < size;
  return isPresent[half] === true || (hasSecond && isPresent[half + 1] === true);
}
