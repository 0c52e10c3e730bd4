/** States that a job may go to. @see spec/jobs.md section 2 */
export const EDGES: Readonly<Record<string, readonly string[]>> = {
  undefined: ["created"],
  created: ["running", "aborting", "null"],
  running: ["paused", "ready", "waiting", "aborting"],
  paused: ["running"],
  ready: ["standby", "waiting", "aborting"],
  standby: ["ready"],
  waiting: ["pending", "aborting"],
  pending: ["aborting", "concluded"],
  aborting: ["concluded"],
  concluded: ["null"],
  null: [],
};

/** What a user may ask of a job. */
export const VERBS = [
  "pause",
  "resume",
  "cancel",
  "set-speed",
  "complete",
  "finalize",
  "dismiss",
] as const;

export type Verb = (typeof VERBS)[number];

const AT_WORK = "created running paused ready standby";

/** States in which a verb is accepted. @see spec/jobs.md section 3 */
export const ACCEPTED: Readonly<Record<Verb, string>> = {
  pause: AT_WORK,
  resume: AT_WORK,
  cancel: `${AT_WORK} waiting pending`,
  "set-speed": AT_WORK,
  complete: "ready standby",
  finalize: "pending",
  dismiss: "concluded",
};

/** States in which the work of a job is over. */
export const OVER = "waiting pending aborting concluded null";

export function isOneOf(states: string, status: string): boolean {
  return states.split(" ").includes(status);
}
