import type { Graph } from "@blocklayer/block-graph";
import type { BlockJobs } from "@blocklayer/block-job";
import { BlockError } from "@blocklayer/errors";
import {
  type Job,
  type JobManager,
  JobStartStep,
  type JobTransaction,
  runTransaction,
  type TransactionStep,
} from "@blocklayer/jobs";
import type { Simulation } from "../simulation.ts";
import { type JobNodes, NODES } from "./job-nodes.ts";
import { describeJob, GroupRecord, JobRecord } from "./job-record.ts";
import type { Toy } from "./job-users.ts";
import { ToyDriver, type ToyWorld } from "./toy-driver.ts";

/** Where jobs are made. */
export interface JobWorkshop {
  readonly graph: Graph;
  readonly manager: JobManager;
  readonly blockJobs: BlockJobs;
  readonly nodes: JobNodes;
  readonly world: ToyWorld;
  /** Jobs are added to it before they are made. */
  readonly toys: Toy[];
}

/** Makes jobs and starts them: one by one, as a group, or by a transaction command. */
export class JobMaker {
  /** Jobs that end together, be it one alone. */
  readonly groups: GroupRecord[] = [];
  readonly #simulation: Simulation;
  readonly #home: JobWorkshop;
  /** Whether drivers fail by themselves in this life. */
  readonly #mayFail: boolean;

  constructor(simulation: Simulation, home: JobWorkshop) {
    this.#simulation = simulation;
    this.#home = home;
    this.#mayFail = simulation.decisions.choose("drivers fail", 2) === 1;
  }

  /** Makes one to four jobs, one after the other, each alone or with others. */
  async make(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const count = 1 + decisions.choose("more jobs", 4);
    const isCommand = decisions.chance("a transaction command", 1, 3);
    const isGrouped = decisions.choose("grouped", 2) === 1;
    const transaction = isGrouped ? this.#home.manager.transaction() : undefined;
    const group = transaction === undefined ? undefined : new GroupRecord();
    const toys = Array.from({ length: count }, (_, index) => this.#draw(`job${index}`, group));
    if (isCommand) {
      await this.#command(toys, transaction);
      return;
    }
    // A group is complete before its first job begins; others begin as they are made.
    const made: Toy[] = [];
    for (const toy of toys) {
      if (decisions.choose("a moment", 2) === 1) await scheduler.turn("a moment");
      if (!(await this.#create(toy, transaction))) break;
      if (transaction === undefined) this.#begin(toy);
      else made.push(toy);
    }
    for (const toy of made) this.#begin(toy);
  }

  #draw(id: string, group: GroupRecord | undefined): Toy {
    const { decisions } = this.#simulation;
    const kind = decisions.among("kind", ["block", "plain"]);
    const traits = {
      id,
      kind,
      autoFinalize: decisions.choose("manual finalize", 3) < 2,
      autoDismiss: decisions.choose("manual dismiss", 3) < 2,
    };
    const own = group ?? new GroupRecord();
    if (!this.groups.includes(own)) this.groups.push(own);
    const record = new JobRecord(this.#simulation, traits, own);
    const nodes = kind === "plain" ? [] : NODES.slice(0, decisions.choose("nodes", 3));
    this.#home.nodes.hold(record, nodes);
    const driver = new ToyDriver(this.#simulation, record, this.#home.world, this.#mayFail);
    return { record, driver };
  }

  /** Starts jobs as one step, or none of them: a last step may fail. */
  async #command(toys: readonly Toy[], transaction: JobTransaction | undefined): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const fails = decisions.chance("the command fails", 1, 4);
    const steps = toys.map((toy) => this.#startStep(toy, transaction));
    const last = {
      prepare: async (): Promise<void> => {
        await scheduler.turn("last step");
        if (fails) throw new BlockError("ENOTDIR", "the command fails");
      },
    };
    try {
      await this.#simulation.operation("command", () => runTransaction([...steps, last]));
      this.#simulation.expect(!fails, "JB-3 a command that fails succeeded", () => "");
    } catch (error) {
      const isCancelled = toys.some(({ record }) => record.group.hasCause);
      if (!(error instanceof BlockError && (fails || isCancelled))) throw error;
      this.#simulation.sometimes("a transaction command failed");
    }
  }

  #startStep(toy: Toy, transaction: JobTransaction | undefined): TransactionStep {
    const step = new JobStartStep(() => this.#createNow(toy, transaction));
    return {
      prepare: () => step.prepare(),
      commit: () => step.commit(),
      abort: () => {
        toy.record.cancelled(true);
        step.abort();
      },
      clean: () => step.clean(),
    };
  }

  async #create(toy: Toy, transaction: JobTransaction | undefined): Promise<boolean> {
    try {
      await this.#createNow(toy, transaction);
      return true;
    } catch (error) {
      const isRight =
        error instanceof BlockError && error.code === "ECANCELED" && toy.record.group.hasCause;
      if (!isRight) throw error;
      this.#simulation.sometimes("a job was cancelled while others were made");
      return false;
    }
  }

  async #createNow({ record, driver }: Toy, transaction: JobTransaction | undefined): Promise<Job> {
    const { id, kind, autoFinalize, autoDismiss } = record.traits;
    this.#home.toys.push({ record, driver });
    const options = {
      id,
      type: "toy",
      autoFinalize,
      autoDismiss,
      speed: this.#simulation.decisions.among("speed", [0, 0, 40_000]),
      completion: () => record.called("completion"),
      ...(transaction === undefined ? {} : { transaction }),
    };
    const job =
      kind === "plain" ? this.#plain(driver, options) : await this.#block(record, driver, options);
    record.job = job;
    this.#home.world.background(this.#outcome(record, job));
    return job;
  }

  #plain(driver: ToyDriver, options: Omit<Parameters<JobManager["create"]>[0], "driver">): Job {
    return this.#home.manager.create({ ...options, driver: driver.plain });
  }

  async #block(
    record: JobRecord,
    driver: ToyDriver,
    options: Omit<Parameters<BlockJobs["create"]>[0], "driver">,
  ): Promise<Job> {
    const names = this.#home.nodes.namesOf(record);
    const nodes = names.map((name) => ({ name, node: this.#home.graph.node(name) }));
    const { job } = await this.#home.blockJobs.create({ ...options, driver, nodes });
    return job;
  }

  async #outcome(record: JobRecord, job: Job): Promise<void> {
    const outcome = await job.completed();
    const isOver = record.status === "concluded" || record.status === "null";
    this.#simulation.expect(isOver, "JB-2 completed too early", () => describeJob(record));
    record.outcome(outcome?.code);
  }

  #begin({ record }: Toy): void {
    const { job } = record;
    if (job === undefined || record.status !== "created") return;
    if (this.#simulation.decisions.chance("fails early", 1, 12)) {
      this.#simulation.sometimes("a job failed before it began");
      job.failEarly(new BlockError("ENODEV", "no toy"));
    } else {
      job.start();
    }
  }
}
