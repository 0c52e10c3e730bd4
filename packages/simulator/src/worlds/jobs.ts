import { type DrainHold, Graph } from "@blocklayer/block-graph";
import { type BlockJob, BlockJobs } from "@blocklayer/block-job";
import { JobManager } from "@blocklayer/jobs";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import type { Simulation, World } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";
import { JobMaker } from "./job-maker.ts";
import { keepTime } from "./job-metronome.ts";
import { JobNodes, NODES } from "./job-nodes.ts";
import { describeJob, type JobRecord } from "./job-record.ts";
import { JobUsers, type Toy } from "./job-users.ts";
import { PlantedDefect, type ToyWorld } from "./toy-driver.ts";

/** Times that the jobs are told to go on before they count as ones that do not end. */
const NUDGES_MAX = 200;

/**
 * Jobs that do nothing but live: alone or in transactions, with users who ask for anything at any time, even from inside
 * an event, with drained nodes, and with drivers that fail wherever they may. Judged by the documented states, events
 * and outcomes.
 */
export const jobsWorld: World = {
  name: "jobs",
  situations: [
    "a transaction committed",
    "a transaction aborted",
    "a transaction command failed",
    "a job failed before it began",
    "a drain met a paused job",
    "a drain waited for a step",
    "a drained job was paused",
    "a paused job was cancelled",
    "a pending job was cancelled",
    "a ready job was cancelled softly",
    "an error stopped a job",
    "a user acted inside an event",
    "a job was cancelled while others were made",
    "a job kept its speed",
    "a job took hold of a drained node",
    "a shutdown met jobs",
  ],
  run: (simulation) => new JobsLife(simulation).live(),
};

class JobsLife implements ToyWorld {
  readonly #simulation: Simulation;
  readonly #graph: Graph;
  readonly #manager: JobManager;
  readonly #blockJobs: BlockJobs;
  readonly #users: JobUsers;
  readonly #toys: Toy[] = [];
  readonly #nodes: JobNodes;
  readonly #maker: JobMaker;
  readonly #background: Promise<void>[] = [];
  #isMeddling: boolean;
  #defects = 0;
  #depth = 0;

  constructor(simulation: Simulation) {
    const { decisions, env, scheduler } = simulation;
    this.#simulation = simulation;
    const media = new Map(
      NODES.map((name) => [
        name,
        simulation.medium({ name, size: 4096, sectorSize: 512, discard: "zeroes" }),
      ]),
    );
    const drivers = [simulatedDisk(media)] as const;
    this.#graph = new Graph({ env, drivers }) as unknown as Graph;
    this.#manager = new JobManager({ env, reportDefect: (error) => this.#reported(error) });
    this.#blockJobs = new BlockJobs({ graph: this.#graph, jobs: this.#manager });
    this.#nodes = new JobNodes(simulation, this.#graph, this.#toys);
    this.#maker = new JobMaker(simulation, {
      graph: this.#graph,
      manager: this.#manager,
      blockJobs: this.#blockJobs,
      nodes: this.#nodes,
      world: this,
      toys: this.#toys,
    });
    this.#users = new JobUsers(
      simulation,
      (record) => record.job ?? this.#manager.find(record.traits.id),
      (work) => this.background(work),
    );
    this.#isMeddling = decisions.chance("users act inside events", 1, 3);
    this.#listen();
    scheduler.reporters.push(() => this.#toys.map(({ record }) => describeJob(record)));
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    if (decisions.chance("keep time", 1, 8)) await keepTime(this.#simulation);
    for (const name of NODES) {
      await this.#graph.open({ driver: "x-blocklayer-simulated", "node-name": name, medium: name });
    }
    const work: Promise<void>[] = [this.#drainNodes(), this.#maker.make()];
    for (let count = 1 + decisions.choose("more users", 2); count > 0; count -= 1) {
      work.push(this.#user(decisions.choose("acts", 16)));
    }
    await Promise.all(work);
    this.#simulation.calm();
    if (decisions.chance("shut down", 1, 4)) await this.#shutDown();
    else await this.#wrapUp();
    await this.#waitForBackground();
    this.#judge();
    await this.#graph.close();
    await this.#simulation.expectNothingPending();
  }

  // What toys need.

  drain(record: JobRecord): Promise<DrainHold | undefined> {
    return this.#nodes.drainFirst(record);
  }

  changeNodes(record: JobRecord, blockJob: BlockJob): Promise<void> {
    return this.#nodes.change(record, blockJob);
  }

  background(work: Promise<void>): void {
    this.#background.push(work);
  }

  threw(): void {
    this.#defects += 1;
  }

  // What happens to them.

  #listen(): void {
    const { events } = this.#manager;
    events.on("status", ({ id, status }) => this.#told(id, "status", status));
    events.on("ready", ({ device }) => this.#told(device, "ready"));
    events.on("pending", ({ id }) => this.#told(id, "pending"));
    events.on("error", ({ device }) => this.#told(device, "error"));
    events.on("completed", ({ device }) => this.#told(device, "completed"));
    events.on("cancelled", ({ device }) => this.#told(device, "cancelled"));
  }

  #told(id: string, event: string, status = ""): void {
    this.#simulation.trace.note(`event: ${id} ${event} ${status}`);
    const toy = this.#toys.find(({ record }) => record.traits.id === id);
    if (toy === undefined) return;
    toy.record.told(event, status);
    if (status === "running") this.#nodes.enterSections(toy.record);
    if (this.#isMeddling && this.#depth < 2) this.#meddle(toy);
  }

  /** Users may do something about what they are told while they are told. */
  #meddle(toy: Toy): void {
    const { decisions } = this.#simulation;
    if (!decisions.chance("a user acts inside an event", 1, 5)) return;
    this.#simulation.sometimes("a user acted inside an event");
    this.#depth += 1;
    if (decisions.choose("to another job", 2) === 0) this.#users.act(toy);
    else this.#act();
    this.#depth -= 1;
  }

  async #user(acts: number): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let count = acts; count > 0; count -= 1) {
      await scheduler.turn("a user", decisions.among("after ms", [0, 0, 5, 100]));
      this.#act();
    }
  }

  #act(): void {
    const { decisions } = this.#simulation;
    if (this.#toys.length === 0) return;
    const toy = this.#toys[decisions.choose("whom", this.#toys.length)];
    if (toy !== undefined) this.#users.act(toy);
  }

  async #drainNodes(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let count = decisions.choose("drains", 6); count > 0; count -= 1) {
      await scheduler.turn("before a drain");
      const hold = await this.#simulation.operation("drain", () => this.#nodes.drainSome());
      await scheduler.turn("drained", decisions.among("drained for ms", [0, 20, 200]));
      hold.end();
    }
  }

  // The end.

  async #wrapUp(): Promise<void> {
    const { scheduler } = this.#simulation;
    for (let nudges = 0; this.#toys.some(({ record }) => isAlive(record)); nudges += 1) {
      const isStuck = nudges > NUDGES_MAX;
      if (isStuck)
        this.#simulation.fail(
          "JB-2 does not end",
          this.#toys.map(({ record }) => describeJob(record)).join("; "),
        );
      for (const toy of this.#toys) this.#nudge(toy);
      await scheduler.turn("nudge", 100);
    }
  }

  /** Everything is cancelled at once, whatever it is doing. */
  async #shutDown(): Promise<void> {
    this.#isMeddling = false;
    for (const { record } of this.#toys) {
      record.wasDismissed = true;
      record.cancelled(true);
    }
    if (this.#toys.some(({ record }) => isAlive(record))) {
      this.#simulation.sometimes("a shutdown met jobs");
    }
    await this.#simulation.operation("shutdown", () => this.#manager.cancelAll());
  }

  #nudge(toy: Toy): void {
    const { record, driver } = toy;
    const job = record.job ?? this.#manager.find(record.traits.id);
    if (job === undefined) return;
    const { status } = record;
    if (status === "created") this.#users.do("kill", toy, job);
    else if (record.userPaused && record.accepts("resume")) this.#users.do("resume", toy, job);
    else if (status === "ready" && !driver.canComplete) this.#users.do("kill", toy, job);
    else if (status === "ready") this.#users.do(this.#ready(), toy, job);
    else if (status === "pending" && this.#needsFinalize(record))
      this.#users.do("finalize", toy, job);
    else if (status === "concluded" && !record.traits.autoDismiss)
      this.#users.do("dismiss", toy, job);
  }

  /** What a user does in the end to a job that is ready. */
  #ready(): "complete" | "cancel" {
    return this.#simulation.decisions.chance("cancel a ready job", 1, 3) ? "cancel" : "complete";
  }

  #needsFinalize({ group }: JobRecord): boolean {
    return !group.wasFinalized && group.alive.some(({ traits }) => !traits.autoFinalize);
  }

  async #waitForBackground(): Promise<void> {
    for (let index = 0; index < this.#background.length; index += 1) await this.#background[index];
  }

  #judge(): void {
    const { simulation } = { simulation: this.#simulation };
    for (const { record } of this.#toys) {
      // Of a group that was cancelled in the meantime the last ones were never made.
      if (record.status !== "undefined") record.atTheEnd();
    }
    for (const group of this.#maker.groups) {
      const alive = group.alive.filter(({ status }) => status !== "undefined");
      const commits = alive.filter((record) => record.count("commit") > 0).length;
      simulation.expect(
        commits === 0 || commits === alive.length,
        "JB-3 some committed",
        () => `${commits} of ${alive.length}`,
      );
      if (alive.length < 2) continue;
      simulation.sometimes(commits > 0 ? "a transaction committed" : "a transaction aborted");
    }
    const jobs = this.#manager.list().length + this.#blockJobs.list().length;
    simulation.expect(jobs === 0, "JB-2 jobs left", () => `${jobs}`);
    simulation.expect(this.#defects === 0, "JB-2 defects not reported", () => `${this.#defects}`);
    for (const node of this.#graph.nodes()) {
      const isFree =
        node.parents.size === 0 && node.quiesceCount === 0 && node.operations.size === 0;
      simulation.expect(isFree, "left behind at a node", () => node.name);
    }
  }

  #reported(error: unknown): void {
    if (error instanceof PlantedDefect) this.#defects -= 1;
    else this.#simulation.fail("defect", SimulationFailure.of(error).stack ?? "");
  }
}

function isAlive({ status }: JobRecord): boolean {
  return status !== "null" && status !== "undefined";
}
