/**
 * The smallest correct thing: what jobs of one transaction do when every wake-up and completion has run to its
 * end after each action. Written from the tables, knowing nothing of the implementation.
 */
export type Action =
  | "start"
  | "pause"
  | "resume"
  | "drain"
  | "undrain"
  | "ready"
  | "finish"
  | "fail"
  | "complete"
  | "cancel"
  | "kill"
  | "finalize"
  | "dismiss"
  | "set-speed";

export const ACTIONS: readonly Action[] = [
  "start",
  "pause",
  "resume",
  "drain",
  "undrain",
  "ready",
  "finish",
  "fail",
  "complete",
  "cancel",
  "kill",
  "finalize",
  "dismiss",
  "set-speed",
];

/** What the users of jobs are told and may see. */
export interface ModelJob {
  readonly id: string;
  status: string;
  events: string[];
  userPaused: boolean;
  drains: number;
  script: "none" | "ok" | "fail";
  wantsReady: boolean;
  isReady: boolean;
  soft: boolean;
  killed: boolean;
  started: boolean;
  code: string;
}

export interface Model {
  /** Newest first. */
  readonly jobs: ModelJob[];
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
}

/** How an action is answered. */
export type Answer = "done" | "refused" | "impossible";

const WORKING = ["running", "paused", "ready", "standby"];
const BEFORE_END = ["created", ...WORKING];

export function newModel(ids: readonly string[], auto: boolean): Model {
  const jobs = ids.toReversed().map((id) => ({
    id,
    status: "created",
    events: ["created"],
    userPaused: false,
    drains: 0,
    script: "none" as const,
    wantsReady: false,
    isReady: false,
    soft: false,
    killed: false,
    started: false,
    code: "",
  }));
  return { jobs, autoFinalize: auto, autoDismiss: auto };
}

export function cloneModel(model: Model): Model {
  const jobs = model.jobs.map((job) => ({ ...job, events: [...job.events] }));
  return { ...model, jobs };
}

/** Whether the tables and the rules beside them let `action` happen. */
export function answerOf(job: ModelJob, action: Action): Answer {
  const possible = (condition: boolean): Answer => (condition ? "done" : "impossible");
  const allowed = (condition: boolean): Answer => (condition ? "done" : "refused");
  const working = WORKING.includes(job.status);
  switch (action) {
    case "start":
      return possible(job.status === "created");
    case "drain":
      return possible(BEFORE_END.includes(job.status) && job.drains === 0);
    case "undrain":
      return possible(job.drains > 0);
    case "ready":
      return possible(working && !job.wantsReady && job.script === "none");
    case "finish":
    case "fail":
      return possible(working && job.script === "none");
    case "pause":
      return allowed(BEFORE_END.includes(job.status) && !job.userPaused);
    case "resume":
      return allowed(job.userPaused && BEFORE_END.includes(job.status));
    case "set-speed":
      return allowed(BEFORE_END.includes(job.status));
    case "complete":
      return allowed(["ready", "standby"].includes(job.status) && !job.soft);
    case "cancel":
      return allowed([...BEFORE_END, "waiting", "pending"].includes(job.status) && !job.userPaused);
    case "kill":
      return allowed([...BEFORE_END, "waiting", "pending"].includes(job.status));
    case "finalize":
      return allowed(job.status === "pending");
    case "dismiss":
      return allowed(job.status === "concluded");
  }
}

/** Does what `answerOf` allows. */
export function apply(model: Model, job: ModelJob, action: Action): void {
  act(model, job, action);
  settle(model);
}

function act(model: Model, job: ModelJob, action: Action): void {
  if (action === "cancel") cancel(model, job, !job.isReady || !job.started);
  else if (action === "kill") cancel(model, job, true);
  else if (action === "finalize") succeedAll(model);
  else actAlone(job, action);
}

function actAlone(job: ModelJob, action: Action): void {
  if (action === "start") {
    job.started = true;
    go(job, "running");
  } else if (action === "pause") job.userPaused = true;
  else if (action === "resume") job.userPaused = false;
  else if (action === "drain") job.drains += 1;
  else if (action === "undrain") job.drains -= 1;
  else if (action === "ready") job.wantsReady = true;
  else if (action === "finish" || action === "complete") {
    if (job.script === "none") job.script = "ok";
  } else if (action === "fail") job.script = "fail";
  else if (action === "dismiss") go(job, "null");
}

function cancel(model: Model, job: ModelJob, force: boolean): void {
  job.userPaused = false;
  const over = ["waiting", "pending"].includes(job.status);
  if (!force && over) return;
  job.soft = true;
  if (!force) return;
  job.killed = true;
  if (over || !job.started) failAll(model, job);
}

/** Lets everything happen that can. */
function settle(model: Model): void {
  for (const job of model.jobs) {
    rest(job);
    if (job.status === "running" || job.status === "ready") work(model, job);
  }
  const group = model.jobs.filter(({ status }) => !["concluded", "null"].includes(status));
  if (group.length === 0 || group.some(({ status }) => status !== "waiting")) return;
  for (const job of group) {
    go(job, "pending");
    if (!model.autoFinalize) job.events.push("PENDING");
  }
  if (model.autoFinalize) succeedAll(model);
}

function rest(job: ModelJob): void {
  const due = (job.userPaused || job.drains > 0) && !job.killed;
  if (due && job.status === "running") go(job, "paused");
  if (due && job.status === "ready") go(job, "standby");
  if (!due && job.status === "paused") go(job, "running");
  if (!due && job.status === "standby") go(job, "ready");
}

function work(model: Model, job: ModelJob): void {
  if (job.killed) failAll(model, job);
  else if (job.script === "fail") failAll(model, job);
  else if (job.script === "ok" || (job.isReady && job.soft)) go(job, "waiting");
  else if (job.wantsReady && !job.isReady) {
    job.isReady = true;
    go(job, "ready");
    job.events.push("READY");
  }
}

function succeedAll(model: Model): void {
  for (const job of model.jobs) conclude(model, job);
}

function failAll(model: Model, trigger: ModelJob): void {
  const group = model.jobs.filter(({ status }) => !["concluded", "null"].includes(status));
  for (const job of group) {
    if (job !== trigger) job.killed = true;
    job.userPaused = false;
  }
  for (const job of group) {
    if (job.started) rest(job);
    job.code = job === trigger && !job.killed ? "EIO" : "ECANCELED";
    go(job, "aborting");
    conclude(model, job);
  }
}

function conclude(model: Model, job: ModelJob): void {
  if (job.started) {
    if (job.killed) job.events.push("CANCELLED");
    else job.events.push(job.code === "" ? "COMPLETED" : `COMPLETED ${job.code}`);
  }
  go(job, "concluded");
  if (model.autoDismiss || !job.started) go(job, "null");
}

function go(job: ModelJob, status: string): void {
  job.status = status;
  job.events.push(status);
}
