import { StatusFlag } from "@blocklayer/driver";
import type { BlockNode } from "../block-node.ts";
import { chainStatus, layerStatus } from "./block-status.ts";

/** Whether a run of bytes is allocated. */
export interface AllocationRun {
  readonly allocated: boolean;
  /** Bytes with this answer; 0 only when none was asked for or at the end of the node. */
  readonly length: number;
}

/**
 * Returns whether the node's own layer decides the content at `offset`, and for how many bytes.
 *
 * @param offset - bytes; at or beyond the end nothing is allocated and the length is 0
 * @param length - bytes
 * @see spec/graph.md section 7.12
 */
export async function isAllocated(
  node: BlockNode,
  offset: number,
  length: number,
): Promise<AllocationRun> {
  const status = await layerStatus(node, offset, length, { wantZero: false });
  return { allocated: (status.flags & StatusFlag.allocated) !== 0, length: status.length };
}

/** Which layers {@link isAllocatedAbove} asks. */
export interface AboveOptions {
  /** Name of the node at which the walk stops. Default: the end of the chain. */
  readonly base?: string;
  /** Whether the base itself is asked. Default `false`. */
  readonly includeBase?: boolean;
}

/**
 * Returns the depth of the first layer from `top` down that decides the content at `offset`: 1 is `top` itself, 0
 * none of them.
 *
 * @param offset - bytes
 * @param length - bytes
 * @throws BlockError `EINVAL` the base is not in the chain
 */
export async function isAllocatedAbove(
  top: BlockNode,
  offset: number,
  length: number,
  options: AboveOptions = {},
): Promise<{ readonly depth: number; readonly length: number }> {
  const status = await chainStatus(top, offset, length, { ...options, wantZero: false });
  return { depth: status.depth, length: status.length };
}

/**
 * Returns whether the whole range is known to read as zeroes without reading it. `false` says nothing.
 *
 * @param offset - bytes
 * @param length - bytes; 0 is zero everywhere
 */
export async function isZeroFast(
  node: BlockNode,
  offset: number,
  length: number,
): Promise<boolean> {
  if (length === 0) return true;
  const status = await chainStatus(node, offset, length);
  return status.length === length && (status.flags & StatusFlag.zero) !== 0;
}
