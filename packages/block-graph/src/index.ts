export type { RootOptions } from "./attach.ts";
export type {
  BackendEvents,
  BackendFor,
  BackendOptions,
  ReadableBackend,
  ResizableBackend,
  WritableBackend,
} from "./backend-handles.ts";
export { BlockBackend } from "./block-backend.ts";
export { BlockNode, type NodeState, type NodeUse } from "./block-node.ts";
export {
  backingChainNext,
  chainContains,
  chainEdges,
  cowChild,
  filterChild,
  filterOrCowChild,
  findOverlay,
  primaryChild,
  skipFilters,
  skipImplicitFilters,
  subtree,
} from "./chain.ts";
export type { GraphStep } from "./change.ts";
export { checkGraph } from "./check-graph.ts";
export { MAX_GRAPH_DEPTH } from "./depth.ts";
export { type DrainHold, STUCK_AFTER_MS } from "./drain.ts";
export { Edge } from "./edge.ts";
export type { CorruptionReport, GraphEvents, GraphExtension, StuckRequest } from "./events.ts";
export { Graph, type GraphOptions, type OpenOptions } from "./graph.ts";
export type { ChainStatus } from "./io/block-status.ts";
export type { NodeIo } from "./io/node-io.ts";
export type { RequestInFlight } from "./io/request-state.ts";
export {
  type AboveOptions,
  type AllocationRun,
  isAllocated,
  isAllocatedAbove,
  isZeroFast,
} from "./io/status-queries.ts";
export type {
  ChildOption,
  GenericOptions,
  NodeOptions,
  ReopenOptions,
  UntypedNodeOptions,
} from "./node-options.ts";
export type { NodeSpec } from "./node-spec.ts";
export type { BlockOperation, OperationBlock, OperationBlocks } from "./op-blockers.ts";
export type { EdgeParent } from "./parent.ts";
export type { ReplaceNodeOptions } from "./surgery.ts";
