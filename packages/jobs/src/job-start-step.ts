import type { Job } from "./job.ts";
import type { TransactionStep } from "./transaction.ts";

/**
 * The start of a job as a step of a transaction: made in `prepare`, started by `commit` unless it was cancelled in
 * between. When the transaction
 * aborts the job is cancelled before it was ever started, and gone when `clean` is done.
 *
 * @see spec/jobs.md section 16
 */
export class JobStartStep implements TransactionStep {
  readonly name = "job start";
  readonly #create: () => Job | Promise<Job>;
  #job: Job | undefined;
  #cancelled: Promise<unknown> | undefined;

  /** @param create - makes the job, or fails without leaving one behind */
  constructor(create: () => Job | Promise<Job>) {
    this.#create = create;
  }

  /** The job, once prepared. */
  get job(): Job | undefined {
    return this.#job;
  }

  async prepare(): Promise<void> {
    this.#job = await this.#create();
  }

  commit(): void {
    // Whoever was told of the job may have cancelled it while other steps were prepared.
    if (this.#job?.status === "created") this.#job.start();
  }

  abort(): void {
    this.#cancelled = this.#job?.cancelAndWait({ force: true });
  }

  async clean(): Promise<void> {
    await this.#cancelled;
  }
}
