import type { BlockJobInfo, Job, JobInfo } from "./job.ts";
import type { BlockJobEvent, JobEvents } from "./job-events.ts";

/** Tells an event; does not throw. */
export type Emit = <Name extends keyof JobEvents>(name: Name, value: JobEvents[Name]) => void;

/** Returns the job's row of the job query. */
export function jobInfo(job: Job): JobInfo {
  const { id = "", type, status, progress } = job;
  const { current, total } = progress.snapshot();
  return { id, type, status, currentProgress: current, totalProgress: total, ...errorText(job) };
}

/** Returns the job's row of the block job query. */
export function blockJobInfo(job: Job): BlockJobInfo {
  return {
    ...blockJobEvent(job),
    busy: job.busy,
    paused: job.pauseCount > 0,
    ready: job.isReady,
    status: job.status,
    autoFinalize: job.autoFinalize,
    autoDismiss: job.autoDismiss,
    ...errorText(job),
  };
}

/** Tells an event that only block jobs with an id have. */
export function announce(job: Job, emit: Emit, name: "ready" | "completed" | "cancelled"): void {
  if (!isAnnounced(job)) return;
  const event = blockJobEvent(job);
  if (name === "completed") emit(name, { ...event, ...errorText(job) });
  else emit(name, event);
}

/** Tells that the job waits for `finalize`, if it does. */
export function announcePending(job: Job, emit: Emit): void {
  if (isAnnounced(job) && !job.autoFinalize) emit("pending", { type: job.type, id: job.id });
}

/** Tells what an error policy has decided. */
export function announceError(
  job: Job,
  emit: Emit,
  error: Omit<JobEvents["error"], "device">,
): void {
  if (isAnnounced(job)) emit("error", { device: job.id, ...error });
}

function isAnnounced(job: Job): job is Job & { readonly id: string } {
  return job.id !== undefined && job.kind === "block";
}

function blockJobEvent(job: Job): BlockJobEvent {
  const { current, total } = job.progress.snapshot();
  return { type: job.type, device: job.id ?? "", len: total, offset: current, speed: job.speed };
}

function errorText(job: Job): { readonly error?: string } {
  return job.error === undefined ? {} : { error: job.error.message };
}
