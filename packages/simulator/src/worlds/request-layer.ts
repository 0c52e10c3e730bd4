import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import type { BlockError } from "@blocklayer/errors";
import { raw } from "@blocklayer/raw";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest, type GuestDisk } from "./guest.ts";
import { Resizer } from "./resizer.ts";
import { SizeOracle } from "./size-oracle.ts";
import { StatusClient } from "./status-client.ts";

const CELL = 64;
const SECTOR = 512;

/** What is the same in all lives of the process. */
interface Shape {
  readonly alignment: number;
  readonly maxTransfer: number;
  /** Nodes of `raw` above the disk. */
  readonly raws: number;
  /** Bytes of the medium before the disk begins, and behind its end. */
  readonly margin: number;
  /** Bytes, at first. */
  readonly size: number;
  /** Bytes: the longest the disk may become. */
  readonly capacity: number;
  readonly detectZeroes: "off" | "on" | "unmap";
  /** Weight of flushes that lose what they cover. */
  readonly drops: number;
}

/**
 * The request layer of a graph: `raw` over a simulated disk, clients whose requests are not aligned and overlap and who
 * stop waiting, flushes, changes of length, drained sections, faults, crashes. Judged by the register oracle, across
 * crashes too, by a register of the length, and by what is said of zeroes.
 */
export const requestLayerWorld: World = {
  name: "request-layer",
  situations: [
    "a crash lost sectors",
    "a crash tore sectors",
    "a crash undid a change of length",
    "a disk became shorter",
    "a flush lost data",
    "a guest stopped waiting",
    "a status was zeroes",
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
  readonly #sizes: SizeOracle;
  /** Flushes that had lost data when the disk was opened. */
  #lostBefore = 0;

  constructor(simulation: Simulation) {
    const { decisions } = simulation;
    this.#simulation = simulation;
    this.#shape = drawShape(simulation);
    const { size, margin, capacity } = this.#shape;
    this.#medium = simulation.medium({
      name: "medium",
      size: size + 2 * margin,
      capacity: capacity + 2 * margin,
      sectorSize: SECTOR,
      tearSize: decisions.among("torn sectors", [SECTOR, CELL]),
    });
    this.#oracle = new RegisterOracle({ disk: 1, size: capacity, cellSize: CELL });
    this.#sizes = new SizeOracle(size);
  }

  /** One to three lives of the process; all but the last one end in a crash. */
  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    for (let crashes = decisions.choose("crashes", 3); crashes > 0; crashes -= 1) {
      await this.#liveUntilCrash();
    }
    await this.#liveUntilClose();
  }

  get #isResized(): boolean {
    return this.#shape.capacity > this.#shape.size;
  }

  async #liveUntilCrash(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const graph = await this.#open();
    const disk = await this.#backend(graph);
    void this.#work(graph, disk, this.#statusClient(disk));
    // At least one: in a turn of its own nothing of the process is left half done.
    for (let turns = decisions.choose("turns until the crash", 40); turns >= 0; turns -= 1) {
      await scheduler.turn("a moment");
    }
    this.#simulation.crash();
    const { lost, torn, isResized } = this.#medium.crash();
    if (lost > 0) this.#simulation.sometimes("a crash lost sectors");
    if (torn > 0) this.#simulation.sometimes("a crash tore sectors");
    if (isResized) this.#simulation.sometimes("a crash undid a change of length");
    this.#recover();
  }

  async #liveUntilClose(): Promise<void> {
    const graph = await this.#open();
    const disk = await this.#backend(graph);
    const status = this.#statusClient(disk);
    await this.#work(graph, disk, status);
    this.#simulation.calm();
    await this.#readAll(disk);
    await status.askAll((offset) => this.#isHole(this.#shape.margin + offset));
    const { inFlight } = this.#medium;
    this.#simulation.expect(
      inFlight === 0 && disk.inFlight === 0,
      "left in flight",
      () => `${inFlight} requests to the medium, ${disk.inFlight} of the backend`,
    );
    checkGraph(graph);
    await disk.close();
    await this.#close(graph);
    await this.#simulation.expectNothingPending();
  }

  async #open(): Promise<Graph> {
    const { simulation, alignment, maxTransfer, drops } = {
      simulation: this.#simulation,
      ...this.#shape,
    };
    const drivers = [raw, simulatedDisk(new Map([["medium", this.#medium]]))] as const;
    const graph = new Graph({ env: simulation.env, drivers });
    this.#medium.behaviour = { ...drawBehaviour(simulation.decisions, "medium"), drops };
    this.#lostBefore = this.#medium.lostCount;
    simulation.scheduler.reporters.splice(1);
    simulation.scheduler.reporters.push(() => describeGraph(graph));
    await graph.open({
      driver: "x-blocklayer-simulated",
      "node-name": "node-0",
      discard: "unmap",
      medium: "medium",
      "request-alignment": alignment,
      "max-transfer": maxTransfer,
    });
    await this.#openRaws(graph as unknown as Graph);
    return graph as unknown as Graph;
  }

  /** Only the lowest one has a window. */
  async #openRaws(graph: Graph): Promise<void> {
    const { margin, size, detectZeroes, raws } = this.#shape;
    for (let index = 1; index <= raws; index += 1) {
      await graph.open({
        driver: "raw",
        "node-name": `node-${index}`,
        discard: "unmap",
        "detect-zeroes": index === raws ? detectZeroes : "off",
        ...(margin === 0 || index > 1 ? {} : { offset: margin, size }),
        file: `node-${index - 1}`,
      });
    }
  }

  #backend(graph: Graph): Promise<WritableBackend> {
    const node = `node-${this.#shape.raws}`;
    return graph.createBackend({ node, perm: ["consistent-read", "write"] });
  }

  async #close(graph: Graph): Promise<void> {
    const hasLost = this.#hasLost;
    try {
      await graph.close();
    } catch (error) {
      // Whose flush has lost data says so to the end.
      if (!hasLost) throw error;
      this.#simulation.sometimes("a disk that lost data said so when it was closed");
    }
    this.#afterClose(hasLost);
  }

  get #hasLost(): boolean {
    return this.#medium.lostCount > this.#lostBefore;
  }

  /** Clients at work, somebody who drains now and then, and somebody who changes the length. */
  async #work(graph: Graph, backend: WritableBackend, status: StatusClient): Promise<void> {
    const { decisions } = this.#simulation;
    const disk = this.#watched(backend);
    const hotCells = 1 + decisions.choose("hot cells", 16);
    const cellsMax = 1 + decisions.choose("longest request", 24);
    const isImpatient = decisions.chance("impatience", 1, 3);
    const guest = (name: string): Guest =>
      new Guest({
        name,
        simulation: this.#simulation,
        oracle: this.#oracle,
        disk,
        cellsMax,
        hotCells,
        mayFail: (error) => this.#mayFail(error),
        isImpatient,
      });
    const work: Promise<void>[] = [];
    for (let count = 1 + decisions.choose("clients", 3); count > 0; count -= 1) {
      work.push(guest(`client ${count}`).work(decisions.choose("requests", 12)));
    }
    if (decisions.chance("drains", 1, 3)) work.push(this.#drain(backend));
    if (decisions.chance("asks for the status", 1, 2)) {
      work.push(status.work(1 + decisions.choose("status requests", 6), hotCells));
    }
    if (this.#isResized) work.push(this.#resize(graph, disk.flush));
    await Promise.all(work);
    if (decisions.chance("makes a hole", 1, 4)) await this.#punch(guest("last client"), status);
  }

  /** Makes a hole while somebody asks for it: what was known of the place must be forgotten. */
  async #punch(guest: Guest, status: StatusClient): Promise<void> {
    const unit = Math.max(this.#shape.alignment, SECTOR);
    const offset = unit * this.#simulation.decisions.choose("hole", 2);
    await Promise.all([status.ask(offset, unit), guest.punch(offset, unit)]);
  }

  /** Requests of what is cut off meanwhile fail, too. */
  #mayFail(error: BlockError): boolean {
    return this.#medium.faultCount > 0 || (this.#isResized && error.code === "EIO");
  }

  /** The disk as guests see it: flushes count for its length too, and none succeeds once data was lost. */
  #watched(disk: WritableBackend): GuestDisk {
    const flush = async (): Promise<void> => {
      const succeeded = this.#sizes.beginFlush();
      const hasLost = this.#hasLost;
      await disk.flush();
      succeeded();
      if (hasLost) this.#simulation.fail("flushed too late", "an earlier flush has lost data");
    };
    return {
      get size() {
        return disk.size;
      },
      read: (...request) => disk.read(...request),
      write: (...request) => disk.write(...request),
      writev: (...request) => disk.writev(...request),
      writeZeroes: (...request) => disk.writeZeroes(...request),
      discard: (...request) => disk.discard(...request),
      flush,
    };
  }

  #statusClient(disk: WritableBackend): StatusClient {
    return new StatusClient({
      simulation: this.#simulation,
      oracle: this.#oracle,
      disk,
      storedFrom: this.#shape.margin,
      isResized: this.#isResized,
    });
  }

  /** A user of its own changes the length, so that others may not write beyond the end. */
  async #resize(graph: Graph, flush: () => Promise<void>): Promise<void> {
    const { alignment, capacity, raws } = this.#shape;
    const disk = await graph.createBackend({ node: `node-${raws}`, perm: ["resize"] });
    const resizer = new Resizer({
      simulation: this.#simulation,
      oracle: this.#oracle,
      sizes: this.#sizes,
      disk,
      flush,
      unit: Math.max(alignment, CELL),
      capacity,
      mayFail: () => this.#medium.faultCount > 0,
    });
    await resizer.work(this.#simulation.decisions.choose("resizes", 4));
    await disk.close();
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
    const { size } = disk;
    const operation = this.#oracle.begin("read", 0, size);
    const buffer = new Uint8Array(size);
    await disk.read(0, buffer);
    const problem = this.#oracle.check(operation, buffer) ?? this.#sizes.check(size);
    this.#oracle.end(operation, true);
    if (problem !== undefined) this.#simulation.fail("wrong data at the end", problem);
  }

  #isHole(offset: number): boolean {
    const unit = Math.max(this.#shape.alignment, SECTOR);
    return this.#medium.runAt(offset, 1, unit).isHole;
  }

  /** What was closed well lost nothing, and nobody wrote outside of the disk. */
  #afterClose(hasLost: boolean): void {
    const { isStable, dirtySectors, visible } = this.#medium.cache;
    this.#simulation.expect(
      isStable || hasLost,
      "not stable after close",
      () => `${dirtySectors} sectors`,
    );
    if (hasLost) this.#simulation.sometimes("a flush lost data");
    const { margin, size } = this.#shape;
    if (margin === 0) return;
    const outside = [visible.subarray(0, margin), visible.subarray(margin + size)];
    this.#simulation.expect(
      outside.every((part) => part.every((byte) => byte === 0)),
      "wrote outside of its window",
      () => `the disk has ${size} bytes from ${margin}`,
    );
  }

  #recover(): void {
    const { margin, size, capacity } = this.#shape;
    const { visible } = this.#medium.cache;
    const content = new Uint8Array(capacity);
    content.set(visible.subarray(margin, margin === 0 ? undefined : margin + size));
    const problem =
      this.#oracle.recover(content) ?? this.#sizes.recover(visible.length - 2 * margin);
    if (problem !== undefined) this.#simulation.fail("wrong data after a crash", problem);
  }
}

function drawShape({ decisions }: Simulation): Shape {
  const alignment = decisions.among("alignment", [512, 1, 2048]);
  const maxTransfer = decisions.among("max transfer", [0, 4096, 2048]);
  const raws = decisions.among("layers of raw", [1, 0, 2]);
  const margin = raws === 0 ? 0 : decisions.among("margin", [0, 4096, 2048]);
  const size = 2048 * (2 + decisions.choose("size", 5));
  // A window of fixed size keeps it.
  const room = margin === 0 ? 2048 * decisions.choose("room to grow", 4) : 0;
  const detectZeroes = decisions.among("detect zeroes", ["off", "on", "unmap"]);
  const drops = decisions.among("flushes that lose data", [0, 0, 20]);
  const capacity = size + room;
  return { alignment, maxTransfer, raws, margin, size, capacity, detectZeroes, drops };
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
