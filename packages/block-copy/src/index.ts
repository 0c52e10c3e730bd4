export { BlockCopy } from "./block-copy.ts";
export { type ClusterSizeOptions, copyClusterSize, DEFAULT_CLUSTER_SIZE } from "./cluster-size.ts";
export type { BackgroundOptions, CopyCall } from "./copy-call.ts";
export type {
  BlockCopyOptions,
  CopyOptions,
  CopyProgress,
  CopyStatus,
} from "./copy-options.ts";
