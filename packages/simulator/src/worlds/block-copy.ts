import { BlockCopy, type CopyCall } from "@blocklayer/block-copy";
import { checkGraph, type Edge, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { ALL_PERMISSIONS, Permissions } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { HBitmap } from "@blocklayer/hbitmap";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { BlockCopyOracle } from "./block-copy-oracle.ts";
import { type BlockCopyPlan, CELL, drawBlockCopyPlan } from "./block-copy-plan.ts";
import { CopyCallers } from "./copy-callers.ts";
import { CopyWatch } from "./copy-watch.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { describeGraph } from "./request-layer.ts";

/**
 * The copy engine by itself: writers that have clusters copied before they overwrite them, calls in the background,
 * cancelled, slowed down and kicked, ranges given up, a layer scanned, disks that fail and come back, little memory.
 * Judged by the images of the instant in which each round began, by every request of the engine, by the counters, and
 * by what is left behind.
 */
export const blockCopyWorld: World = {
  name: "block-copy",
  situations: [
    "a call failed with EIO",
    "a call failed with ENOSPC",
    "a call failed with ETIMEDOUT",
    "a call was cancelled",
    "a cancelled call had still to copy",
    "a call waited for the speed limit",
    "a range was given up while a task ran",
    "the layer does not hold a cluster",
    "everything began anew",
    "a disk was gone",
  ],
  run: (simulation) => new BlockCopyLife(simulation).live(),
};

class BlockCopyLife {
  readonly #simulation: Simulation;
  readonly #plan: BlockCopyPlan;
  readonly #source: Medium;
  readonly #target: Medium;
  readonly #graph: Graph;
  readonly #writes: RegisterOracle;
  readonly #watch: CopyWatch;
  readonly #oracle: BlockCopyOracle;
  readonly #edges: Edge[] = [];
  #disk: WritableBackend | undefined;

  constructor(simulation: Simulation) {
    const { decisions, env } = simulation;
    this.#simulation = simulation;
    const plan = drawBlockCopyPlan(decisions);
    this.#plan = plan;
    this.#source = simulation.medium({ name: "source", size: plan.size, sectorSize: CELL });
    this.#target = simulation.medium({ name: "target", size: plan.size, sectorSize: CELL });
    const media = { source: this.#source, target: this.#target };
    const drivers = [simulatedDisk(new Map(Object.entries(media)))] as const;
    this.#graph = new Graph({ env, drivers }) as unknown as Graph;
    this.#writes = new RegisterOracle({ disk: 1, size: plan.size, cellSize: CELL });
    this.#oracle = new BlockCopyOracle(simulation, plan, media);
    this.#watch = new CopyWatch(simulation, plan, {
      isWanted: (at) => this.#oracle.isWanted(at),
      discarding: (offset, length) => {
        const operation = this.#writes.begin("discard", offset, length);
        return (succeeded) => this.#writes.end(operation, succeeded);
      },
    });
    simulation.scheduler.reporters.push(() => describeGraph(this.#graph));
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    const { rounds } = this.#plan;
    this.#fill();
    const engine = await this.#open();
    for (let round = 1; round <= rounds; round += 1) {
      if (round > 1) this.#simulation.sometimes("everything began anew");
      this.#begin(engine, round > 1);
      this.#source.behaviour = drawBehaviour(decisions, "source");
      this.#target.behaviour = drawBehaviour(decisions, "target");
      await this.#work(engine);
      this.#oracle.expectNothingLost(engine);
      this.#oracle.expectIdle(engine, this.#watch);
    }
    await this.#finish(engine);
    await this.#close();
  }

  /** Puts stamped content on the source, where it holds any. */
  #fill(): void {
    const { size, clusterSize, isFilled, stale } = this.#plan;
    const half = clusterSize / 2;
    const content = new Uint8Array(size);
    for (const [index, filled] of isFilled.entries()) {
      const offset = index * half;
      if (!filled || offset >= size) continue;
      const length = Math.min(half, size - offset);
      const operation = this.#writes.begin("write", offset, length);
      content.set(this.#writes.payload(operation), offset);
      this.#writes.end(operation, true, true);
    }
    this.#source.format(content);
    if (stale !== 0) this.#target.format(new Uint8Array(size).fill(stale));
  }

  async #open(): Promise<BlockCopy> {
    const { sourceAlignment, targetAlignment, targetMaxTransfer } = this.#plan;
    const graph = this.#graph;
    await graph.open({
      driver: "x-blocklayer-simulated",
      "node-name": "source",
      medium: "source",
      discard: "unmap",
      "request-alignment": sourceAlignment,
    });
    await graph.open({
      driver: "x-blocklayer-simulated",
      "node-name": "target",
      medium: "target",
      discard: "unmap",
      "request-alignment": targetAlignment,
      "max-transfer": targetMaxTransfer,
    });
    this.#disk = await graph.createBackend({ node: "source", perm: ["consistent-read", "write"] });
    const source = await this.#attach("source");
    const target = await this.#attach("target");
    const { clusterSize, copyRange, discardsSource, isSerialising } = this.#plan;
    const engine = new BlockCopy({
      env: this.#engineEnv(),
      source: this.#watch.source(source, target),
      target: this.#watch.target(target),
      clusterSize,
      serialising: isSerialising,
      onSkip: (offset, length) => this.#oracle.skipped(offset, length, this.#watch),
    });
    engine.setOptions({ useCopyRange: copyRange !== "off", compress: false });
    engine.setDiscardSource(discardsSource);
    engine.setProgress(this.#oracle);
    return engine;
  }

  /** The plan says how much memory there is; released buffers are poisoned now and then. */
  #engineEnv(): Env {
    const { decisions, env } = this.#simulation;
    const { hasTightMemory } = this.#plan;
    return {
      ...env,
      buggify: (site) =>
        site === "tight copy memory" ? hasTightMemory : decisions.chance(`buggify ${site}`, 1, 2),
    };
  }

  async #attach(node: string): Promise<Edge> {
    const parent = { kind: "other", describe: () => "the copy" } as const;
    const edge = await this.#graph.attachRoot(parent, this.#graph.node(node), {
      name: node,
      perm: Permissions.consistentRead | Permissions.write,
      shared: ALL_PERMISSIONS,
    });
    this.#edges.push(edge);
    return edge;
  }

  /** A round begins: everything, or some clusters, have to be copied. */
  #begin(engine: BlockCopy, isAgain: boolean): void {
    const { decisions } = this.#simulation;
    const { size, clusterSize, clusterCount } = this.#plan;
    const initial = new HBitmap(size, CELL);
    const isPart = isAgain && decisions.chance("only what is marked", 2, 3);
    const wanted: number[] = [];
    for (let cluster = 0; cluster < clusterCount; cluster += 1) {
      const at = cluster * clusterSize;
      if (isPart && decisions.chance("not marked", 1, 2)) continue;
      wanted.push(at);
      initial.set(Math.min(at + clusterSize, size) - CELL, CELL);
    }
    this.#watch.restart();
    this.#oracle.begin(wanted);
    if (isAgain) engine.restart(isPart ? initial : undefined);
  }

  #callers(engine: BlockCopy): CopyCallers {
    const disk = this.#disk;
    assert(disk !== undefined, "the disk is open");
    return new CopyCallers({
      simulation: this.#simulation,
      plan: this.#plan,
      engine,
      disk,
      watch: this.#watch,
      oracle: this.#oracle,
      writes: this.#writes,
      media: [this.#source, this.#target],
    });
  }

  /** Everybody at work, until nobody is. */
  async #work(engine: BlockCopy): Promise<void> {
    const { decisions } = this.#simulation;
    const callers = this.#callers(engine);
    const work: Promise<void>[] = [];
    if (this.#plan.isPresent !== undefined) work.push(callers.scan());
    for (let count = decisions.choose("writers", 4); count > 0; count -= 1) {
      work.push(callers.write(`writer ${count}`, decisions.choose("writes", 6)));
    }
    for (let count = 1 + decisions.choose("background calls", 2); count > 0; count -= 1) {
      work.push(callers.copyInBackground(`background ${count}`));
    }
    if (decisions.chance("gives up ranges", 1, 3)) work.push(callers.giveUp());
    if (decisions.chance("disturbs", 1, 2)) work.push(callers.disturb());
    await Promise.all(work);
    await this.#simulation.operation("ends of writers' calls", () => callers.whenEnded());
    engine.setSpeed(0);
  }

  /** Nothing fails any more: what is left is copied at the first attempt. */
  async #finish(engine: BlockCopy): Promise<void> {
    this.#simulation.calm();
    const length = this.#plan.clusterCount * this.#plan.clusterSize;
    const call: CopyCall = engine.start(0, length, { maxWorkers: 2, maxChunk: 0 });
    await this.#simulation.operation("last copy", () => call.done);
    this.#simulation.expect(
      call.succeeded,
      "copy failed",
      () => `with nothing that fails: ${String(call.error)}`,
    );
    await this.#simulation.operation("idle", () => engine.whenIdle());
    this.#oracle.expectCopied({ engine, watch: this.#watch }, 0, length);
    this.#oracle.expectIdle(engine, this.#watch);
  }

  async #close(): Promise<void> {
    const disk = this.#disk;
    assert(disk !== undefined, "the disk is open");
    const operation = this.#writes.begin("read", 0, disk.size);
    const buffer = new Uint8Array(disk.size);
    await disk.read(0, buffer);
    const problem = this.#writes.check(operation, buffer);
    this.#writes.end(operation, true);
    if (problem !== undefined) this.#simulation.fail("wrong data at the end", problem);
    checkGraph(this.#graph);
    for (const { name, io, quiesceCount } of this.#graph.nodes()) {
      const isIdle = io.inFlight === 0 && quiesceCount === 0;
      this.#simulation.expect(isIdle, "left in flight", () => `node '${name}'`);
    }
    for (const edge of this.#edges) await this.#graph.detachRoot(edge);
    await disk.close();
    await this.#graph.close();
    await this.#simulation.expectNothingPending();
  }
}
