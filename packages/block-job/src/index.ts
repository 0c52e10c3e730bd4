export { BlockJob, type BlockJobRow } from "./block-job.ts";
export type { BlockJobDriver } from "./block-job-driver.ts";
export {
  type BlockJobOptions,
  BlockJobs,
  type BlockJobsOptions,
  type InitialNode,
} from "./block-jobs.ts";
export { actionFor, type ErrorAction, type IoStatus, type OnError } from "./error-policy.ts";
export type { JobNode, NodeOptions } from "./job-node.ts";
