import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { raw } from "@blocklayer/raw";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest } from "./guest.ts";

const CELL = 64;
const SECTOR = 512;

/** What is the same in all lives of the process. */
interface Shape {
  readonly alignment: number;
  readonly maxTransfer: number;
  /** Bytes of the medium before the disk begins, and behind its end. */
  readonly margin: number;
  /** Bytes. */
  readonly size: number;
  readonly detectZeroes: "off" | "on" | "unmap";
}

/**
 * The request layer of a graph: `raw` over a simulated disk, clients whose requests are not aligned and overlap,
 * flushes, drained sections, faults, crashes. Judged by the register oracle, across crashes too.
 */
export const requestLayerWorld: World = {
  name: "request-layer",
  situations: [
    "a crash lost sectors",
    "a crash tore sectors",
    "guest request failed with EIO",
    "guest request failed with ENOSPC",
  ],
  run: (simulation) => new RequestLayer(simulation).live(),
};

class RequestLayer {
  readonly #simulation: Simulation;
  readonly #shape: Shape;
  readonly #medium: Medium;
  readonly #oracle: RegisterOracle;

  constructor(simulation: Simulation) {
    const { decisions } = simulation;
    this.#simulation = simulation;
    this.#shape = drawShape(simulation);
    const { size, margin } = this.#shape;
    this.#medium = simulation.medium({
      name: "medium",
      size: size + 2 * margin,
      sectorSize: SECTOR,
      tearSize: decisions.among("torn sectors", [SECTOR, CELL]),
    });
    this.#oracle = new RegisterOracle({ disk: 1, size, cellSize: CELL });
  }

  /** One to three lives of the process; all but the last one end in a crash. */
  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    for (let crashes = decisions.choose("crashes", 3); crashes > 0; crashes -= 1) {
      await this.#liveUntilCrash();
    }
    await this.#liveUntilClose();
  }

  async #liveUntilCrash(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const graph = await this.#open();
    void this.#work(await this.#backend(graph));
    // At least one: in a turn of its own nothing of the process is left half done.
    for (let turns = decisions.choose("turns until the crash", 40); turns >= 0; turns -= 1) {
      await scheduler.turn("a moment");
    }
    this.#simulation.crash();
    const { lost, torn } = this.#medium.crash();
    if (lost > 0) this.#simulation.sometimes("a crash lost sectors");
    if (torn > 0) this.#simulation.sometimes("a crash tore sectors");
    this.#recover();
  }

  async #liveUntilClose(): Promise<void> {
    const graph = await this.#open();
    const disk = await this.#backend(graph);
    await this.#work(disk);
    this.#simulation.calm();
    await this.#readAll(disk);
    const { inFlight } = this.#medium;
    this.#simulation.expect(
      inFlight === 0 && disk.inFlight === 0,
      "left in flight",
      () => `${inFlight} requests to the medium, ${disk.inFlight} of the backend`,
    );
    checkGraph(graph);
    await disk.close();
    await graph.close();
    this.#afterClose();
    await this.#simulation.expectNothingPending();
  }

  async #open(): Promise<Graph> {
    const { simulation, alignment, maxTransfer, margin, size, detectZeroes } = {
      simulation: this.#simulation,
      ...this.#shape,
    };
    const drivers = [raw, simulatedDisk(new Map([["medium", this.#medium]]))] as const;
    const graph = new Graph({ env: simulation.env, drivers });
    this.#medium.behaviour = drawBehaviour(simulation.decisions, "medium");
    simulation.scheduler.reporters.splice(1);
    simulation.scheduler.reporters.push(() => describeGraph(graph));
    await graph.open({
      driver: "raw",
      "node-name": "disk",
      discard: "unmap",
      "detect-zeroes": detectZeroes,
      ...(margin === 0 ? {} : { offset: margin, size }),
      file: {
        driver: "x-blocklayer-simulated",
        "node-name": "file",
        discard: "unmap",
        medium: "medium",
        "request-alignment": alignment,
        "max-transfer": maxTransfer,
      },
    });
    return graph as unknown as Graph;
  }

  #backend(graph: Graph): Promise<WritableBackend> {
    return graph.createBackend({ node: "disk", perm: ["consistent-read", "write"] });
  }

  /** Clients at work, and somebody who drains now and then. */
  async #work(disk: WritableBackend): Promise<void> {
    const { decisions } = this.#simulation;
    const hotCells = 1 + decisions.choose("hot cells", 16);
    const cellsMax = 1 + decisions.choose("longest request", 24);
    const work: Promise<void>[] = [];
    for (let count = 1 + decisions.choose("clients", 3); count > 0; count -= 1) {
      const guest = new Guest({
        name: `client ${count}`,
        simulation: this.#simulation,
        oracle: this.#oracle,
        disk,
        cellsMax,
        hotCells,
        mayFail: () => this.#medium.faultCount > 0,
      });
      work.push(guest.work(decisions.choose("requests", 12)));
    }
    if (decisions.chance("drains", 1, 3)) work.push(this.#drain(disk));
    await Promise.all(work);
  }

  async #drain(disk: WritableBackend): Promise<void> {
    const { node } = disk;
    if (node === undefined) return;
    await this.#simulation.scheduler.turn("before the drain");
    await this.#simulation.operation("drain", async () => {
      const hold = await node.drain();
      const { inFlight } = this.#medium;
      this.#simulation.expect(
        inFlight === 0 && disk.inFlight === 0,
        "drained in flight",
        () => `${inFlight} requests to the medium, ${disk.inFlight} of the backend`,
      );
      await this.#simulation.scheduler.turn("drained");
      hold.end();
    });
  }

  async #readAll(disk: WritableBackend): Promise<void> {
    const operation = this.#oracle.begin("read", 0, disk.size);
    const buffer = new Uint8Array(disk.size);
    await disk.read(0, buffer);
    const problem = this.#oracle.check(operation, buffer);
    this.#oracle.end(operation, true);
    if (problem !== undefined) this.#simulation.fail("wrong data at the end", problem);
  }

  /** What was closed well lost nothing, and nobody wrote outside of the disk. */
  #afterClose(): void {
    const { dirtySectors, visible } = this.#medium.cache;
    this.#simulation.expect(
      dirtySectors === 0,
      "not stable after close",
      () => `${dirtySectors} sectors`,
    );
    const { margin, size } = this.#shape;
    const outside = [visible.subarray(0, margin), visible.subarray(margin + size)];
    this.#simulation.expect(
      outside.every((part) => part.every((byte) => byte === 0)),
      "wrote outside of its window",
      () => `the disk has ${size} bytes from ${margin}`,
    );
  }

  #recover(): void {
    const { margin, size } = this.#shape;
    const content = this.#medium.cache.visible.slice(margin, margin + size);
    const problem = this.#oracle.recover(content);
    if (problem !== undefined) this.#simulation.fail("wrong data after a crash", problem);
  }
}

function drawShape({ decisions }: Simulation): Shape {
  const alignment = decisions.among("alignment", [512, 1, 2048]);
  const maxTransfer = decisions.among("max transfer", [0, 4096, 2048]);
  const margin = decisions.among("margin", [0, 4096, 2048]);
  const size = 2048 * (2 + decisions.choose("size", 5));
  const detectZeroes = decisions.among("detect zeroes", ["off", "on", "unmap"]);
  return { alignment, maxTransfer, margin, size, detectZeroes };
}

/** Says what is in flight where, for the report of a deadlock. */
export function describeGraph(graph: Graph): string[] {
  return graph.nodes().map((node) => {
    const requests = node.io
      .requestsInFlight()
      .map((at) => `${at.kind} ${at.offset}+${at.length}${at.isWaiting ? " waits" : ""}`);
    const drained = node.quiesceCount > 0 ? `, drained ${node.quiesceCount} times` : "";
    return `node '${node.name}': ${node.io.inFlight} in flight (${requests.join(", ")})${drained}`;
  });
}
