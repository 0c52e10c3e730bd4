import { ACCEPTED, isOneOf, OVER } from "../worlds/job-rules.ts";

/** What is asked of a job, by its user or, in the last three, of its work. */
export const LETTERS = [
  "start",
  "pause",
  "resume",
  "set-speed",
  "complete",
  "cancel",
  "kill",
  "finalize",
  "dismiss",
  "ready",
  "finish",
  "fail",
] as const;

export type Letter = (typeof LETTERS)[number];

/** How a letter is answered; `impossible` is what nobody can ask. */
export type Answer = "done" | "refused" | "impossible";

/** A job as its user knows it. */
export interface ModelJob {
  status: string;
  events: string[];
  isStarted: boolean;
  userPaused: boolean;
  isSoft: boolean;
  isKilled: boolean;
  /** What the work was told to do, and whether it has once been ready. */
  work: "goes on" | "ends well" | "fails";
  wantsReady: boolean;
  isReady: boolean;
  code: string;
}

/** What has to be known of a job to say how it answers. */
export type AnsweringJob = Pick<
  ModelJob,
  "status" | "userPaused" | "isSoft" | "work" | "wantsReady"
>;

const WORKING = "running paused ready standby";
const ENDED = "concluded null";

/** Says what the table of states and verbs, and the rules beside it, answer. @see spec/jobs.md sections 3, 6, 8 and 9 */
export function answerOf(job: AnsweringJob, letter: Letter): Answer {
  const { status } = job;
  switch (letter) {
    case "start":
      return status === "created" ? "done" : "impossible";
    case "ready":
      return isOneOf(WORKING, status) && job.work === "goes on" && !job.wantsReady
        ? "done"
        : "impossible";
    case "finish":
    case "fail":
      return isOneOf(WORKING, status) && job.work === "goes on" ? "done" : "impossible";
    case "kill":
      return isOneOf(ACCEPTED.cancel, status) ? "done" : "refused";
    default:
      return isOneOf(ACCEPTED[letter], status) && !isRefusedBeside(job, letter)
        ? "done"
        : "refused";
  }
}

function isRefusedBeside(job: AnsweringJob, letter: Letter): boolean {
  switch (letter) {
    case "pause":
    case "cancel":
      return job.userPaused;
    case "resume":
      return !job.userPaused;
    case "complete":
      return job.isSoft;
    default:
      return false;
  }
}

/**
 * The jobs of one transaction, when everything that an action sets off has come to rest before the next one. Written
 * from the tables of the specification.
 */
export class JobVerbModel {
  /** In the order in which they were made. */
  readonly jobs: ModelJob[];
  readonly #isAutomatic: boolean;

  /** @param isAutomatic - whether the jobs end without `finalize` and `dismiss` */
  constructor(count: number, isAutomatic: boolean) {
    this.#isAutomatic = isAutomatic;
    this.jobs = Array.from({ length: count }, () => ({
      status: "created",
      events: ["created"],
      isStarted: false,
      userPaused: false,
      isSoft: false,
      isKilled: false,
      work: "goes on",
      wantsReady: false,
      isReady: false,
      code: "",
    }));
  }

  /** Does what {@link answerOf} lets happen, and all that follows. */
  apply(index: number, letter: Letter): void {
    const job = this.jobs[index];
    if (job === undefined) return;
    this.#act(job, letter);
    for (const one of this.#newestFirst) {
      rest(one);
      if (isOneOf("running ready", one.status)) this.#work(one);
    }
    this.#endTogether();
  }

  get #newestFirst(): ModelJob[] {
    return this.jobs.toReversed();
  }

  get #living(): ModelJob[] {
    return this.#newestFirst.filter(({ status }) => !isOneOf(ENDED, status));
  }

  #act(job: ModelJob, letter: Letter): void {
    switch (letter) {
      case "start":
        job.isStarted = true;
        go(job, "running");
        break;
      case "pause":
      case "resume":
        job.userPaused = letter === "pause";
        break;
      case "cancel":
        // A ready one finishes in its short way.
        this.#cancel(job, !(job.isReady && job.isStarted));
        break;
      case "kill":
        this.#cancel(job, true);
        break;
      case "finalize":
        for (const one of this.#living) this.#conclude(one);
        break;
      case "dismiss":
        go(job, "null");
        break;
      case "ready":
        job.wantsReady = true;
        break;
      case "complete":
      case "finish":
        if (job.work === "goes on") job.work = "ends well";
        break;
      case "fail":
        job.work = "fails";
        break;
      case "set-speed":
        break;
    }
  }

  #cancel(job: ModelJob, isForced: boolean): void {
    job.userPaused = false;
    const isOver = isOneOf(OVER, job.status);
    if (!isForced && isOver) return;
    job.isSoft = true;
    if (!isForced) return;
    job.isKilled = true;
    if (isOver || !job.isStarted) this.#failAll(job);
  }

  #work(job: ModelJob): void {
    if (job.isKilled || job.work === "fails") this.#failAll(job);
    else if (job.work === "ends well" || (job.isReady && job.isSoft)) go(job, "waiting");
    else if (job.wantsReady && !job.isReady) {
      job.isReady = true;
      go(job, "ready");
      job.events.push("READY");
    }
  }

  #endTogether(): void {
    const living = this.#living;
    if (living.length === 0 || living.some(({ status }) => status !== "waiting")) return;
    for (const job of living) {
      go(job, "pending");
      if (!this.#isAutomatic) job.events.push("PENDING");
    }
    if (this.#isAutomatic) for (const job of living) this.#conclude(job);
  }

  #failAll(trigger: ModelJob): void {
    const living = this.#living;
    for (const job of living) {
      if (job !== trigger) job.isKilled = true;
      job.userPaused = false;
    }
    for (const job of living) {
      if (job.isStarted) rest(job);
      job.code = job === trigger && !job.isKilled ? "EIO" : "ECANCELED";
      go(job, "aborting");
      this.#conclude(job);
    }
  }

  #conclude(job: ModelJob): void {
    if (job.isStarted) job.events.push(job.isKilled ? "CANCELLED" : "COMPLETED");
    go(job, "concluded");
    if (this.#isAutomatic || !job.isStarted) go(job, "null");
  }
}

/** A job that should pause rests at once, and one that should not goes on. */
function rest(job: ModelJob): void {
  const isDue = job.userPaused && !job.isKilled;
  if (isDue && job.status === "running") go(job, "paused");
  if (isDue && job.status === "ready") go(job, "standby");
  if (!isDue && job.status === "paused") go(job, "running");
  if (!isDue && job.status === "standby") go(job, "ready");
}

function go(job: ModelJob, status: string): void {
  job.status = status;
  job.events.push(status);
}
