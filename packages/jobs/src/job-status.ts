import { assert } from "@blocklayer/errors";

/** Where a job is in its life. */
export type JobStatus =
  | "undefined"
  | "created"
  | "running"
  | "paused"
  | "ready"
  | "standby"
  | "waiting"
  | "pending"
  | "aborting"
  | "concluded"
  | "null";

/** What a user may ask of a job. */
export type JobVerb =
  | "cancel"
  | "pause"
  | "resume"
  | "set-speed"
  | "complete"
  | "finalize"
  | "dismiss";

const TARGETS: Record<JobStatus, readonly JobStatus[]> = {
  undefined: ["created"],
  created: ["running", "aborting", "null"],
  running: ["paused", "ready", "waiting", "aborting"],
  paused: ["running"],
  ready: ["standby", "waiting", "aborting"],
  standby: ["ready"],
  waiting: ["pending", "aborting"],
  pending: ["aborting", "concluded"],
  aborting: ["aborting", "concluded"],
  concluded: ["null"],
  null: [],
};

const ACTIVE: readonly JobStatus[] = ["created", "running", "paused", "ready", "standby"];

const ACCEPTED_IN: Record<JobVerb, readonly JobStatus[]> = {
  cancel: [...ACTIVE, "waiting", "pending"],
  pause: ACTIVE,
  resume: ACTIVE,
  "set-speed": ACTIVE,
  complete: ["ready", "standby"],
  finalize: ["pending"],
  dismiss: ["concluded"],
};

/**
 * Throws when a job may not go from `source` to `target`: a defect of the program.
 *
 * @throws Error named `AssertionError`
 * @see spec/jobs.md section 2
 */
export function checkTransition(source: JobStatus, target: JobStatus): void {
  assert(
    TARGETS[source].includes(target),
    () => `a job can not go from "${source}" to "${target}"`,
  );
}

/**
 * Returns whether a job in `status` accepts `verb`.
 *
 * @see spec/jobs.md section 3
 */
export function acceptsVerb(status: JobStatus, verb: JobVerb): boolean {
  return ACCEPTED_IN[verb].includes(status);
}

/** Returns whether the work of a job in `status` is over, if not yet its bookkeeping. */
export function isCompletedStatus(status: JobStatus): boolean {
  return (
    status === "waiting" ||
    status === "pending" ||
    status === "aborting" ||
    status === "concluded" ||
    status === "null"
  );
}

/** Returns whether a job in `status` waits to be completed by its user. */
export function isReadyStatus(status: JobStatus): boolean {
  return status === "ready" || status === "standby";
}
