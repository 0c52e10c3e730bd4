import type { BlockOperation, Edge, OperationBlock } from "@blocklayer/block-graph";

/** How a job holds a node. */
export interface NodeOptions {
  /** `Permissions` bits that the job takes. Default none. */
  readonly perm?: number;
  /** `Permissions` bits that it lets others take. Default all. */
  readonly shared?: number;
  /** Management commands that stay possible; all others are refused while the job holds the node. Default none. */
  readonly allow?: readonly BlockOperation[];
}

/** A node that a job holds. */
export interface JobNode {
  /** What the node is to the job: `"main node"`, `"target"`, … Names the edge, too. */
  readonly name: string;
  /** The door for the job's requests; also says where it leads. */
  readonly edge: Edge;
  /** What keeps management commands away. */
  readonly operations: OperationBlock;
}
