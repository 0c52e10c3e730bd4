import type { Geometry } from "../format/geometry.ts";
import { subclusterKind } from "../format/l2-entry.ts";
import { isCompressed, type L2Words } from "../image/mapping.ts";

/** Bytes of a cluster, from its start. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** What a write to a part of a cluster has to take along. */
export interface CopyPlan {
  /** What has to be copied to the host cluster because the write does not cover it, in order. */
  readonly copies: readonly ByteRange[];
  /** Bits of the subclusters that are in the host cluster then. */
  readonly allocated: number;
}

/**
 * Plans a write of `[start, end)` of a cluster: subclusters that it touches become whole, and if the host cluster is a new
 * one, those that were in the old one move along.
 *
 * @param isFresh - the host cluster is a new one
 * @see spec/qcow2.md section 6.1
 */
export function planCopies(
  words: L2Words,
  geometry: Geometry,
  { start, end }: ByteRange,
  isFresh: boolean,
): CopyPlan {
  const { subclusterSize, subclusters } = geometry;
  const copies: ByteRange[] = [];
  let allocated = 0;
  for (let index = 0; index < subclusters; index += 1) {
    const from = index * subclusterSize;
    const to = from + subclusterSize;
    const isTouched = start < to && from < end;
    if (isTouched) {
      if (from < start) add(copies, from, start);
      if (end < to) add(copies, end, to);
    } else if (isFresh && movesAlong(words, index)) {
      add(copies, from, to);
    } else {
      continue;
    }
    allocated |= 1 << index;
  }
  return { copies, allocated: allocated >>> 0 };
}

function movesAlong(words: L2Words, index: number): boolean {
  if (isCompressed(words)) return true;
  const { high, low, zeroes, allocated } = words;
  return subclusterKind(high, low, zeroes, allocated, index, false) === "normal";
}

function add(ranges: ByteRange[], start: number, end: number): void {
  const last = ranges.at(-1);
  if (last?.end === start) ranges[ranges.length - 1] = { start: last.start, end };
  else ranges.push({ start, end });
}
