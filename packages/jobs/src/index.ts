export type {
  BlockJobInfo,
  CancelOptions,
  Job,
  JobInfo,
  JobOptions,
  JobTransaction,
} from "./job.ts";
export type { JobContext, JobDriver } from "./job-driver.ts";
export type { BlockJobEvent, JobEvents } from "./job-events.ts";
export { JobManager, type JobManagerOptions } from "./job-manager.ts";
export { JobStartStep } from "./job-start-step.ts";
export type { JobStatus, JobVerb } from "./job-status.ts";
export { acceptsVerb, isCompletedStatus, isReadyStatus } from "./job-status.ts";
export { type Progress, ProgressMeter } from "./progress-meter.ts";
export { runTransaction, type TransactionOptions, type TransactionStep } from "./transaction.ts";
