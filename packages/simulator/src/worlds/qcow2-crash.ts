import type { Simulation, World } from "../simulation.ts";
import { Qcow2Disk, type Qcow2Request } from "./qcow2-disk.ts";
import { Qcow2Operator } from "./qcow2-operator.ts";
import { drawShape } from "./qcow2-plan.ts";
import { readStructure, type Use } from "./qcow2-structure.ts";

const REQUESTS = [
  "write",
  "flush",
  "discard",
  "zeroes",
  "compressed",
  "part",
  "operation",
] as const;
const WEIGHTS = [4, 3, 3, 2, 2, 3, 6];
const STAGES = [
  "counts on their way",
  "entries of new counts on their way",
  "a flush before references",
  "references on their way",
  "a flush of references",
  "freed clusters on their way",
];

/** Turns within which what a crash aims at has to come. */
const TURNS_MAX = 80;

/**
 * The power fails at any moment of a few operations on an image, again and again. The image opens, its structure is at
 * most leaky, and what was flushed is there.
 */
export const qcow2CrashWorld: World = {
  name: "qcow2-crash",
  situations: [
    ...STAGES.map((stage) => `a crash with ${stage}`),
    "a crash lost sectors",
    "a crash left an image dirty",
    "a crash left leaks",
    "a crash left marks out of date",
    "a crash during a snapshot operation",
    "a crash during a resize",
    "a crash while an image was closed",
    "a snapshot was applied after a crash",
  ],
  run: (simulation) => new Qcow2Crashes(simulation).live(),
};

class Qcow2Crashes {
  readonly #simulation: Simulation;
  readonly #disk: Qcow2Disk;
  readonly #operator: Qcow2Operator;

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
    this.#disk = new Qcow2Disk(simulation, drawShape(simulation.decisions));
    this.#operator = new Qcow2Operator(this.#disk);
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    await this.#disk.make();
    let hasCrashed = false;
    for (let crashes = 1 + decisions.choose("crashes", 3); crashes > 0; crashes -= 1) {
      await this.#open(hasCrashed);
      await this.#liveUntilCrash();
      hasCrashed = true;
    }
    await this.#open(hasCrashed);
    await this.#work();
    this.#simulation.calm();
    await this.#disk.readAll();
    await this.#applyAll();
    await this.#close();
  }

  async #open(hasCrashed: boolean): Promise<void> {
    const { decisions } = this.#simulation;
    this.#disk.medium.behaviour = { atOnce: 1, later: 0, early: 0, slow: 0, faults: 0 };
    await this.#disk.open();
    if (hasCrashed) await this.#disk.recover();
    this.#disk.medium.behaviour = {
      atOnce: decisions.among("at once", [1, 2, 0]),
      later: 2,
      early: decisions.among("early", [0, 1]),
      slow: 0,
      faults: 0,
      prompt: decisions.chance("reads at once", 1, 2) ? ["read"] : [],
    };
  }

  async #liveUntilCrash(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const closes = decisions.chance("closes", 1, 3);
    void this.#work().then(() => (closes ? this.#endEarly() : undefined));
    // At any moment, or at the next one at which something in particular is under way.
    const isAtBlock = this.#disk.shape.isCrowded && decisions.chance("crashes at a block", 1, 2);
    const aim = isAtBlock ? 2 : decisions.choose("crashes at", STAGES.length + 1);
    for (
      let turns = decisions.choose("turns until the crash", aim === 0 ? 60 : 10);
      turns >= 0;
      turns -= 1
    ) {
      await scheduler.turn("a moment");
    }
    let stages = this.#stages();
    for (let turns = 0; turns < TURNS_MAX && aim > 0 && !stages.has(aim); turns += 1) {
      await scheduler.turn("a moment");
      stages = this.#stages();
    }
    for (const stage of stages) this.#simulation.sometimes(`a crash with ${STAGES[stage - 1]}`);
    if (this.#current.startsWith("snapshot")) {
      this.#simulation.sometimes("a crash during a snapshot operation");
    }
    if (this.#current === "close") this.#simulation.sometimes("a crash while an image was closed");
    if (this.#current === "resize") this.#simulation.sometimes("a crash during a resize");
    const { medium, snapshots } = this.#disk;
    this.#current = "";
    this.#simulation.crash();
    snapshots.crashed();
    const { lost } = medium.crash();
    if (lost > 0) this.#simulation.sometimes("a crash lost sectors");
    this.#disk.isLeaky = true;
    const { isDirty, leaks, marks } = this.#disk.inspect(false);
    if (isDirty) this.#simulation.sometimes("a crash left an image dirty");
    if (leaks.length > 0) this.#simulation.sometimes("a crash left leaks");
    if (marks.length > 0) this.#simulation.sometimes("a crash left marks out of date");
  }

  /** Where in the order of writing back the image is, by what is on its way: numbers from 1. */
  #stages(): ReadonlySet<number> {
    const { cache } = this.#disk.medium;
    const { pendingTags } = this.#simulation.scheduler;
    const tags = pendingTags.filter((tag) => tag.startsWith("image ") && !tag.includes("read"));
    const stages = new Set<number>();
    if (tags.length === 0) return stages;
    const { useOf } = readStructure(cache.visible);
    const hasReferences = cache
      .undecided()
      .some(({ sector }) => isReference(useOf(sector * cache.sectorSize)));
    for (const tag of tags) {
      const [, operation = "", place = "0"] = tag.split(" ");
      const stage = stageOf(operation, useOf(Number.parseInt(place, 10)), hasReferences);
      if (stage > 0) stages.add(stage);
    }
    return stages;
  }

  #current = "";

  /** The image is closed well, if the power lets it. */
  async #endEarly(): Promise<void> {
    const { backend, graph } = this.#disk;
    this.#current = "close";
    await backend.close();
    await graph.close();
    this.#current = "";
  }

  /** A few operations, some of them before the last one has ended. */
  async #work(): Promise<void> {
    const { decisions } = this.#simulation;
    const running: Promise<void>[] = [];
    for (let count = 1 + decisions.choose("operations", 8); count > 0; count -= 1) {
      const kind = REQUESTS[decisions.weighted("request", WEIGHTS)] ?? "write";
      if (kind === "operation") {
        await Promise.all(running);
        await this.#operate();
        continue;
      }
      const request = this.#send(kind);
      if (decisions.chance("goes on", 1, 2)) running.push(request);
      else await request;
    }
    await Promise.all(running);
  }

  async #operate(): Promise<void> {
    const { decisions } = this.#simulation;
    const { snapshots } = this.#disk;
    const { names } = snapshots;
    const kind = decisions.among("whole", [
      "snapshot",
      "snapshot delete",
      "snapshot apply",
      "resize",
    ]);
    const name = names[decisions.choose("snapshot", Math.max(1, names.length))];
    this.#current = kind;
    if (kind === "resize") await this.#operator.resize();
    else if (name === undefined || kind === "snapshot") await snapshots.create();
    else if (kind === "snapshot apply") await snapshots.apply(name);
    else await snapshots.delete(name);
    this.#current = "";
  }

  async #send(kind: Exclude<(typeof REQUESTS)[number], "operation">): Promise<void> {
    const { decisions } = this.#simulation;
    const { shape, backend } = this.#disk;
    const { clusterSize, cellSize } = shape;
    const unit = kind === "part" ? cellSize : clusterSize;
    const units = Math.floor(Math.min(backend.size, shape.size) / unit);
    if (kind === "flush" || units === 0) {
      await this.#disk.send("flush");
      return;
    }
    const hot = Math.min(units, decisions.chance("anywhere", 1, 3) ? units : 4);
    const at = decisions.choose("place", hot);
    const length = 1 + decisions.choose("length", Math.min(3, units - at));
    const request: Qcow2Request = kind === "part" ? "write" : kind;
    await this.#disk.send(request, at * unit, length * unit);
  }

  /** Each snapshot holds what it has to. */
  async #applyAll(): Promise<void> {
    const { snapshots } = this.#disk;
    for (const name of snapshots.names.slice(0, 3)) {
      await snapshots.apply(name);
      await this.#disk.readAll();
      this.#simulation.sometimes("a snapshot was applied after a crash");
    }
  }

  /** What leaked in crashes is found; then nothing is left to find. */
  async #close(): Promise<void> {
    await this.#operator.repair();
    await this.#disk.readAll();
    await this.#disk.close();
    await this.#simulation.expectNothingPending();
  }
}

function isReference(use: Use | undefined): boolean {
  return use === "L2 table" || use === "L1 table";
}

/** The number of the stage of writing back that a request belongs to, 0 for none. */
function stageOf(operation: string, use: Use | undefined, hasReferences: boolean): number {
  if (operation === "flush") return hasReferences ? 5 : 3;
  if (operation === "discard") return 6;
  if (operation !== "write") return 0;
  if (use === "refcount block") return 1;
  if (use === "refcount table") return 2;
  return isReference(use) ? 4 : 0;
}
