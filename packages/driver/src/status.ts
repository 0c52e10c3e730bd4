import type { BlockChild } from "./child.ts";

/**
 * Bits of a block status.
 *
 * @see spec/graph.md section 7.12
 */
export const StatusFlag = {
  /** Data is stored at this layer. */
  data: 1,
  /** The range reads as zeroes. */
  zero: 2,
  /** `offset` and `child` say where the range is stored. */
  offsetValid: 4,
  /** From a driver only, with `offsetValid` alone: ask the child named again. */
  raw: 8,
  /** The content is decided by this layer. Added by the graph. */
  allocated: 16,
  /** The run ends at the end of the node. Added by the graph. */
  eof: 32,
  /** From a driver only, with data and `offsetValid`: look for zeroes in the child too. */
  recurse: 64,
} as const;

/** What a run of bytes is: the answer starts at the offset asked and has one value throughout. */
export interface BlockStatus {
  /** {@link StatusFlag} bits. */
  readonly flags: number;
  /** Bytes with this status, at most what was asked; 0 only at or beyond the end of the node. */
  readonly length: number;
  /** With `offsetValid`: where the run starts in `child`, or in the node's own storage. */
  readonly offset?: number;
  /** With `offsetValid`: the child that stores the run. Absent: the node itself. */
  readonly child?: BlockChild;
}

export interface StatusOptions {
  /**
   * Whether zeroes matter. `false` favours long runs and an exact `allocated` and may report zeroes as data.
   * Default `true`.
   */
  readonly wantZero?: boolean;
  readonly signal?: AbortSignal;
}

export interface ChainStatusOptions extends StatusOptions {
  /** Name of the node at which the walk down the chain stops. Default: the end of the chain. */
  readonly base?: string;
  /** Whether `base` itself is asked too. Default `false`. */
  readonly includeBase?: boolean;
}
