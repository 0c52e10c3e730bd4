import type { Job } from "@blocklayer/jobs";
import type { Simulation } from "../simulation.ts";
import { ACCEPTED, EDGES, isOneOf, OVER, type Verb } from "./job-rules.ts";

/** Jobs that succeed or fail together, as the oracle sees them. */
export class GroupRecord {
  readonly members: JobRecord[] = [];
  /** Somebody has asked to finalize. */
  wasFinalized: boolean = false;
  /** Completions delivered when the first job committed: all commit before the next one. */
  commitEvents = -1;

  /** Those that did not fail before they began. */
  get alive(): JobRecord[] {
    return this.members.filter(({ failedEarly }) => !failedEarly);
  }

  /** Whether one of them has a reason to fail, so that all have to. */
  get hasCause(): boolean {
    return this.alive.some(({ ownError, wasKilled }) => ownError !== undefined || wasKilled);
  }

  get hasCommitted(): boolean {
    return this.commitEvents >= 0;
  }
}

/** What a job is made with. */
export interface JobTraits {
  readonly id: string;
  readonly kind: "plain" | "block";
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
}

type Call = "prepare" | "commit" | "abort" | "clean" | "free" | "completion";

/**
 * What the oracle knows of a job: from events, from what its driver was called for, and from what its users asked. It
 * asks the job itself nothing.
 *
 * @see spec/jobs.md
 */
export class JobRecord {
  readonly traits: JobTraits;
  readonly group: GroupRecord;
  job: Job | undefined;
  status: string = "undefined";
  isStarted: boolean = false;
  failedEarly: boolean = false;
  userPaused: boolean = false;
  /** Cancelled by force, by a user, before it was decided how it ends. */
  wasKilled: boolean = false;
  /** Cancelled in either way while it was at work. */
  wasCancelled: boolean = false;
  /** Code of the error that its driver has failed with. */
  ownError: string | undefined;
  /** Its driver's `run` has returned. */
  hasRun: boolean = false;
  wasDismissed: boolean = false;
  /** Drained sections that are quiet and hold one of its nodes. */
  drains = 0;
  /** How it was told to have ended. */
  ending: "completed" | "cancelled" | undefined;
  readonly #simulation: Simulation;
  readonly #calls = new Map<Call, number>();
  /** The event that has to come next. */
  #expected: string | undefined;
  #isInStep: boolean = false;
  #stepsInPause = 0;
  /** Completions delivered when the user paused it, and when it last went on from a rest. */
  #pausedAt = 0;
  #wentOnAt = -1;

  constructor(simulation: Simulation, traits: JobTraits, group: GroupRecord) {
    this.#simulation = simulation;
    this.traits = traits;
    this.group = group;
    group.members.push(this);
  }

  /** A step is under way. */
  get isInStep(): boolean {
    return this.#isInStep;
  }

  get isOver(): boolean {
    return isOneOf(OVER, this.status);
  }

  /** Whether a sibling makes it fail, at a moment that only the job knows: it drops the pause of its user then. */
  get isDoomed(): boolean {
    return this.group.alive.some(
      (other) => other !== this && (other.ownError !== undefined || other.wasKilled),
    );
  }

  accepts(verb: Verb): boolean {
    return isOneOf(ACCEPTED[verb], this.status);
  }

  // What is told.

  told(event: string, status: string = ""): void {
    const expected = this.#expected;
    this.#expected = undefined;
    this.#check(expected === undefined || expected === event, "JB-4 wrong event", () => {
      return `'${event} ${status}' instead of '${expected ?? ""}'`;
    });
    this.#check(this.status !== "null", "JB-4 told after the end", () => `'${event} ${status}'`);
    if (event === "status") this.#changed(status);
    else if (event === "ready" || event === "pending") {
      this.#check(expected === event, "JB-4 unexpected event", () => event);
    } else if (event === "completed" || event === "cancelled") this.#ended(event);
  }

  #changed(status: string): void {
    const before = this.status;
    const isEdge = EDGES[before]?.includes(status) ?? false;
    this.#check(isEdge, "JB-1 no such edge", () => `to '${status}'`);
    this.status = status;
    if (before === "created" && status === "running") this.isStarted = true;
    if (before === "paused" || before === "standby") {
      this.#wentOnAt = this.#simulation.scheduler.events;
    }
    const isBlock = this.traits.kind === "block";
    if (status === "ready" && before === "running" && isBlock) this.#expected = "ready";
    if (status === "pending") this.#becamePending(isBlock);
    if (status === "concluded") this.#concluded();
    if (status === "null") this.#gone(before);
  }

  #becamePending(isBlock: boolean): void {
    if (!this.traits.autoFinalize && isBlock) this.#expected = "pending";
    const working = this.group.alive.filter(({ isOver }) => !isOver);
    this.#check(working.length === 0, "JB-3 pending too early", () => names(working));
  }

  #ended(event: "completed" | "cancelled"): void {
    this.#check(this.ending === undefined, "JB-4 ended twice", () => event);
    this.ending = event;
    const mayBeCancelled = this.wasKilled || this.isDoomed;
    const mayBeCompleted = !this.wasKilled;
    const isRight = event === "cancelled" ? mayBeCancelled : mayBeCompleted;
    this.#check(isRight, "JB-4 wrong ending", () => event);
  }

  #concluded(): void {
    const isAnnounced = this.isStarted && this.traits.kind === "block";
    this.#check(
      (this.ending !== undefined) === isAnnounced,
      "JB-4 ending",
      () => "not told, or twice",
    );
    for (const call of ["clean", "completion"] as const) {
      this.#check(
        this.count(call) === 1,
        "JB-2 not ended well",
        () => `${call} ${this.count(call)} times`,
      );
    }
  }

  #gone(before: string): void {
    const isAsked = this.wasDismissed || this.traits.autoDismiss || !this.isStarted;
    this.#check(isAsked, "JB-2 dismissed by nobody", () => "");
    this.failedEarly = before === "created";
  }

  // What the driver is called for.

  /** The number of times that the driver was called so. */
  count(call: Call): number {
    return this.#calls.get(call) ?? 0;
  }

  called(call: Call): void {
    this.#simulation.trace.note(`${this.traits.id}: ${call}`);
    this.#calls.set(call, this.count(call) + 1);
    this.#check(this.count(call) === 1, "JB-2 called twice", () => call);
    const { group } = this;
    if (call === "prepare") this.#prepares(group);
    if (call === "commit") this.#commits(group);
    if (call === "abort") {
      this.#check(!group.hasCommitted, "JB-3 abort after commit", () => "");
      this.#check(group.hasCause, "JB-3 abort without a cause", () => "");
    }
    if (call === "clean") {
      const ends = this.count("commit") + this.count("abort");
      this.#check(ends === 1, "JB-3 neither or both", () => `${ends} of commit and abort`);
    }
  }

  #prepares(group: GroupRecord): void {
    this.#check(!group.hasCause, "JB-3 prepare of a group that fails", () => "");
    this.#check(this.status === "pending", "JB-3 prepare too early", () => "");
    const isAsked = group.wasFinalized || group.alive.every(({ traits }) => traits.autoFinalize);
    this.#check(isAsked, "JB-3 finalized by nobody", () => "");
  }

  #commits(group: GroupRecord): void {
    const { events } = this.#simulation.scheduler;
    if (group.commitEvents < 0) group.commitEvents = events;
    this.#check(group.commitEvents === events, "JB-3 commits apart", () => "");
    const isRight = !group.hasCause && group.alive.every((job) => job.count("abort") === 0);
    this.#check(isRight, "JB-3 commit of a group that fails", () => "");
  }

  // The work.

  beginStep(): void {
    const { status } = this;
    const isResting = status === "paused" || status === "standby" || status === "created";
    this.#check(!isResting, "JB-5 a step while at rest", () => "");
    this.#check(this.drains === 0, "JB-5 a step while drained", () => "");
    this.#check(!this.isOver, "JB-5 a step after the end", () => "");
    if (this.userPaused) this.#checkPause();
    this.#isInStep = true;
  }

  /**
   * There was a pause point in this very turn: it would have rested, had it been paused before. Only who just went on
   * from a rest does not look again, and does one step.
   */
  #checkPause(): void {
    this.#stepsInPause += 1;
    this.#check(this.#stepsInPause <= 1, "JB-5 steps while paused", () => "");
    const { events } = this.#simulation.scheduler;
    const isExcused = this.#pausedAt === events || this.#wentOnAt === events;
    this.#check(isExcused, "JB-5 a pause point was missed", () => "");
  }

  endStep(): void {
    this.#isInStep = false;
  }

  /** A drained section of one of its nodes has become quiet, or ends. */
  drained(change: 1 | -1): void {
    this.drains += change;
    this.#check(!this.#isInStep, "JB-5 a step in a drained section", () => "");
  }

  paused(isPaused: boolean): void {
    this.userPaused = isPaused;
    this.#stepsInPause = 0;
    this.#pausedAt = this.#simulation.scheduler.events;
  }

  /** A cancel that was accepted; by force it decides, unless that was decided before. */
  cancelled(byForce: boolean): void {
    if (this.group.hasCommitted || isOneOf("aborting concluded null", this.status)) return;
    this.paused(false);
    if (byForce || !this.hasRun) this.wasCancelled = true;
    if (byForce) this.wasKilled = true;
  }

  // The end.

  /** Compares how it ended with what has happened. `code` is that of the outcome. */
  outcome(code: string | undefined): void {
    if (this.failedEarly) return;
    const { hasCause } = this.group;
    const expected = hasCause ? (this.ownError ?? "ECANCELED") : undefined;
    this.#check(
      code === expected,
      "JB-3 wrong outcome",
      () => `${code ?? "success"}, not ${expected ?? "success"}`,
    );
  }

  atTheEnd(): void {
    this.#check(this.status === "null", "JB-2 not gone", () => "");
    this.#check(this.count("free") === 1, "JB-2 not freed", () => `${this.count("free")} times`);
    const ends = this.count("commit") + this.count("abort");
    this.#check(ends === (this.failedEarly ? 0 : 1), "JB-3 neither or both", () => `${ends}`);
  }

  #check(isRight: boolean, kind: string, message: () => string): void {
    const { id } = this.traits;
    this.#simulation.expect(isRight, kind, () => `${id} in state '${this.status}': ${message()}`);
  }
}

function names(records: readonly JobRecord[]): string {
  return records.map(({ traits }) => traits.id).join(", ");
}

/** Says where a job is, for the report of a deadlock. */
export function describeJob(record: JobRecord): string {
  const { traits, status, userPaused, drains } = record;
  return `${traits.id} is '${status}'${userPaused ? ", paused by a user" : ""}, ${drains} drains`;
}
