import type { DirtyBitmap } from "./dirty-bitmap.ts";

/**
 * One entry of `dirty-bitmaps` in the query of a node.
 *
 * @see spec/dirty-bitmap.md section 7
 */
export interface BitmapInfo {
  /** Absent for nameless bitmaps. */
  readonly name?: string;
  readonly recording: boolean;
  readonly persistent: boolean;
  readonly busy: boolean;
  /** Bytes per bit. */
  readonly granularity: number;
  /** Dirty bytes, whole groups. */
  readonly count: number;
  /** Only present when true. */
  readonly inconsistent?: true;
}

/** The row of the query. */
export function bitmapInfo(bitmap: DirtyBitmap): BitmapInfo {
  const { name, recording, persistent, busy, granularity, count, inconsistent } = bitmap;
  return {
    ...(name === undefined ? {} : { name }),
    recording,
    persistent,
    busy,
    granularity,
    count,
    ...(inconsistent ? { inconsistent } : {}),
  };
}
