import { MAX_REQUEST, Permissions, RequestFlag } from "@blocklayer/driver";
import { assert, BlockError } from "@blocklayer/errors";
import { isSafeSize, MAX_LENGTH } from "@blocklayer/offsets";
import type { BlockNode } from "../block-node.ts";
import type { Edge } from "../edge.ts";

/** A request as checks and errors name it. */
export interface RequestName {
  readonly operation: string;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** Returns the error of a request. */
export function requestError(
  node: BlockNode,
  code: string,
  message: string,
  request: RequestName,
): BlockError {
  const { operation, offset, length } = request;
  return new BlockError(code, message, { node: node.name, operation, offset, length });
}

/** @throws BlockError `EIO` offset or length is negative, no integer or too large */
export function checkRange(node: BlockNode, request: RequestName): void {
  const { operation, offset, length } = request;
  if (isSafeSize(offset) && isSafeSize(length) && offset + length <= MAX_LENGTH) return;
  throw requestError(
    node,
    "EIO",
    `${operation} of ${length} bytes at ${offset} is out of range`,
    request,
  );
}

/** @throws BlockError `EIO` as {@link checkRange}, or more data than one request may carry */
export function checkTransfer(node: BlockNode, request: RequestName): void {
  checkRange(node, request);
  const { operation, length } = request;
  if (length <= MAX_REQUEST) return;
  throw requestError(
    node,
    "EIO",
    `${operation} of ${length} bytes is longer than ${MAX_REQUEST}`,
    request,
  );
}

/**
 * Refuses to change a node that must not be changed, or through an edge that may not.
 *
 * @throws BlockError `EPERM` the node is read-only or inactive
 * @throws Error (assertion) the parent does not hold the permission; that is its defect
 */
export function checkWritable(
  node: BlockNode,
  edge: Edge,
  request: RequestName,
  flags: number,
): void {
  if (node.readOnly) {
    throw requestError(node, "EPERM", "Block node is read-only", request);
  }
  if (!node.active) {
    throw requestError(node, "EPERM", `Node '${node.name}' is inactive`, request);
  }
  const enough =
    (flags & RequestFlag.writeUnchanged) === 0
      ? Permissions.write
      : Permissions.write | Permissions.writeUnchanged;
  assert(
    (edge.perm & enough) !== 0,
    () => `${edge.parent.describe()} may not ${request.operation} on node '${node.name}'`,
  );
}

/**
 * @param end - end of what the driver would get, in bytes; default: of the request
 * @throws BlockError `EIO` that is beyond the node and the edge may not resize it
 */
export function checkEnd(
  node: BlockNode,
  edge: Edge,
  request: RequestName,
  end: number = request.offset + request.length,
): void {
  if (end <= node.size || (edge.perm & Permissions.resize) !== 0) return;
  const { operation, offset, length } = request;
  throw requestError(
    node,
    "EIO",
    `${operation} of ${length} bytes at ${offset} ends beyond the ${node.size} bytes of the node`,
    request,
  );
}

/** Returns the error of a request through an edge that leads to the node no more. */
export function noMedium(node: BlockNode): BlockError {
  return new BlockError("ENOMEDIUM", "No medium found", { node: node.name });
}

/** Returns the error of an operation that the node's driver does not have. */
export function notSupported(node: BlockNode, request: RequestName, what: string): BlockError {
  return requestError(
    node,
    "ENOTSUP",
    `Driver '${node.driverName}' does not support ${what}`,
    request,
  );
}

/** Whether an error says that the driver cannot do this request, so that it can be done otherwise. */
export function isNotSupported(error: unknown): boolean {
  return error instanceof BlockError && (error.code === "ENOTSUP" || error.code === "EOPNOTSUPP");
}
