import type { Decisions } from "../decisions.ts";

/** Bytes that a bit stands for; the first one is the dullest. */
const GRANULARITIES = [512, 1, 2, 65_536, 2 ** 20, 2 ** 30] as const;

/** Numbers of bits at which a word, a serialised word or a level is full. */
const BOUNDARIES = [64, 32, 1024, 2048, 32_768, 0, 65_536] as const;

/** A bitmap of this many bits is as large as one of 1 TiB in clusters of 64 KiB. */
const SPARSE_BITS = 2 ** 24;

/** What is the same in all of a life. */
export interface HBitmapPlan {
  /** Bytes of a group, one for each bitmap. */
  readonly granularities: readonly number[];
  /** Bytes. */
  readonly size: number;
  /** Whether the bitmaps are too large to be looked at bit by bit. */
  readonly isSparse: boolean;
}

/** A range in bytes, not aligned unless said so. */
export interface DrawnRange {
  readonly offset: number;
  readonly length: number;
}

export function drawHBitmapPlan(decisions: Decisions): HBitmapPlan {
  const isSparse = decisions.chance("sparse", 1, 24);
  if (isSparse) {
    const size = SPARSE_BITS * 65_536 - decisions.among("cut", [0, 1, 65_536]);
    return { granularities: [65_536], size, isSparse };
  }
  const granularities: number[] = [];
  for (let count = 1 + decisions.choose("more bitmaps", 3); count > 0; count -= 1) {
    granularities.push(drawGranularity(decisions, granularities[0]));
  }
  const finest = Math.min(...granularities);
  const widest = Math.max(...granularities);
  // The coarse ones are to have some groups, the finest not too many.
  const scale = widest / finest <= 512 ? finest : widest / 512;
  return { granularities, size: drawSize(decisions, scale), isSparse };
}

/** Others are like the first one, finer or coarser, but not so much that a group of it is a million of theirs. */
function drawGranularity(decisions: Decisions, first: number | undefined): number {
  if (first === undefined) return decisions.among("granularity", GRANULARITIES);
  const factor = decisions.among("granularity of another", [1, 2, 16, 1 / 2, 1 / 16]);
  return Math.max(1, first * factor);
}

/** Returns a size in bytes: about a number of groups at which something is full. */
export function drawSize(decisions: Decisions, granularity: number): number {
  const boundary = decisions.among("size in groups", BOUNDARIES);
  const groups = Math.max(0, boundary + decisions.among("beside it", [0, 1, -1, 2, -2, 33, -33]));
  return Math.max(0, groups * granularity - drawBytes(decisions, "cut", granularity));
}

/** Returns 0 to `bound − 1` bytes: mostly none, one or all of them. */
export function drawBytes(decisions: Decisions, tag: string, bound: number): number {
  const choice = decisions.choose(tag, 6);
  if (choice < 3) return 0;
  if (choice === 3) return Math.min(1, bound - 1);
  return choice === 4 ? bound - 1 : Math.floor(bound / 2);
}

/** Draws where operations go: again and again to the same places, and to where words and levels meet. */
export class PlaceDrawer {
  readonly #decisions: Decisions;
  #last = 0;

  constructor(decisions: Decisions) {
    this.#decisions = decisions;
  }

  /** Returns a group below `groups`, which is not 0. */
  group(groups: number): number {
    const decisions = this.#decisions;
    const kind = decisions.weighted("place", [4, 3, 3, 2, 2]);
    const drawn = [
      () => this.#last + decisions.choose("near", 5) - 2,
      () => 32 * decisions.choose("word", Math.ceil(groups / 32)) - decisions.choose("before", 2),
      () =>
        1024 * decisions.choose("level", Math.ceil(groups / 1024)) - decisions.choose("before", 2),
      () => groups - 1 - decisions.choose("from the end", 4),
      () => decisions.choose("group", groups),
    ][kind]?.();
    this.#last = Math.min(groups - 1, Math.max(0, drawn ?? 0));
    return this.#last;
  }

  /** Returns how many groups a range takes, at most `room`, which is not 0. */
  count(room: number): number {
    const decisions = this.#decisions;
    const kind = decisions.weighted("length", [5, 3, 2, 2, 1]);
    const drawn = [
      () => 1,
      () => 1 + decisions.choose("groups", 4),
      () => 28 + decisions.choose("groups about a word", 40),
      () => 1 + decisions.choose("groups", room),
      () => room,
    ][kind]?.();
    return Math.min(room, drawn ?? 1);
  }

  /** Returns whole groups, the last one perhaps cut at `size`. */
  aligned(size: number, granularity: number): DrawnRange {
    const groups = Math.ceil(size / granularity);
    const first = this.group(groups);
    const count = this.count(groups - first);
    const offset = first * granularity;
    const end = offset + count * granularity;
    const isCut = end > size && this.#decisions.choose("up to the size", 2) === 0;
    return { offset, length: (isCut ? size : end) - offset };
  }

  /** Returns any bytes below the end of the last group; sometimes none. */
  any(size: number, granularity: number): DrawnRange {
    const { offset, length } = this.aligned(size, granularity);
    const head = drawBytes(this.#decisions, "head", Math.min(granularity, length));
    const tail = drawBytes(this.#decisions, "tail", Math.min(granularity, length - head));
    const isEmpty = this.#decisions.chance("empty", 1, 40);
    return { offset: offset + head, length: isEmpty ? 0 : length - head - tail };
  }
}
