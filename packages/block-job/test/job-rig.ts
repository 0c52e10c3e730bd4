import { type BlockNode, checkGraph, type Edge, Graph } from "@blocklayer/block-graph";
import {
  type BlockJob,
  type BlockJobDriver,
  type BlockJobOptions,
  BlockJobs,
  type OnError,
} from "@blocklayer/block-job";
import { type DriverDefinition, Permissions } from "@blocklayer/driver";
import { passThrough, type ScriptedDefinition, scriptedDefinition } from "@blocklayer/driver-tests";
import { type ManualEnv, manualEnv, settleTurn } from "@blocklayer/env";
import { BlockError, toBlockError } from "@blocklayer/errors";
import { JobManager } from "@blocklayer/jobs";
import { memory } from "@blocklayer/memory";
import { expect } from "vitest";

export const CHUNK: number = 65536;
export const SIZE: number = 16 * CHUNK;

/** A graph, its jobs, and what they told. */
export class Rig {
  readonly env: ManualEnv = manualEnv();
  readonly log: string[] = [];
  readonly defects: unknown[] = [];
  /** The events, in short: `S:running`, `ERROR read stop`, `COMPLETED`. */
  readonly events: string[] = [];
  readonly scripted: ScriptedDefinition = scriptedDefinition();
  readonly graph: Graph;
  readonly jobs: JobManager;
  readonly blockJobs: BlockJobs;

  constructor() {
    const drivers = [memory, this.scripted, passThrough] as never as readonly DriverDefinition[];
    this.graph = new Graph({ env: this.env, drivers, log: (line) => this.log.push(line) });
    this.jobs = new JobManager({
      env: this.env,
      reportDefect: (error) => this.defects.push(error),
    });
    this.blockJobs = new BlockJobs({ graph: this.graph, jobs: this.jobs });
    this.#listen();
  }

  #listen(): void {
    const { events } = this.jobs;
    events.on("status", ({ status }) => this.events.push(`S:${status}`));
    events.on("error", ({ operation, action }) => this.events.push(`ERROR ${operation} ${action}`));
    events.on("ready", () => this.events.push("READY"));
    events.on("completed", ({ error }) =>
      this.events.push(error === undefined ? "COMPLETED" : `COMPLETED ${error}`),
    );
    events.on("cancelled", () => this.events.push("CANCELLED"));
  }

  open(options: Record<string, unknown>): Promise<BlockNode> {
    return this.graph.open(options as never);
  }

  disk(name: string): Promise<BlockNode> {
    return this.open({ driver: "memory", "node-name": name, size: SIZE });
  }

  scriptedDisk(name: string): Promise<BlockNode> {
    return this.open({ driver: "x-blocklayer-scripted", "node-name": name, size: SIZE });
  }

  filter(name: string, file: string): Promise<BlockNode> {
    return this.open({ driver: "x-blocklayer-pass-through", "node-name": name, file });
  }

  /** A job without nodes. */
  create(options: Partial<BlockJobOptions> = {}): Promise<BlockJob> {
    return this.blockJobs.create({
      id: "job0",
      type: "backup",
      driver: new IdleDriver(),
      ...options,
    });
  }

  /** A job that copies one node to another. */
  copy(
    source: BlockNode,
    target: BlockNode,
    options: Partial<BlockJobOptions> = {},
  ): Promise<BlockJob> {
    return this.create({
      driver: new CopyDriver(),
      nodes: [
        { name: "main node", node: source, perm: Permissions.consistentRead },
        { name: "target", node: target, perm: Permissions.write },
      ],
      ...options,
    });
  }

  /** Lets a millisecond pass: a copy goes on by a chunk. */
  async tick(): Promise<void> {
    await this.env.clock.advance(1);
    await this.settle();
  }

  /** Lets everything happen that needs no time. */
  async settle(): Promise<void> {
    await this.env.clock.advance(0);
    await settleTurn();
    checkGraph(this.graph);
  }
}

/** Does nothing until told to finish. */
export class IdleDriver implements BlockJobDriver {
  blockJob: BlockJob | undefined;
  failure: BlockError | undefined;
  #isDone: boolean = false;

  async run(blockJob: BlockJob): Promise<void> {
    this.blockJob = blockJob;
    while (!this.#isDone && !blockJob.job.isCancelled) await blockJob.job.yield();
    if (this.failure !== undefined) throw this.failure;
  }

  finish(error?: BlockError): void {
    this.failure = error;
    this.#isDone = true;
    this.blockJob?.job.kick();
  }
}

/** Copies a chunk each millisecond from the first node to the second, with an error policy. */
export class CopyDriver implements BlockJobDriver {
  readonly policy: OnError;
  copied = 0;

  constructor(policy: OnError = "report") {
    this.policy = policy;
  }

  async run(blockJob: BlockJob): Promise<void> {
    const { job } = blockJob;
    const [source, target] = blockJob.nodes.map(({ edge }) => edge) as [Edge, Edge];
    job.progress.setRemaining(source.size);
    const buffer = new Uint8Array(CHUNK);
    for (let offset = 0; offset < source.size && !job.isCancelled; ) {
      await job.sleep(Math.max(1, job.limiter.delay(0)));
      if (job.isCancelled) return;
      let isRead = true;
      try {
        await source.pread(offset, buffer);
        isRead = false;
        await target.pwrite(offset, buffer);
      } catch (error) {
        const fault = toBlockError(error, "copy");
        const action = blockJob.errorAction(this.policy, fault, isRead);
        if (action === "report") throw fault;
        if (action === "stop") continue;
      }
      job.limiter.delay(CHUNK);
      job.progress.workDone(CHUNK);
      offset += CHUNK;
      this.copied = offset;
    }
  }
}

/** The error that a call throws or rejects with. */
export async function failure(call: () => unknown): Promise<BlockError> {
  try {
    await call();
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    return error as BlockError;
  }
  throw new Error("nothing was thrown");
}
