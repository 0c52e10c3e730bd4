import { assert, BlockError } from "@blocklayer/errors";
import type { Job, JobTransaction } from "./job.ts";
import type { JobHome } from "./job-home.ts";

/** A job as its transaction ends it. */
export interface GroupMember extends Job {
  /** Cancels by force because a sibling failed. */
  cancelWithGroup(): void;
  /** Resolves when the work is over. */
  workOver(): Promise<void>;
  becomePending(): void;
  /** Runs the driver's `prepare`; the error is the job's own from then on. */
  prepareEnd(): Promise<BlockError | undefined>;
  /** The point of no return; synchronous. */
  commitEnd(): void;
  /** Makes the job a failed one. */
  abortEnd(): void;
  /** Cleans up, tells the outcome and concludes. Never rejects. */
  conclude(): Promise<void>;
}

/**
 * Jobs that succeed or fail together.
 *
 * At most one activity, finalizing or aborting, runs at a time. Aborting may begin while finalizing waits for
 * a `prepare`: that one is waited for, no other is begun. Once all are prepared the outcome is decided and
 * every job commits in the same turn.
 *
 * Differs: the reference commits and cleans one job after the other; here nobody sees half of the jobs
 * committed, and a cancel can not fail one after another has.
 *
 * @see spec/jobs.md section 5
 */
export class JobGroup implements JobTransaction {
  readonly #home: JobHome;
  readonly #members: GroupMember[] = [];
  #aborting: boolean = false;
  #committed: boolean = false;
  #activity: Promise<void> | undefined;

  constructor(home: JobHome) {
    this.#home = home;
  }

  get jobs(): readonly Job[] {
    return [...this.#members];
  }

  get isAborting(): boolean {
    return this.#aborting;
  }

  /** All jobs have succeeded, or are just doing so; nothing can change that. */
  get isCommitted(): boolean {
    return this.#committed;
  }

  /**
   * Adds a job; not once the group is ending.
   *
   * @throws {@link BlockError} `ECANCELED` a job that is in it has failed or was cancelled already
   */
  add(member: GroupMember): void {
    if (this.#aborting) {
      const context = { job: member.id };
      throw new BlockError(
        "ECANCELED",
        "a job of the same transaction has failed or was cancelled",
        context,
      );
    }
    assert(
      !this.#committed && this.#activity === undefined,
      "a job can not join a transaction that is ending or has ended",
    );
    this.#members.unshift(member);
  }

  remove(member: GroupMember): void {
    const index = this.#members.indexOf(member);
    if (index >= 0) this.#members.splice(index, 1);
  }

  /** One more job has done its work. When all have they become pending, and end if nobody wants to be asked. */
  succeed(): void {
    if (this.#aborting || this.#members.some((member) => !member.isCompleted)) return;
    for (const member of [...this.#members]) {
      // Being told that the first is pending, somebody may have cancelled it.
      if (this.#aborting) return;
      member.becomePending();
    }
    if (this.#aborting || this.#activity !== undefined) return;
    if (this.#members.every((member) => member.autoFinalize)) this.#track(this.#finalize());
  }

  /** Ends the group; resolves when it has ended. */
  finalize(): Promise<void> {
    if (this.#activity === undefined) this.#track(this.#finalize());
    return this.idle();
  }

  /** Makes all jobs fail. Only the first call acts. */
  abort(trigger: GroupMember): void {
    assert(!this.#committed, "jobs that have committed can not abort");
    if (this.#aborting) return;
    this.#aborting = true;
    const finalizing = this.#activity;
    for (const member of [...this.#members]) {
      if (member !== trigger) member.cancelWithGroup();
    }
    this.#track(this.#abortAll(finalizing));
  }

  /** Resolves when neither finalizing nor aborting is under way. */
  async idle(): Promise<void> {
    while (this.#activity !== undefined) await this.#activity;
  }

  #track(activity: Promise<void>): void {
    const tracked: Promise<void> = activity.catch(this.#home.reportDefect).then(() => {
      if (this.#activity === tracked) this.#activity = undefined;
    });
    this.#activity = tracked;
  }

  async #finalize(): Promise<void> {
    // The call may come out of an event of one member while the others are not pending yet.
    await this.#turn("job finalize");
    const members = [...this.#members];
    for (const member of members) {
      if (this.#aborting) return;
      if ((await member.prepareEnd()) !== undefined) this.abort(member);
    }
    if (this.#aborting) return;
    this.#committed = true;
    // No `await` in this loop: the jobs succeed at one instant.
    for (const member of members) member.commitEnd();
    for (const member of members) await member.conclude();
  }

  async #abortAll(finalizing: Promise<void> | undefined): Promise<void> {
    await this.#turn("job abort");
    await finalizing;
    for (let member = this.#members[0]; member !== undefined; member = this.#members[0]) {
      await member.workOver();
      member.abortEnd();
      await member.conclude();
    }
  }

  #turn(tag: string): Promise<void> {
    return new Promise((resolve) => this.#home.env.wake(resolve, tag));
  }
}
