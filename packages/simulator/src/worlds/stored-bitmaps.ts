import { type BlockNode, checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import { BlockError } from "@blocklayer/errors";
import { METADATA_LENGTH } from "../disk/image-layout.ts";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { simulatedImage } from "../disk/simulated-image.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { BitmapJobs } from "./bitmap-jobs.ts";
import { BitmapLedger } from "./bitmap-ledger.ts";
import { CELL, ModelDisk } from "./bitmap-model.ts";
import { BitmapUser } from "./bitmap-user.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest } from "./guest.ts";
import { describeGraph } from "./request-layer.ts";
import { StoredExpectations } from "./stored-expectations.ts";
import { WatchedDisk } from "./watched-disk.ts";

const GROUP = 8192;
/** Bytes of a stamp, and of what a crash writes as one. */
const STAMP = 64;

/**
 * Bitmaps that an image keeps, over several lives of the process: they end in a crash, in a close, or in a close that
 * failed. What comes back is valid and lacks nothing, or says that it was in use.
 */
export const storedBitmapsWorld: World = {
  name: "stored-bitmaps",
  situations: [
    "a bitmap came back",
    "a bitmap came back inconsistent",
    "a crash lost sectors",
    "a close failed",
    "a job outlives its disk",
    "became read-only and writable again",
    "became writable",
    "a successor took over",
    "refused: EPERM",
    "refused: EINVAL",
  ],
  run: (simulation) => new StoredLives(simulation).live(),
};

/** One life of the process. */
interface Process {
  readonly graph: Graph;
  readonly bitmaps: BitmapManager;
  readonly node: BlockNode;
  readonly model: ModelDisk;
  readonly ledger: BitmapLedger;
  readonly user: BitmapUser;
}

class StoredLives {
  readonly #simulation: Simulation;
  readonly #alignment: number;
  readonly #size: number;
  readonly #medium: Medium;
  readonly #oracle: RegisterOracle;
  readonly #expectations: StoredExpectations;

  constructor(simulation: Simulation) {
    const { decisions } = simulation;
    this.#simulation = simulation;
    this.#alignment = decisions.among("alignment", [512, 1]);
    this.#size = GROUP * (1 + decisions.choose("groups", 2)) - decisions.among("tail", [0, CELL]);
    this.#medium = simulation.medium({
      name: "medium",
      size: this.#size + METADATA_LENGTH,
      sectorSize: CELL,
      tearSize: decisions.among("torn sectors", [CELL, STAMP]),
    });
    this.#oracle = new RegisterOracle({ disk: 1, size: this.#size, cellSize: STAMP });
    this.#expectations = new StoredExpectations(simulation);
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    for (let lives = 1 + decisions.choose("lives", 3); lives > 0; lives -= 1) {
      const process = await this.#start();
      if (decisions.chance("ends in a crash", 2, 3)) await this.#liveUntilCrash(process);
      else await this.#liveUntilClose(process, false);
    }
    await this.#liveUntilClose(await this.#start(), true);
    // Once more: what was stored in the end comes back.
    await this.#close(await this.#start());
    await this.#simulation.expectNothingPending();
  }

  async #start(): Promise<Process> {
    const { env, decisions, scheduler } = this.#simulation;
    const drivers = [simulatedDisk(new Map([["medium", this.#medium]])), simulatedImage] as const;
    const graph = new Graph({ env, drivers });
    scheduler.reporters.splice(1);
    scheduler.reporters.push(() => describeGraph(graph as unknown as Graph));
    const bitmaps = new BitmapManager(graph as unknown as Graph);
    this.#medium.heal();
    await graph.open({
      driver: "x-blocklayer-simulated",
      "node-name": "file",
      discard: "unmap",
      medium: "medium",
      "request-alignment": this.#alignment,
    });
    const isReadOnly = decisions.chance("opened read-only", 1, 6);
    const node = await this.#simulation.operation("open", () =>
      graph.open({
        driver: "x-blocklayer-simulated-image",
        "node-name": "disk",
        discard: "unmap",
        "read-only": isReadOnly,
        file: "file",
      }),
    );
    const content = (): Uint8Array => this.#medium.cache.visible.subarray(0, this.#size);
    const model = new ModelDisk("disk", content, this.#alignment);
    const ledger = new BitmapLedger(this.#simulation, bitmaps, [model]);
    this.#expectations.meet(bitmaps, node, ledger, model);
    const process = { graph: graph as unknown as Graph, bitmaps, node, model, ledger };
    const user = new BitmapUser({
      ...process,
      simulation: this.#simulation,
      nodes: ["disk"],
      mayPersist: true,
      faultCount: () => this.#medium.faultCount,
    });
    ledger.judge();
    return { ...process, user };
  }

  async #liveUntilCrash(process: Process): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    void this.#work(process);
    for (let turns = decisions.choose("turns until the crash", 60); turns >= 0; turns -= 1) {
      await scheduler.turn("a moment");
    }
    this.#expectations.remember(process.ledger);
    process.model.crash();
    this.#simulation.crash();
    const { lost } = this.#medium.crash();
    if (lost > 0) this.#simulation.sometimes("a crash lost sectors");
    const problem = this.#oracle.recover(this.#medium.cache.visible.slice(0, this.#size));
    if (problem !== undefined) this.#simulation.fail("wrong data after a crash", problem);
  }

  async #liveUntilClose(process: Process, isLast: boolean): Promise<void> {
    await this.#work(process);
    if (isLast) this.#simulation.calm();
    process.ledger.judgeNames(process.node);
    checkGraph(process.graph);
    await this.#close(process);
  }

  async #close(process: Process): Promise<void> {
    const { graph, ledger } = process;
    ledger.judge();
    const faults = this.#medium.faultCount;
    const contents = new Map(ledger.all.map(({ name, content }) => [name, content]));
    try {
      await this.#simulation.operation("close", () => graph.close());
      this.#expectations.remember(ledger, contents);
    } catch (error) {
      this.#expectations.remember(ledger);
      this.#simulation.sometimes("a close failed");
      this.#expectExplained(error, faults);
    }
    process.model.crash();
  }

  /** Everybody at work, until all have ended. */
  async #work(process: Process): Promise<void> {
    const { decisions } = this.#simulation;
    const { node, user, ledger } = process;
    if (node.readOnly) await this.#becomeWritable(process);
    if (ledger.all.length === 0) await user.add(1 + decisions.choose("bitmaps", 3));
    this.#medium.behaviour = drawBehaviour(decisions, "medium");
    for (let rounds = 1 + decisions.choose("rounds", 2); rounds > 0; rounds -= 1) {
      const isFrozen = rounds === 1 && (await this.#freeze(ledger));
      const disk = await this.#backend(process);
      const jobs = new BitmapJobs(this.#simulation, ledger);
      await Promise.all([
        ...this.#guests(process, disk),
        user.work(decisions.choose("commands", 6)),
        jobs.work(decisions.choose("jobs", 3)),
      ]);
      await disk.close();
      if (!isFrozen && decisions.chance("becomes read-only", 1, 3))
        await this.#becomeReadOnly(process);
      if (node.readOnly) await this.#becomeWritable(process);
    }
  }

  /** A job that is still there when the process ends. */
  async #freeze(ledger: BitmapLedger): Promise<boolean> {
    const { decisions, scheduler } = this.#simulation;
    if (!decisions.chance("a job outlives its disk", 1, 4)) return false;
    await scheduler.turn("before the job");
    const held = ledger.all.find(({ isBusy, isInconsistent }) => !(isBusy || isInconsistent));
    if (held === undefined) return false;
    held.isTouched = true;
    held.bitmap.createSuccessor();
    held.freeze();
    this.#simulation.sometimes("a job outlives its disk");
    return true;
  }

  #backend({ graph }: Process): Promise<WritableBackend> {
    return graph.createBackend({ node: "disk", perm: ["consistent-read", "write"] });
  }

  #guests({ model, ledger }: Process, backend: WritableBackend): Promise<void>[] {
    const { decisions } = this.#simulation;
    const disk = new WatchedDisk(backend, model, (isBegin) => {
      if (isBegin) ledger.touch("disk");
      else ledger.judge();
    });
    const guests: Promise<void>[] = [];
    for (let count = decisions.choose("guests", 3); count > 0; count -= 1) {
      const name = `guest ${count}`;
      const guest = new Guest({
        name,
        simulation: this.#simulation,
        oracle: this.#oracle,
        disk,
        cellsMax: decisions.among(`${name} longest request`, [24, 8, 128]),
        hotCells: 64,
        mayFail: () => this.#medium.faultCount > 0,
      });
      guests.push(guest.work(decisions.choose("requests", 7)));
    }
    return guests;
  }

  async #becomeReadOnly(process: Process): Promise<void> {
    const { graph, node, ledger, user } = process;
    const { decisions } = this.#simulation;
    const faults = this.#medium.faultCount;
    try {
      await this.#simulation.operation("become read-only", () => graph.setReadOnly(node, true));
    } catch (error) {
      for (const held of ledger.all) held.isTouched = true;
      this.#expectExplained(error, faults);
      return;
    }
    for (const held of ledger.all) {
      if (!held.isPersistent) continue;
      held.isStored = true;
      held.isTouched = false;
      held.isSwitchedInPassing = false;
      held.isReadonly = true;
    }
    this.#simulation.sometimes("became read-only and writable again");
    ledger.judge();
    await user.work(decisions.choose("commands while read-only", 3));
  }

  async #becomeWritable({ graph, node, ledger }: Process): Promise<void> {
    const faults = this.#medium.faultCount;
    for (;;) {
      try {
        await this.#simulation.operation("become writable", () => graph.setReadOnly(node, false));
        break;
      } catch (error) {
        this.#expectExplained(error, faults);
        this.#medium.heal();
      }
    }
    for (const held of ledger.all) held.isReadonly = false;
    this.#simulation.sometimes("became writable");
    ledger.judge();
  }

  #expectExplained(error: unknown, faultsBefore: number): void {
    const isKnown = error instanceof BlockError || error instanceof AggregateError;
    if (!isKnown) throw error;
    this.#simulation.expect(
      this.#medium.faultCount > faultsBefore,
      "error from nowhere",
      () => error.message,
    );
  }
}
