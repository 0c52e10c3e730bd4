import type { Edge } from "./edge.ts";

/**
 * Who holds an edge to a node: another node, a `BlockBackend`, a job, an export.
 *
 * Callbacks are synchronous, may not start graph surgery and, but for {@link EdgeParent.inactivate}, may not throw.
 *
 * @see spec/graph.md sections 1 and 5
 */
export interface EdgeParent {
  readonly kind: "node" | "backend" | "job" | "other";
  /** The parent as messages name it: `node 'top'`, `block device 'disk0'`, `backup job 'job0'`. */
  describe(): string;
  /** The edge does not follow when its node is replaced. Jobs say so. Default `false`. */
  readonly staysAtNode?: boolean;
  /** From here on no new request may be issued through the edge until {@link drainedEnd}. Calls nest. */
  drainedBegin?(edge: Edge): void;
  /** Called exactly as often as {@link drainedBegin}, whatever happened to the graph in between. */
  drainedEnd?(edge: Edge): void;
  /**
   * Whether requests may still come after {@link drainedBegin}.
   *
   * A parent that waits for the graph's own mutex (its `change` is queued) is quiet.
   *
   * @returns `undefined` when the parent is quiet, else a promise that resolves when it may be; the graph asks again
   */
  drainedPoll?(edge: Edge): Promise<void> | undefined;
  /** The node's length has changed. */
  resized?(edge: Edge): void;
  /** The edge leads to another node now. Called within the turn of the change, before drained sections end. */
  nodeChanged?(edge: Edge): void;
  /**
   * The node becomes inactive: the parent gives up writing, or throws to refuse. It is
   * told {@link activate} if the node stays active after all.
   */
  inactivate?(edge: Edge): void;
  /** The node is active, again or still. */
  activate?(edge: Edge): void;
}
