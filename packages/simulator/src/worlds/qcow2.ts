import type { Simulation, World } from "../simulation.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest } from "./guest.ts";
import { Qcow2Disk } from "./qcow2-disk.ts";
import { Qcow2Operator } from "./qcow2-operator.ts";
import { drawShape } from "./qcow2-plan.ts";

/** Clusters by which an image may grow that is written and discarded over and over. */
const GROWTH_MAX = 3;

/**
 * An image of any geometry under guests, snapshots, resizes, checks, faults. Judged by the register oracle, by the
 * image's own check, and by a reader of the structure that knows nothing but the format.
 */
export const qcow2World: World = {
  name: "qcow2",
  situations: [
    "a cluster was discarded while it was written",
    "a freed cluster waited for a late write",
    "clusters were allocated beside a late write",
    "a guest waited for an operation on the image",
    "a snapshot was made",
    "a snapshot was applied",
    "a snapshot was deleted",
    "an image in use was checked",
    "an image was made empty",
    "an image had unknown features",
    "a disk became shorter",
    "a flush lost data",
    "a status was zeroes",
    "an image was opened again",
    "guest request failed with EIO",
    "guest request failed with ENOSPC",
  ],
  run: (simulation) => new Qcow2Life(simulation).live(),
};

class Qcow2Life {
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
    for (let lives = decisions.choose("openings before", 2); lives > 0; lives -= 1) {
      await this.#liveOnce(false);
      if (this.#disk.hasFailed) return;
      this.#simulation.sometimes("an image was opened again");
    }
    await this.#liveOnce(true);
  }

  async #liveOnce(isLast: boolean): Promise<void> {
    const { decisions } = this.#simulation;
    const { medium } = this.#disk;
    await this.#disk.open();
    const drops = decisions.among("flushes that lose data", [0, 0, 0, 20]);
    medium.behaviour = { ...drawBehaviour(decisions, "image"), drops };
    await this.#work();
    if (isLast) this.#simulation.calm();
    else medium.heal();
    await this.#disk.readAll();
    await this.#operator.check();
    if (!this.#disk.hasFailed && decisions.chance("goes round", 1, 4)) await this.#goRound();
    if (this.#disk.hasLost) this.#simulation.sometimes("a flush lost data");
    await this.#disk.close();
    if (isLast) await this.#simulation.expectNothingPending();
  }

  async #work(): Promise<void> {
    const { decisions } = this.#simulation;
    const hotCells = 1 + decisions.choose("hot cells", 16);
    const cellsMax = 1 + decisions.choose("longest request", 16);
    const work: Promise<void>[] = [];
    for (let count = 1 + decisions.choose("guests", 4); count > 0; count -= 1) {
      const guest = this.#guest(`guest ${count}`, hotCells, cellsMax);
      work.push(guest.work(decisions.choose("requests", 10)));
    }
    if (decisions.chance("operator", 2, 3)) {
      work.push(this.#operator.work(1 + decisions.choose("operations", 4)));
    }
    if (decisions.chance("race", 1, 3)) work.push(this.#race());
    if (decisions.chance("asks for the status", 1, 4)) work.push(this.#askStatus());
    if (decisions.chance("drains", 1, 6)) work.push(this.#drain());
    await Promise.all(work);
  }

  #guest(name: string, hotCells: number, cellsMax: number): Guest {
    return new Guest({
      name,
      simulation: this.#simulation,
      oracle: this.#disk.oracle,
      disk: this.#disk.watched(),
      cellsMax,
      hotCells,
      mayFail: (error) => this.#disk.mayFail(error),
    });
  }

  /** A cluster is given up and used again while a write is under way in it. */
  async #race(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const { clusterSize, size } = this.#disk.shape;
    const clusters = Math.floor(size / clusterSize);
    const at = decisions.choose("raced cluster", clusters) * clusterSize;
    await this.#disk.send("write", at, clusterSize);
    let isUnderWay = true;
    const late = this.#disk.send("write", at, clusterSize).then(() => {
      isUnderWay = false;
    });
    for (let turns = decisions.choose("late by", 3); turns > 0; turns -= 1) {
      await scheduler.turn("race");
    }
    const kind = decisions.among("gives up by", ["discard", "zeroes", "compressed"]);
    if (isUnderWay) this.#simulation.sometimes("a cluster was discarded while it was written");
    await this.#disk.send(kind, at, clusterSize);
    if (await this.#disk.send("flush")) {
      if (isUnderWay) this.#simulation.sometimes("a freed cluster waited for a late write");
      const other = decisions.choose("other cluster", clusters) * clusterSize;
      await this.#disk.send("write", other, clusterSize);
      if (isUnderWay) this.#simulation.sometimes("clusters were allocated beside a late write");
    }
    await late;
  }

  async #askStatus(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const { cellSize, size } = this.#disk.shape;
    for (let count = 1 + decisions.choose("status requests", 4); count > 0; count -= 1) {
      await scheduler.turn("before a status");
      const { backend } = this.#disk;
      const offset = decisions.choose("status cell", size / cellSize) * cellSize;
      if (offset < backend.size) await this.#disk.askStatus(offset);
    }
  }

  async #drain(): Promise<void> {
    await this.#simulation.scheduler.turn("before the drain");
    const hold = await this.#disk.graph.node("disk").drain();
    const { inFlight } = this.#disk.medium;
    this.#simulation.expect(inFlight === 0, "drained in flight", () => `${inFlight} requests`);
    await this.#simulation.scheduler.turn("drained");
    hold.end();
  }

  /** What is written and given up again and again takes no more space than once. @see Q2-11 */
  async #goRound(): Promise<void> {
    const { decisions } = this.#simulation;
    const { clusterSize, discard } = this.#disk.shape;
    const { backend, medium } = this.#disk;
    const length = Math.min(backend.size - (backend.size % clusterSize), 2 * clusterSize);
    if (length === 0) return;
    const kind = decisions.among("fills by", ["write", "compressed"]);
    // Discards are not heard there; zeroes that unmap are.
    const clears = discard === "unmap" ? "discard" : "zeroes";
    let first = 0;
    for (let round = 0; round < 8; round += 1) {
      if (round === 2) first = medium.size;
      await this.#disk.send(kind, 0, length);
      if (decisions.chance("flushes between", 1, 2)) await this.#disk.send("flush");
      await this.#disk.send(clears, 0, length);
      await this.#disk.send("flush");
    }
    const grown = (medium.size - first) / clusterSize;
    this.#simulation.expect(grown <= GROWTH_MAX, "grows", () => `by ${grown} clusters`);
  }
}
