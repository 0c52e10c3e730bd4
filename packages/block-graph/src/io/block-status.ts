import {
  type BlockStatus,
  type ChainStatusOptions,
  StatusFlag,
  type StatusOptions,
} from "@blocklayer/driver";
import { assert, BlockError } from "@blocklayer/errors";
import { alignDown, alignUp, clampLength } from "@blocklayer/offsets";
import type { BlockNode } from "../block-node.ts";
import { cowChild, filterChild, filterOrCowChild } from "../chain.ts";
import type { Edge } from "../edge.ts";
import { checkRange } from "./request-checks.ts";

const { data, zero, offsetValid, raw, allocated, eof, recurse } = StatusFlag;

/** A status over a chain, with the number of layers walked; 0 when none decides. */
export type ChainStatus = BlockStatus & { readonly depth: number };

/**
 * Returns the status of a node's own layer.
 *
 * @see spec/graph.md section 7.12
 */
export async function layerStatus(
  node: BlockNode,
  offset: number,
  length: number,
  options: StatusOptions | undefined,
): Promise<BlockStatus> {
  checkRange(node, { operation: "blockStatus", offset, length });
  if (offset >= node.size) return { flags: eof, length: 0 };
  if (length === 0) return { flags: 0, length: 0 };
  node.io.enter();
  try {
    const size = node.size;
    const status = await ownStatus(node, offset, clampLength(offset, length, size), options);
    const atEnd = offset + status.length >= size;
    return { ...status, flags: (status.flags & ~(eof | raw | recurse)) | (atEnd ? eof : 0) };
  } finally {
    node.io.leave();
  }
}

async function ownStatus(
  node: BlockNode,
  offset: number,
  length: number,
  options: StatusOptions | undefined,
): Promise<BlockStatus> {
  const wantZero = options?.wantZero ?? true;
  const answer = await driverStatus(node, offset, length, wantZero, options);
  if ((answer.flags & raw) !== 0) return askChildAgain(answer, options);
  let { flags } = answer;
  if ((flags & (data | zero)) !== 0) flags |= allocated;
  else if (node.definition.supportsBacking) flags |= unallocatedReadsZero(node, offset, wantZero);
  if (wantZero && (flags & recurse) !== 0) return zeroesBelow({ ...answer, flags }, node, options);
  return { ...answer, flags };
}

/** What neither this layer nor a backing node holds reads as zeroes. */
function unallocatedReadsZero(node: BlockNode, offset: number, wantZero: boolean): number {
  const backing = cowChild(node);
  if (backing === undefined) return zero;
  return wantZero && offset >= backing.size ? zero : 0;
}

/** Asks the driver for an aligned range and cuts the answer to what was asked. */
async function driverStatus(
  node: BlockNode,
  offset: number,
  length: number,
  wantZero: boolean,
  options: StatusOptions | undefined,
): Promise<BlockStatus> {
  const { driver } = node;
  if (driver.blockStatus === undefined) return statusWithoutDriver(node, offset, length);
  const alignment = node.limits.requestAlignment;
  const start = alignDown(offset, alignment);
  const asked = alignUp(offset + length, alignment) - start;
  const answer = await cachedStatus(node, start, asked, wantZero, options);
  const skipped = offset - start;
  assert(answer.length > skipped, () => `driver '${node.driverName}' answers no block status`);
  return {
    ...answer,
    length: Math.min(answer.length - skipped, length),
    ...(answer.offset === undefined ? {} : { offset: answer.offset + skipped }),
  };
}

function statusWithoutDriver(node: BlockNode, offset: number, length: number): BlockStatus {
  const child = filterChild(node);
  if (child !== undefined) return { flags: raw | offsetValid, length, offset, child };
  return node.definition.isProtocol
    ? { flags: data | offsetValid, length, offset }
    : { flags: data, length };
}

async function cachedStatus(
  node: BlockNode,
  start: number,
  asked: number,
  wantZero: boolean,
  options: StatusOptions | undefined,
): Promise<BlockStatus> {
  const cache = node.children.size === 0 && wantZero ? node.io.statusCache : undefined;
  const known = cache?.dataAt(start) ?? 0;
  if (known > 0)
    return { flags: data | offsetValid, length: Math.min(known, asked), offset: start };
  const epoch = cache?.epoch ?? 0;
  const answer = (await node.driver.blockStatus?.(start, asked, options)) ?? {
    flags: data,
    length: asked,
  };
  const isPlainData = answer.flags === (data | offsetValid) && answer.offset === start;
  if (isPlainData && answer.child === undefined) cache?.remember(start, answer.length, epoch);
  return answer;
}

/** A driver that only maps leaves the answer to its child. */
async function askChildAgain(
  answer: BlockStatus,
  options: StatusOptions | undefined,
): Promise<BlockStatus> {
  const { child, offset, length } = answer;
  assert(
    child !== undefined && offset !== undefined && answer.flags === (raw | offsetValid),
    "a status with the flag raw names a child and an offset and has no other flag",
  );
  const below = await child.blockStatus(offset, length, options);
  // Beyond the end of the child its parent reads zeroes.
  if (below.length === 0) return { flags: zero | allocated, length };
  return below;
}

/** A layer that stores data may store it where its child has zeroes. */
async function zeroesBelow(
  answer: BlockStatus,
  node: BlockNode,
  options: StatusOptions | undefined,
): Promise<BlockStatus> {
  const { child, offset, length, flags } = answer;
  const isStored = (flags & (data | offsetValid)) === (data | offsetValid);
  if (!isStored || child === undefined || offset === undefined || child.nodeName === node.name) {
    return answer;
  }
  let below: BlockStatus;
  try {
    below = await child.blockStatus(offset, length, options);
  } catch {
    // "Data" is true without knowing more.
    return answer;
  }
  const ends = (below.flags & eof) !== 0;
  if (ends && (below.length === 0 || (below.flags & zero) !== 0))
    return { ...answer, flags: flags | zero };
  return { ...answer, length: Math.min(length, below.length), flags: flags | (below.flags & zero) };
}

/**
 * Returns the status over a chain: the first layer that decides the content answers. A layer that is shorter than
 * `offset` decides as if it held zeroes there.
 *
 * @throws BlockError `EINVAL` the base is not in the chain
 * @see spec/graph.md section 7.12
 */
export async function chainStatus(
  top: BlockNode,
  offset: number,
  length: number,
  options: ChainStatusOptions = {},
): Promise<ChainStatus> {
  const { base, includeBase = false } = options;
  if (base !== undefined) checkBase(top, base);
  if (base === top.name && !includeBase) return { flags: 0, length, depth: 0 };
  let depth = 1;
  let answer = await layerStatus(top, offset, length, options);
  if (answer.length === 0) return { ...answer, depth: 0 };
  const topEnd = (answer.flags & eof) !== 0 ? offset + answer.length : undefined;
  let below = nextLayer(top, base, includeBase);
  while ((answer.flags & allocated) === 0 && below !== undefined) {
    const rest = answer.length;
    depth += 1;
    const status: BlockStatus = await below.blockStatus(offset, rest, options);
    answer = status.length === 0 ? { flags: zero | allocated, length: rest } : status;
    below = nextLayer(below.node, base, includeBase);
  }
  const decided = (answer.flags & allocated) !== 0;
  const ends = topEnd !== undefined && offset + answer.length === topEnd;
  const flags = (answer.flags & ~eof) | (ends ? eof : 0);
  return { ...answer, flags, depth: decided ? depth : 0 };
}

/** Returns the link to the next layer to be asked. */
function nextLayer(
  node: BlockNode,
  base: string | undefined,
  includeBase: boolean,
): Edge | undefined {
  if (node.name === base) return undefined;
  const edge = filterOrCowChild(node);
  return edge !== undefined && edge.nodeName === base && !includeBase ? undefined : edge;
}

function checkBase(top: BlockNode, base: string): void {
  let node: BlockNode | undefined = top;
  while (node !== undefined) {
    if (node.name === base) return;
    node = filterOrCowChild(node)?.node;
  }
  throw new BlockError("EINVAL", `Node '${base}' is not in the backing chain of '${top.name}'`, {
    node: top.name,
    operation: "chainStatus",
    base,
  });
}
