import { BlockError } from "@blocklayer/errors";
import { JobManager } from "@blocklayer/jobs";
import type { Simulation, World } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";
import { EDGES } from "../worlds/job-rules.ts";
import {
  type Answer,
  answerOf,
  JobVerbModel,
  LETTERS,
  type Letter,
  type ModelJob,
} from "./job-verb-model.ts";
import { ToldJob } from "./told-job.ts";

export interface JobVerbsOptions {
  readonly name: string;
  /** Jobs of one transaction. */
  readonly jobs: number;
  /** Letters of the longest sequence. */
  readonly length: number;
  /** Whether a letter may come while what the last one set off still goes on. Then there is no model to compare with. */
  readonly isRushed: boolean;
  /** Whether the jobs have been started when the first letter comes. Default `false`. */
  readonly areStarted?: boolean;
}

/**
 * Every sequence of what can be asked of jobs. A letter that is refused leaves everything as it was, which is checked, so
 * that no sequence goes on after it. Judged by a model of the tables, by the edges between states, and by how jobs end.
 *
 * @see spec/jobs.md; docs/reliability.md section 3.2, JB-1 to JB-4
 */
export function jobVerbs(options: JobVerbsOptions): World {
  return {
    name: options.name,
    situations: [],
    run: (simulation) => new JobVerbs(simulation, options).live(),
  };
}

class JobVerbs {
  readonly #simulation: Simulation;
  readonly #options: JobVerbsOptions;
  readonly #model: JobVerbModel;
  readonly #manager: JobManager;
  readonly #jobs: ToldJob[] = [];
  readonly #path: string[] = [];

  constructor(simulation: Simulation, options: JobVerbsOptions) {
    this.#simulation = simulation;
    this.#options = options;
    const isAutomatic = simulation.decisions.chance("ends by itself", 1, 2);
    this.#model = new JobVerbModel(options.jobs, isAutomatic);
    this.#manager = new JobManager({
      env: simulation.env,
      reportDefect: (error) => simulation.fail("defect", SimulationFailure.of(error).message),
    });
    this.#listen();
    const transaction = this.#manager.transaction();
    for (let index = 0; index < options.jobs; index += 1) {
      const driver = new ToldJob();
      this.#jobs.push(driver);
      driver.job = this.#manager.create({
        id: `job${index}`,
        type: "test",
        kind: "block",
        driver,
        transaction,
        autoFinalize: isAutomatic,
        autoDismiss: isAutomatic,
      });
    }
  }

  async live(): Promise<void> {
    const { areStarted = false, jobs, length } = this.#options;
    for (let index = 0; areStarted && index < jobs; index += 1) await this.#step(index, "start");
    for (let count = 0; count < length; count += 1) {
      const choice = this.#simulation.decisions.choose("letter", LETTERS.length * jobs);
      const letter = LETTERS[choice % LETTERS.length] ?? "start";
      if (!(await this.#step(Math.floor(choice / LETTERS.length), letter))) break;
    }
    await this.#end();
  }

  /** Returns whether something happened. */
  async #step(index: number, letter: Letter): Promise<boolean> {
    const { isRushed } = this.#options;
    const job = this.#jobs[index];
    const model = this.#model.jobs[index];
    if (job === undefined || model === undefined) return false;
    if (isRushed) await this.#simulation.scheduler.turn("letter");
    const expected = answerOf(isRushed ? job.state : model, letter);
    if (expected === "impossible") return false;
    this.#path.push(`${letter} ${index}`);
    const before = this.#view();
    const answer = await this.#ask(job, letter);
    this.#expect(answer === expected, `wrong answer to ${letter}`, () => `${answer}: ${before}`);
    if (answer === "refused") {
      const after = this.#view();
      this.#expect(after === before, "changed by a refusal", () => `${before} to ${after}`);
      return false;
    }
    if (isRushed) return true;
    await this.#settle();
    this.#model.apply(index, letter);
    const seen = this.#view();
    const meant = JSON.stringify(this.#model.jobs.map(viewOf));
    this.#expect(seen === meant, "not what the model does", () => `${seen}, not ${meant}`);
    return letter !== "set-speed";
  }

  /** A verb is answered within its turn; what follows of it, the next letter need not wait for. */
  async #ask(job: ToldJob, letter: Letter): Promise<Answer> {
    let answer: Answer = "done";
    const asked = job.ask(letter).catch((error: unknown) => {
      if (!(error instanceof BlockError)) throw error;
      answer = "refused";
    });
    await Promise.race([asked, aFewMicrotasks()]);
    return answer;
  }

  /** Ends all jobs and judges how they did. */
  async #end(): Promise<void> {
    await this.#manager.cancelAll();
    await this.#settle();
    for (const [index, job] of this.#jobs.entries()) {
      this.#judge(index, job);
    }
    const outcomes = new Set(this.#jobs.map(({ calls }) => calls.commit));
    this.#expect(outcomes.size === 1, "some committed, others did not", () => "");
    this.#expect(this.#manager.list().length === 0, "left behind", () => "jobs");
    await this.#simulation.expectNothingPending();
  }

  #judge(index: number, { events, calls, job }: ToldJob): void {
    const title = (): string => `job ${index}: ${events.join(" ")} ${JSON.stringify(calls)}`;
    const states = events.filter((event) => event in EDGES);
    let last = "undefined";
    for (const state of states) {
      this.#expect(EDGES[last]?.includes(state) === true, "no such edge", title);
      last = state;
    }
    this.#expect(events.at(-1) === "null", "not gone", title);
    const ends = events.filter((event) => event === "COMPLETED" || event === "CANCELLED");
    this.#expect(ends.length === (job.isStarted ? 1 : 0), "not one end", title);
    const end = events.indexOf(ends[0] ?? "");
    this.#expect(end < 0 || events[end + 1] === "concluded", "ends at the wrong place", title);
    const isWell = job.error === undefined;
    this.#expect(calls.commit === (isWell ? 1 : 0), "commits", title);
    this.#expect(calls.abort === (isWell ? 0 : 1), "aborts", title);
    this.#expect(calls.clean === 1 && calls.free === 1, "not cleaned and freed once", title);
  }

  #listen(): void {
    const { events } = this.#manager;
    const tell = (id: string, event: string): void => {
      this.#jobs[Number(id.slice(3))]?.events.push(event);
    };
    events.on("status", ({ id, status }) => tell(id, status));
    events.on("ready", ({ device }) => tell(device, "READY"));
    events.on("pending", ({ id }) => tell(id, "PENDING"));
    events.on("cancelled", ({ device }) => tell(device, "CANCELLED"));
    events.on("completed", ({ device }) => tell(device, "COMPLETED"));
  }

  #settle(): Promise<void> {
    return this.#simulation.scheduler.rest();
  }

  #view(): string {
    return JSON.stringify(
      this.#jobs.map(({ job, events }) => [job.status, events, job.error?.code ?? ""]),
    );
  }

  #expect(condition: boolean, kind: string, message: () => string): void {
    this.#simulation.expect(condition, kind, () => `${this.#path.join(", ")}: ${message()}`);
  }
}

function viewOf({ status, events, code }: ModelJob): readonly unknown[] {
  return [status, events, code];
}

async function aFewMicrotasks(): Promise<void> {
  for (let count = 0; count < 10; count += 1) await null;
}
