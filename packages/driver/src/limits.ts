import { alignDown } from "@blocklayer/offsets";

/**
 * What requests a driver accepts. The graph aligns, pads and splits so that it never sees others.
 * All in bytes; 0 means no limit for the `max…` members and "no preference" for the others.
 *
 * @see spec/graph.md section 7.2
 */
export interface BlockLimits {
  /** Offsets and lengths of all requests are multiples of it. A power of two from 1 to 1 GiB. Default 1. */
  readonly requestAlignment: number;
  /** Longest read or write. A multiple of `requestAlignment`. */
  readonly maxTransfer: number;
  /** Preferred length of reads and writes. */
  readonly optTransfer: number;
  /** Longest write-zeroes. */
  readonly maxPwriteZeroes: number;
  /** Write-zeroes are split at multiples of it. */
  readonly pwriteZeroesAlignment: number;
  /** Longest discard. */
  readonly maxPdiscard: number;
  /** Discards are split at multiples of it. */
  readonly pdiscardAlignment: number;
}

export const DEFAULT_LIMITS: BlockLimits = {
  requestAlignment: 1,
  maxTransfer: 0,
  optTransfer: 0,
  maxPwriteZeroes: 0,
  pwriteZeroesAlignment: 0,
  maxPdiscard: 0,
  pdiscardAlignment: 0,
};

/** The longest read or write the interface takes, in bytes: 2^31 − 512. Longer is `EIO`. */
export const MAX_REQUEST: number = 2 ** 31 - 512;

/**
 * Returns the limits of a node: what it inherits from its children that hold data, overridden by what its
 * driver says.
 *
 * Alignments and preferred lengths are the largest of the children, transfer limits the smallest that is
 * not 0, in whole blocks of the node. Request alignment, write-zeroes and discard limits are not inherited: the graph aligns again at each
 * node.
 *
 * @param children - limits of the children whose role is data, filtered or backing
 * @param own - what the driver says; wins
 * @throws RangeError the driver takes less than a block at a time: no request could ever be split so far
 */
export function mergeLimits(
  children: readonly BlockLimits[],
  own: Partial<BlockLimits> = {},
): BlockLimits {
  let { maxTransfer, optTransfer, pdiscardAlignment } = DEFAULT_LIMITS;
  for (const child of children) {
    optTransfer = Math.max(optTransfer, child.optTransfer);
    pdiscardAlignment = Math.max(pdiscardAlignment, child.pdiscardAlignment);
    if (child.maxTransfer !== 0) {
      maxTransfer =
        maxTransfer === 0 ? child.maxTransfer : Math.min(maxTransfer, child.maxTransfer);
    }
  }
  // A child splits what is longer than it takes, so a block of this node is never too long.
  const block = own.requestAlignment ?? DEFAULT_LIMITS.requestAlignment;
  if (maxTransfer !== 0) maxTransfer = Math.max(alignDown(maxTransfer, block), block);
  const merged = { ...DEFAULT_LIMITS, maxTransfer, optTransfer, pdiscardAlignment, ...own };
  if (merged.maxTransfer !== 0 && merged.maxTransfer < merged.requestAlignment) {
    throw new RangeError(
      `a driver that takes ${merged.maxTransfer} bytes at a time has no request alignment of ${merged.requestAlignment}`,
    );
  }
  return merged;
}
