import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { RequestFlag, type SnapshotStore, StatusFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { qcow2Definition } from "@blocklayer/qcow2";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { type OracleImage, type OracleKind, RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";
import type { GuestDisk } from "./guest.ts";
import {
  hasUnknownExtension,
  madeImage,
  runLengths,
  UNKNOWN_AUTOCLEAR,
  UNKNOWN_COMPATIBLE,
} from "./qcow2-images.ts";
import type { Qcow2Shape } from "./qcow2-plan.ts";
import { Qcow2Snapshots } from "./qcow2-snapshots.ts";
import { describeProblems, readStructure, type StructureReport } from "./qcow2-structure.ts";
import { describeGraph } from "./request-layer.ts";
import { SizeOracle } from "./size-oracle.ts";

/** What a client asks for beside its disk requests. */
export type Qcow2Request = Exclude<OracleKind, "read"> | "compressed" | "flush";

/** The medium of an image, and everything that judges it; it outlives the process. */
export class Qcow2Disk {
  readonly simulation: Simulation;
  readonly shape: Qcow2Shape;
  readonly oracle: RegisterOracle;
  readonly sizes: SizeOracle;
  readonly snapshots: Qcow2Snapshots;
  /** What an empty image shows: the backing file. */
  readonly initial: OracleImage;
  readonly #base: Uint8Array | undefined;
  #medium: Medium | undefined;
  #baseMedium: Medium | undefined;
  #graph: Graph | undefined;
  #backend: WritableBackend | undefined;
  /** Counts may be too high since a crash. */
  isLeaky: boolean = false;
  #faultsBefore = 0;
  #lostBefore = 0;
  /** Requests of guests that run. */
  #running = 0;
  /** Changes of guests that succeeded since the image was opened. */
  #changes = 0;

  constructor(simulation: Simulation, shape: Qcow2Shape) {
    const { size, capacity, cellSize, backingSize } = shape;
    this.simulation = simulation;
    this.shape = shape;
    this.oracle = new RegisterOracle({ disk: 1, size: capacity, cellSize });
    if (backingSize > 0) {
      const first = this.oracle.begin("write", 0, backingSize);
      this.#base = this.oracle.payload(first);
      this.oracle.end(first, true, true);
    }
    this.initial = this.oracle.beginCapture()();
    // What a longer backing file has behind the end of the disk is seen only once the image was made empty.
    if (backingSize > size) {
      const hidden = this.oracle.begin("zeroes", size, capacity - size);
      this.oracle.end(hidden, true, true);
    }
    this.sizes = new SizeOracle(size);
    this.snapshots = new Qcow2Snapshots(this);
  }

  /** Makes the image and what is below it. */
  async make(): Promise<void> {
    const { simulation, shape } = this;
    this.#medium = this.#mediumOf("image", await madeImage(shape, shape.size));
    if (this.#base === undefined) return;
    const { backing } = shape;
    const plain = { ...shape, hasUnknown: false, isCrowded: false };
    const base =
      backing === "raw" ? this.#base : await madeImage(plain, shape.backingSize, this.#base);
    this.#baseMedium = this.#mediumOf("base", base);
    simulation.trace.note(`backing ${backing}`);
  }

  #mediumOf(name: string, content: Uint8Array): Medium {
    const medium = this.simulation.medium({ name, size: content.length, grows: true });
    medium.format(content);
    return medium;
  }

  get medium(): Medium {
    if (this.#medium === undefined) throw new Error("the image was not made");
    return this.#medium;
  }

  get graph(): Graph {
    if (this.#graph === undefined) throw new Error("the image is not open");
    return this.#graph;
  }

  get backend(): WritableBackend {
    if (this.#backend === undefined) throw new Error("the image is not open");
    return this.#backend;
  }

  get store(): SnapshotStore {
    const { snapshots } = this.graph.node("disk").driver;
    if (snapshots === undefined) throw new Error("the image has no snapshots");
    return snapshots;
  }

  /** Whether a request to a medium was made to fail since the image was opened. */
  get hasFailed(): boolean {
    return this.medium.faultCount + (this.#baseMedium?.faultCount ?? 0) > this.#faultsBefore;
  }

  get hasLost(): boolean {
    return this.medium.lostCount > this.#lostBefore;
  }

  /** Opens the image; nothing fails yet. */
  async open(): Promise<void> {
    const { simulation, shape } = this;
    this.medium.heal();
    const media = new Map([["image", this.medium]]);
    if (this.#baseMedium !== undefined) media.set("base", this.#baseMedium);
    const drivers = [qcow2Definition({ codecs: runLengths }), simulatedDisk(media)] as const;
    const graph = new Graph({ env: simulation.env, drivers });
    simulation.scheduler.reporters.splice(1);
    simulation.scheduler.reporters.push(() => describeGraph(graph as unknown as Graph));
    const base = { driver: "x-blocklayer-simulated", medium: "base", discard: "unmap" } as const;
    if (shape.backing === "raw") await graph.open({ ...base, "node-name": "base" });
    if (shape.backing === "qcow2") {
      await graph.open({ driver: "qcow2", "node-name": "base", "read-only": true, file: base });
    }
    await graph.open({
      driver: "qcow2",
      "node-name": "disk",
      discard: shape.discard,
      ...shape.options,
      file: { driver: "x-blocklayer-simulated", medium: "image", discard: "unmap" },
      ...(shape.backing === "none" ? {} : { backing: "base" }),
    });
    this.#graph = graph as unknown as Graph;
    this.#backend = await graph.createBackend({ node: "disk", perm: ["consistent-read", "write"] });
    this.#faultsBefore = this.medium.faultCount + (this.#baseMedium?.faultCount ?? 0);
    this.#lostBefore = this.medium.lostCount;
    this.#changes = 0;
    await this.snapshots.opened();
  }

  /** The disk as guests see it: whole clusters are compressed now and then, and holes in whole clusters read as zeroes. */
  watched(): GuestDisk {
    const { backend: disk, shape, simulation } = this;
    const change = async (work: Promise<void>): Promise<void> => {
      this.#running += 1;
      try {
        await work;
        this.#changes += 1;
      } finally {
        this.#running -= 1;
      }
    };
    return {
      get size() {
        return disk.size;
      },
      read: (...request) => disk.read(...request),
      write: (offset, buffer, options) => {
        const isWhole = (offset | buffer.length) % shape.clusterSize === 0;
        const isPacked = isWhole && simulation.decisions.chance("compressed", 1, 3);
        const flags = (options?.flags ?? 0) | (isPacked ? RequestFlag.compressed : 0);
        return change(disk.write(offset, buffer, { ...options, flags }));
      },
      writev: (...request) => change(disk.writev(...request)),
      writeZeroes: (...request) => change(disk.writeZeroes(...request)),
      discard: (...request) => disk.discard(...request),
      flush: () => this.#flush(),
    };
  }

  /** Whether a request of a guest may fail so. */
  mayFail(error: BlockError): boolean {
    const isResized = this.shape.capacity > this.shape.size;
    const isPacked = error.message.includes("compressed ones are written once");
    const isCut = isResized && error.code === "EIO" && /ends beyond|outside of/.test(error.message);
    return this.hasFailed || isPacked || isCut;
  }

  /** One request of a client that goes its own way. Never rejects: what may not happen is a finding. */
  async send(kind: Qcow2Request, offset = 0, length = 0): Promise<boolean> {
    const { oracle, simulation } = this;
    if (kind === "flush") return await this.attempt("flush", () => this.#flush());
    const operation = oracle.begin(this.#kindOf(kind, offset, length), offset, length);
    const isPacked = kind === "compressed";
    const succeeded = await this.attempt(`${kind} ${offset}+${length}`, async () => {
      const { backend } = this;
      if (kind === "discard") await backend.discard(offset, length);
      else if (kind === "zeroes") {
        const unmaps = simulation.decisions.chance("unmaps", 1, 2);
        const flags = unmaps ? RequestFlag.mayUnmap : 0;
        await backend.writeZeroes(offset, length, { flags });
      } else {
        const flags = isPacked ? RequestFlag.compressed : 0;
        await backend.write(offset, oracle.payload(operation), { flags });
      }
    });
    oracle.end(operation, succeeded);
    if (succeeded && kind !== "discard") this.#changes += 1;
    return succeeded;
  }

  /** A hole of whole clusters reads as zeroes once it was made; what else is discarded may stay. */
  #kindOf(kind: Qcow2Request, offset: number, length: number): OracleKind {
    const { shape } = this;
    if (kind !== "discard") return kind === "zeroes" ? "zeroes" : "write";
    const isWhole = (offset | length) % shape.clusterSize === 0;
    const isHeard =
      shape.discard === "unmap" && (shape.version === "v3" || shape.backing === "none");
    return isWhole && isHeard ? "zeroes" : "discard";
  }

  /** Names an operation and judges how it failed. */
  attempt(
    name: string,
    work: () => Promise<unknown>,
    mayFail: (error: BlockError) => boolean = (error) => this.mayFail(error),
  ): Promise<boolean> {
    const { simulation } = this;
    return simulation.operation(name, async () => {
      try {
        await work();
        return true;
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        simulation.sometimes(`${name.split(" ")[0] ?? name} failed with ${error.code}`);
        const what = (): string => `${name}: ${error.code} ${error.message}`;
        simulation.expect(mayFail(error), "error from nowhere", what);
        return false;
      }
    });
  }

  /** As {@link attempt}, for what is done to the whole image: whoever drains it waits for the end. */
  async attemptWhole(
    name: string,
    work: () => Promise<unknown>,
    mayFail?: (error: BlockError) => boolean,
  ): Promise<boolean> {
    using _ = this.graph.node("disk").holdInFlight();
    const before = this.#running;
    const succeeded = await this.attempt(name, work, mayFail);
    const isBusy = before > 0 && this.#running > 0;
    if (isBusy) this.simulation.sometimes("a guest waited for an operation on the image");
    return succeeded;
  }

  async #flush(): Promise<void> {
    const covered = this.oracle.beginFlush();
    const sizes = this.sizes.beginFlush();
    const { hasLost } = this;
    await this.backend.flush();
    covered();
    sizes();
    this.simulation.expect(!hasLost, "flushed too late", () => "an earlier flush has lost data");
  }

  /** Reads all of the disk and judges it. */
  async readAll(): Promise<Uint8Array> {
    const { backend, oracle, simulation } = this;
    const operation = oracle.begin("read", 0, backend.size);
    const buffer = new Uint8Array(backend.size);
    const read = (): Promise<boolean> => this.attempt("last read", () => backend.read(0, buffer));
    // Once more: a table may have been on its way, and failed. Where a flush has lost data there is no room for tables.
    const succeeded = (await read()) || (await read());
    simulation.expect(succeeded || this.hasLost, "error while calm", () => "the disk is not read");
    const problem = oracle.check(operation, buffer) ?? this.sizes.check(backend.size);
    oracle.end(operation, true);
    if (!succeeded) return buffer;
    if (problem !== undefined) simulation.fail("wrong data at the end", problem);
    return buffer;
  }

  /** Asks what is stored where: what is said to be zeroes is zeroes. */
  async askStatus(offset: number): Promise<void> {
    const { backend, oracle, simulation } = this;
    const length = backend.size - offset;
    const operation = oracle.begin("read", offset, length);
    await this.attempt(`status ${offset}`, async () => {
      const status = await backend.blockStatus(offset, length);
      if ((status.flags & StatusFlag.zero) === 0) return;
      const run = { ...operation, length: status.length };
      const problem = oracle.check(run, new Uint8Array(status.length));
      if (problem !== undefined) simulation.fail("not zeroes", `status of ${offset}: ${problem}`);
      simulation.sometimes("a status was zeroes");
    });
    oracle.end(operation, true);
  }

  /** Looks at the image as it would be if the power failed now and everything, or nothing, of what is cached was lost. */
  inspect(isClean: boolean): StructureReport {
    const { cache } = this.medium;
    if (!cache.isStable && cache.possibleSizes.length === 1) {
      this.#judge(readStructure(stableBytes(this.medium)), "if all was lost", false);
    }
    const report = readStructure(cache.visible);
    this.#judge(report, "as it is", isClean);
    return report;
  }

  #judge(report: StructureReport, when: string, isClean: boolean): void {
    const { simulation } = this;
    const problems = isClean
      ? [...report.problems, ...report.leaks, ...report.marks, ...(report.isDirty ? ["dirty"] : [])]
      : report.problems;
    const problem = describeProblems(problems);
    if (problem !== undefined) simulation.fail("structure", `${when}: ${problem}`);
    simulation.expect(!report.isCorrupt, "structure", () => `${when}: marked as corrupt`);
  }

  /** What nobody knows stays, or is gone if a change may have made it untrue. */
  judgeUnknown(): void {
    if (!this.shape.hasUnknown) return;
    const { visible } = this.medium.cache;
    const { compatible, autoclear } = readStructure(visible);
    const isKept = (compatible & UNKNOWN_COMPATIBLE) !== 0 && hasUnknownExtension(visible);
    this.simulation.expect(isKept, "unknown features", () => "what others know was dropped");
    const isStale = this.#changes > 0 && (autoclear & UNKNOWN_AUTOCLEAR) !== 0;
    this.simulation.expect(!isStale, "unknown features", () => "a bit that has to go is still set");
    this.simulation.sometimes("an image had unknown features");
  }

  /** Closes everything. Afterwards the image is as if nobody had it open. */
  async close(): Promise<void> {
    const { graph, simulation } = this;
    checkGraph(graph);
    const { hasFailed } = this;
    try {
      await this.backend.close();
      await graph.close();
    } catch (error) {
      if (!hasFailed) throw error;
    }
    const { inFlight, cache } = this.medium;
    simulation.expect(inFlight === 0, "left in flight", () => `${inFlight} requests`);
    simulation.expect(
      cache.isStable || this.hasLost,
      "not stable after close",
      () => `${cache.dirtySectors} sectors`,
    );
    this.inspect(!(hasFailed || this.isLeaky));
    this.judgeUnknown();
  }

  /** The disk after a crash: the image was opened again. */
  async recover(): Promise<void> {
    const { backend, oracle, sizes, simulation, shape } = this;
    const content = new Uint8Array(shape.capacity);
    await backend.read(0, content.subarray(0, backend.size));
    const problem = oracle.recover(content) ?? sizes.recover(backend.size);
    if (problem !== undefined) simulation.fail("wrong data after a crash", problem);
  }
}

/** What a medium holds if nothing of what is cached gets there. */
export function stableBytes({ cache }: Medium): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(cache.size / cache.sectorSize) * cache.sectorSize);
  for (let at = 0; at < bytes.length; at += cache.sectorSize) {
    bytes.set(cache.version(at / cache.sectorSize, 0).subarray(0, bytes.length - at), at);
  }
  return bytes.subarray(0, cache.possibleSizes[0]);
}
