import { BlockError } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";

const OPERATIONS = [
  "backup-source",
  "backup-target",
  "change",
  "commit-source",
  "commit-target",
  "dataplane",
  "drive-del",
  "eject",
  "external-snapshot",
  "internal-snapshot",
  "internal-snapshot-delete",
  "mirror-source",
  "mirror-target",
  "resize",
  "stream",
  "replace",
] as const;

/** A management command that a node can be closed to. */
export type BlockOperation = (typeof OPERATIONS)[number];

/** A reason that keeps management commands away from a node, until it is disposed. Disposing twice is harmless. */
export interface OperationBlock extends Disposable {
  readonly reason: string;
  /** Lets one operation pass again. */
  allow(operation: BlockOperation): void;
  release(): void;
}

/**
 * The management commands that a node is closed to, and why. They protect commands from each other;
 * permissions protect data.
 *
 * @see spec/graph.md section 6
 */
export class OperationBlocks {
  readonly #node: BlockNode;
  readonly #blocks = new Set<{
    readonly reason: string;
    readonly operations: Set<BlockOperation>;
  }>();

  constructor(node: BlockNode) {
    this.#node = node;
  }

  /** Number of reasons. */
  get size(): number {
    return this.#blocks.size;
  }

  /** Closes the node to `operations`. */
  add(operations: Iterable<BlockOperation>, reason: string): OperationBlock {
    const block = { reason, operations: new Set(operations) };
    this.#blocks.add(block);
    const release = (): void => void this.#blocks.delete(block);
    return {
      reason,
      allow: (operation) => void block.operations.delete(operation),
      release,
      [Symbol.dispose]: release,
    };
  }

  /** Closes the node to everything but `except`. */
  addAll(reason: string, except: readonly BlockOperation[] = []): OperationBlock {
    return this.add(
      OPERATIONS.filter((operation) => !except.includes(operation)),
      reason,
    );
  }

  /** The reason added last that closes the node to an operation. */
  reasonAgainst(operation: BlockOperation): string | undefined {
    let reason: string | undefined;
    for (const block of this.#blocks) if (block.operations.has(operation)) reason = block.reason;
    return reason;
  }

  /** @throws BlockError `EBUSY` the node is closed to it */
  check(operation: BlockOperation): void {
    const reason = this.reasonAgainst(operation);
    if (reason === undefined) return;
    const node = this.#node.name;
    throw new BlockError("EBUSY", `Node '${node}' is busy: ${reason}`, { node, operation });
  }
}

/** What may still be done with a node that serves as backing. */
export const ALLOWED_ON_BACKING: readonly BlockOperation[] = [
  "commit-target",
  "stream",
  "backup-source",
  "backup-target",
];
