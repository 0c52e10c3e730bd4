import type { BlockNode } from "./block-node.ts";

/** A request that a drain waits for. */
export interface StuckRequest {
  readonly node: string;
  readonly kind: string;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** A driver's finding that an image is damaged. */
export interface CorruptionReport {
  readonly node: string;
  readonly message: string;
  /** Whether the image can no longer be used. */
  readonly fatal: boolean;
  readonly offset?: number;
  readonly length?: number;
}

/** What a graph tells of itself. Control plane only: never an event per request. */
export interface GraphEvents {
  /** A node can be used now. */
  readonly nodeOpened: BlockNode;
  /** A node is gone, its driver closed. */
  readonly nodeClosed: BlockNode;
  /** Edges or permissions have changed. */
  readonly changed: undefined;
  readonly corrupted: CorruptionReport;
  /** A drain waits for so long that something is likely to hang. */
  readonly drainStuck: { readonly afterMs: number; readonly requests: readonly StuckRequest[] };
  /** Closing a node failed; it is gone nevertheless. */
  readonly closeFailed: { readonly node: string; readonly error: unknown };
}

/**
 * What a package above the graph does at turning points of a node's life; dirty bitmaps load and store
 * themselves here.
 */
export interface GraphExtension {
  readonly name: string;
  /** The driver is open, nobody has used the node yet. Failing fails the open. */
  nodeOpened?(node: BlockNode): Promise<void> | void;
  /** The node is drained and about to be flushed and closed. A failure is reported; the node closes all the same. */
  nodeClosing?(node: BlockNode): Promise<void> | void;
  /**
   * The node is drained and about to become read-only or writable. Failing fails the reopen.
   *
   * @returns what takes it back if the reopen fails after all
   */
  nodeReopening?(node: BlockNode, readOnly: boolean): Promise<(() => void) | undefined> | undefined;
  /**
   * The node is drained and about to be written back and given up to another process. A failure is logged and holds
   * nothing up.
   */
  nodeInactivating?(node: BlockNode): Promise<void> | void;
  /**
   * The node is there again, its driver knows what the image holds. Failing fails the activation.
   *
   * @param wasAway - whether somebody else may have had it; not when giving it up was taken back
   */
  nodeActivated?(node: BlockNode, wasAway: boolean): Promise<void> | void;
  /** The reopen was done. */
  nodeReopened?(node: BlockNode, readOnly: boolean): Promise<void> | void;
}
