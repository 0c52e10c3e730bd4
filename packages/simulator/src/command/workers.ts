import type { CampaignReport } from "../campaign.ts";
import type { DecisionSource } from "../decisions.ts";
import { type Finding, SeedsRun } from "./seeds-run.ts";
import type { FailedLife, SeedsTask, Task, TaskResult } from "./tasks.ts";
import { type Ending, Worker } from "./worker.ts";

/** Milliseconds that one life may take, which takes some ten as a rule. */
const LIFE_MS = 60_000;
/** Milliseconds beyond its time that a task has to come to its end. */
const GRACE_MS = 10_000;

export interface WorkersOptions {
  /** Processes, 1 or more. They are started when they are needed. */
  readonly count: number;
  /** Milliseconds that one life may take. Default 60,000. */
  readonly lifeMs?: number | undefined;
  /** Aborted when all are to stop: tasks end with what they have so far. */
  readonly signal?: AbortSignal | undefined;
}

/** Processes that live lives side by side. A seed lives alike in each of them. */
export class Workers {
  readonly #count: number;
  readonly #lifeMs: number;
  readonly #signal: AbortSignal | undefined;
  readonly #all = new Set<Worker>();
  readonly #idle: Worker[] = [];
  readonly #waiting: (() => void)[] = [];

  constructor({ count, lifeMs = LIFE_MS, signal }: WorkersOptions) {
    this.#count = count;
    this.#lifeMs = lifeMs;
    this.#signal = signal;
  }

  /**
   * Does a task in one of the processes. A life that never ends, or that ends its process, is a finding: the process is
   * replaced, and the rest of the seeds is lived in the new one.
   *
   * @throws Error the task could not be done, or a process ended before its first life
   */
  run(task: Task): Promise<TaskResult> {
    return task.kind === "seeds" ? this.#runSeeds(task) : this.#runOther(task);
  }

  /** Lets the processes end, whatever they do. */
  close(): void {
    for (const worker of this.#all) worker.close();
  }

  async #runSeeds(task: SeedsTask): Promise<TaskResult> {
    const endMs = performance.now() + task.limitMs;
    const run = new SeedsRun(task);
    for (let part = run.next(); part !== undefined; part = run.next()) {
      const limitMs = endMs - performance.now();
      if (limitMs <= 0 || this.#signal?.aborted === true) break;
      const onLived = (report: CampaignReport): void => run.lived(report);
      const { ending, life } = await this.#work({ ...task, ...part, limitMs }, onLived);
      if (ending.kind !== "endless" && ending.kind !== "ended") continue;
      run.broke(ending.kind, life as number, this.#findingOf(ending));
    }
    return run.result();
  }

  async #runOther(task: Exclude<Task, SeedsTask>): Promise<TaskResult> {
    const { ending, life } = await this.#work(task, () => undefined);
    if (ending.kind === "done") return ending.result;
    if (ending.kind === "stopped") return { lives: 0, events: 0, failures: [] };
    const world = task.kind === "novelty" ? task.world : task.space;
    const { message } = this.#findingOf(ending);
    const failure: FailedLife =
      typeof life === "number"
        ? { world, seed: life, message }
        : { world, decisions: life ?? [], message };
    return { lives: 1, events: 0, failures: [failure] };
  }

  /** Does a task in the next process that is free. @throws Error as {@link run} */
  async #work(
    task: Task,
    onLived: (report: CampaignReport) => void,
  ): Promise<{ readonly ending: Ending; readonly life: DecisionSource | undefined }> {
    const worker = await this.#take();
    const limitMs =
      "limitMs" in task ? Math.max(0, task.limitMs) + GRACE_MS : Number.POSITIVE_INFINITY;
    const limits = { lifeMs: this.#lifeMs, limitMs, signal: this.#signal, onLived };
    const ending = await worker.work(task, limits);
    this.#release(worker, ending.kind === "done" || ending.kind === "refused");
    const { life } = worker;
    if (ending.kind === "refused") throw new Error(ending.error);
    if (life === undefined && (ending.kind === "ended" || ending.kind === "endless")) {
      const { message } = this.#findingOf(ending);
      throw new Error(`before its first life: ${message}, in ${JSON.stringify(task)}`);
    }
    return { ending, life };
  }

  #findingOf(ending: Ending): Finding {
    if (ending.kind === "ended") {
      return { kind: "worker ended", message: `worker ended: its process ended ${ending.how}` };
    }
    const seconds = this.#lifeMs / 1000;
    const message = `endless loop: its turn did not end within ${seconds} s`;
    return { kind: "endless loop", message };
  }

  async #take(): Promise<Worker> {
    while (this.#idle.length === 0 && this.#all.size >= this.#count) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    const worker = this.#idle.pop() ?? new Worker();
    this.#all.add(worker);
    return worker;
  }

  #release(worker: Worker, isAlive: boolean): void {
    if (isAlive) this.#idle.push(worker);
    else this.#all.delete(worker);
    this.#waiting.shift()?.();
  }
}
