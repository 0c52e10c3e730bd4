import {
  Permissions,
  RequestFlag,
  type RequestOptions,
  type TruncateOptions,
} from "@blocklayer/driver";
import { assert } from "@blocklayer/errors";
import { isSafeSize } from "@blocklayer/offsets";
import { cowChild, filterChild } from "../chain.ts";
import type { Edge } from "../edge.ts";
import type { NodeIo } from "./node-io.ts";
import { checkWritable, notSupported, type RequestName, requestError } from "./request-checks.ts";
import type { TrackedRequest } from "./tracked-request.ts";

/**
 * Changes the length of a node. The caller counts it as in flight.
 *
 * What is cut off or added, and beyond, overlaps with no other request meanwhile. Where a backing node is longer than this node
 * was, the new area is zeroed, so that old backing data does not appear.
 *
 * @see spec/graph.md section 7.11
 */
export async function truncateNode(
  io: NodeIo,
  edge: Edge,
  size: number,
  options: TruncateOptions | undefined,
): Promise<void> {
  const { node } = io;
  const name: RequestName = { operation: "truncate", offset: size, length: 0 };
  checkTruncate(io, edge, name);
  options?.signal?.throwIfAborted();
  const unwound = io.unwindStack();
  if (unwound !== undefined) await unwound;
  const oldSize = node.size;
  const request = io.tracker.begin("truncate", Math.min(size, oldSize), Math.abs(size - oldSize));
  try {
    await waitForRest(io, request, size, options?.signal);
    await io.announcer.beforeResize(node.observers, node.size, size);
    io.invalidateStatusCache(Math.min(size, node.size), Math.abs(size - node.size));
    try {
      await callDriver(io, name, options);
    } finally {
      io.writeGeneration += 1;
      io.resized();
    }
  } finally {
    io.tracker.end(request);
  }
}

/**
 * Waits until nothing else is under way in what is cut off or added and beyond it, and keeps others out. So a write
 * beyond the end, or another change of length, comes completely before or after.
 */
async function waitForRest(
  io: NodeIo,
  request: TrackedRequest,
  size: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  io.tracker.serialise(request, 1);
  request.overlapEnd = Number.POSITIVE_INFINITY;
  for (;;) {
    await io.tracker.waitForConflicts(request, signal);
    const start = Math.min(size, io.node.size);
    if (start >= request.overlapOffset) return;
    // What was waited for has made the node shorter: more of it is added now.
    request.overlapOffset = start;
  }
}

function checkTruncate(io: NodeIo, edge: Edge, name: RequestName): void {
  const { node } = io;
  const size = name.offset;
  if (!(size >= 0)) {
    throw requestError(node, "EINVAL", `Required size ${size} is negative`, name);
  }
  if (!isSafeSize(size)) {
    throw requestError(node, "EFBIG", `Required size ${size} is too large`, name);
  }
  if (node.readOnly) throw requestError(node, "EACCES", "Image is read-only", name);
  if (!node.active) {
    throw requestError(node, "EPERM", `Node '${node.name}' is inactive`, name);
  }
  assert(
    (edge.perm & Permissions.resize) !== 0,
    () => `${edge.parent.describe()} may not resize node '${node.name}'`,
  );
}

async function callDriver(
  io: NodeIo,
  name: RequestName,
  options: TruncateOptions | undefined,
): Promise<void> {
  const { node } = io;
  const { driver } = node;
  const size = name.offset;
  const backingSize = cowChild(node)?.size ?? 0;
  const zero = options?.zero === true || (size > node.size && backingSize > node.size);
  if (driver.truncate !== undefined) {
    if (zero && !driver.flags.truncateZero) {
      throw notSupported(node, name, "growing with zeroes");
    }
    await driver.truncate(size, zero ? { ...options, zero } : options);
    return;
  }
  const filtered = filterChild(node);
  if (filtered === undefined) {
    throw requestError(node, "ENOTSUP", "Image format driver does not support resize", name);
  }
  await filtered.truncate(size, options);
}

/**
 * Drops all data of the node's own layer. The caller counts it as in flight.
 *
 * Observers are told that everything changed, unless the caller says with `writeUnchanged` that what the node shows
 * stays the same, as after a commit.
 */
export async function makeNodeEmpty(
  io: NodeIo,
  edge: Edge,
  options: RequestOptions | undefined,
): Promise<void> {
  const { node } = io;
  const name: RequestName = { operation: "makeEmpty", offset: 0, length: node.size };
  const flags = options?.flags ?? 0;
  checkWritable(node, edge, name, flags | RequestFlag.writeUnchanged);
  if (node.driver.makeEmpty === undefined) throw notSupported(node, name, "dropping its data");
  options?.signal?.throwIfAborted();
  const unwound = io.unwindStack();
  if (unwound !== undefined) await unwound;
  const request = io.tracker.begin("discard", 0, node.size);
  const announced = (flags & RequestFlag.writeUnchanged) === 0;
  try {
    io.tracker.serialise(request, 1);
    await io.tracker.waitForConflicts(request, options?.signal);
    if (announced) await io.announcer.before(node.observers, "replace", 0, node.size, flags);
    io.invalidateStatusCache(0, node.size);
    let failure: unknown;
    try {
      await node.driver.makeEmpty(options);
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      io.writeGeneration += 1;
      io.invalidateStatusCache(0, node.size);
      if (announced) io.announcer.after(node.observers, "replace", 0, node.size, flags, failure);
    }
  } finally {
    io.tracker.end(request);
  }
}
