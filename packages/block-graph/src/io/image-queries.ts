import { type CheckOptions, type CheckResult, type ImageInfo, Role } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { BlockNode } from "../block-node.ts";
import { filterChild } from "../chain.ts";
import { notSupported } from "./request-checks.ts";

/** Roles of the children that a node keeps its bytes in. */
const STORING = Role.data | Role.metadata | Role.filtered;

/** What the driver tells of its image; a filter without an answer tells its child's. @throws BlockError `ENOTSUP` */
export async function imageInfo(node: BlockNode): Promise<ImageInfo> {
  if (node.driver.getInfo !== undefined) return await node.driver.getInfo();
  const filtered = filterChild(node);
  if (filtered !== undefined) return await filtered.getInfo();
  const request = { operation: "getInfo", offset: 0, length: 0 };
  throw notSupported(node, request, "image information");
}

/** @throws BlockError `ENOTSUP` the format has no check */
export async function checkImage(node: BlockNode, options?: CheckOptions): Promise<CheckResult> {
  if (node.driver.check !== undefined) return await node.driver.check(options);
  const message = "This image format does not support checks";
  throw new BlockError("ENOTSUP", message, { node: node.name, operation: "check" });
}

/**
 * Bytes by which the storage may still grow: what the driver says, else the least of the children that store for it.
 *
 * @returns `undefined` where it is not known
 */
export async function freeSpace(node: BlockNode): Promise<number | undefined> {
  if (node.driver.freeSpace !== undefined) return await node.driver.freeSpace();
  let least: number | undefined;
  for (const edge of node.children.values()) {
    if ((edge.role & STORING) === 0) continue;
    const free = await edge.freeSpace();
    if (free !== undefined) least = Math.min(least ?? free, free);
  }
  return least;
}

/**
 * Bytes occupied in storage: what the driver says, else the sum over the children that store for it.
 *
 * @returns `undefined` where it is not known
 */
export async function allocatedSize(node: BlockNode): Promise<number | undefined> {
  if (node.driver.allocatedSize !== undefined) return await node.driver.allocatedSize();
  let sum: number | undefined;
  for (const edge of node.children.values()) {
    if ((edge.role & STORING) === 0) continue;
    const size = await edge.allocatedSize();
    if (size === undefined) return undefined;
    sum = (sum ?? 0) + size;
  }
  return sum;
}
