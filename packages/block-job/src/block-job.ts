import type { BlockNode, Edge, EdgeParent, Graph } from "@blocklayer/block-graph";
import { ALL_PERMISSIONS } from "@blocklayer/driver";
import { assert, type BlockError } from "@blocklayer/errors";
import type { BlockJobInfo, Job, JobManager, JobOptions } from "@blocklayer/jobs";
import { type BlockJobDriver, machineDriver } from "./block-job-driver.ts";
import { actionFor, type ErrorAction, type IoStatus, type OnError } from "./error-policy.ts";
import type { JobNode, NodeOptions } from "./job-node.ts";

/** One row of the block job query. */
export interface BlockJobRow extends BlockJobInfo {
  readonly ioStatus: IoStatus;
}

/** The options of the underlying job. */
export interface MachineOptions extends Omit<JobOptions, "driver" | "kind"> {
  readonly driver: BlockJobDriver;
}

/**
 * A job that holds nodes: it rests while any of them is drained, keeps management commands away from them, and
 * has a policy for I/O errors.
 *
 * Made by `BlockJobs.create`. Life, verbs, pauses and progress are those of `job`.
 *
 * A drained section of a node pauses the job once for each of its edges that the section reaches, and the drain waits
 * until the job rests. While the job itself changes the graph it counts as resting, which is why it does so inside
 * {@link BlockJob.surgery}.
 *
 * @see spec/jobs.md sections 1, 7 and 12
 */
export class BlockJob implements EdgeParent {
  readonly kind = "job";
  /** The job stays at its nodes when others are put in their place. */
  readonly staysAtNode = true;
  readonly job: Job;
  readonly #graph: Graph;
  readonly #driver: BlockJobDriver;
  #nodes: readonly JobNode[] = [];
  #ioStatus: IoStatus = "ok";
  #surgeries = 0;
  #isRunning: boolean = false;

  /**
   * For `BlockJobs`.
   *
   * @param forget - called when the job is gone, which it is at once if it cannot be made
   */
  constructor(
    graph: Graph,
    manager: JobManager,
    options: MachineOptions,
    forget: (gone: BlockJob) => void,
  ) {
    this.#graph = graph;
    this.#driver = options.driver;
    const driver = machineDriver(options.driver, {
      run: () => this.#run(),
      userResume: () => this.#userResume(),
      drainedPoll: () => this.#surgeries === 0 && (this.#driver.drainedPoll?.() ?? true),
      clean: () => this.#clean(),
      free: () => {
        forget(this);
        this.#free();
      },
    });
    this.job = manager.create({ ...options, kind: "block", driver });
  }

  /** The nodes it holds, in the order in which they were added. */
  get nodes(): readonly JobNode[] {
    return this.#nodes;
  }

  /** Whether an error has stopped it. Back to `"ok"` when the user resumes or cancels it. */
  get ioStatus(): IoStatus {
    return this.#ioStatus;
  }

  /** As messages about conflicts name it. */
  describe(): string {
    return `${this.job.type} job '${this.job.id ?? ""}'`;
  }

  /**
   * Takes hold of a node and closes it to management commands.
   *
   * The node may be drained already: a running job passes a pause point before its first request to it.
   *
   * @param name - what it is to the job: `"main node"`, `"intermediate node"`, `"target"`, …
   * @returns the edge, for the job's requests
   * @throws BlockError `EPERM` others do not share the permissions; `ENOMEDIUM` the node is closing
   */
  async addNode(name: string, node: BlockNode, options: NodeOptions = {}): Promise<Edge> {
    const { perm = 0, shared = ALL_PERMISSIONS, allow } = options;
    const edge = await this.#graph.attachRoot(this, node, { name, perm, shared });
    const reason = `block device is in use by block job: ${this.job.type}`;
    this.#nodes = [
      ...this.#nodes,
      { name, edge, operations: node.blockAllOperations(reason, allow) },
    ];
    return edge;
  }

  /** Lets go of one node. Twice is harmless. @throws what closing the node reported, if nobody else held it */
  async removeNode(edge: Edge): Promise<void> {
    const held = this.#nodes.find((node) => node.edge === edge);
    if (held === undefined) return;
    this.#nodes = this.#nodes.filter((node) => node !== held);
    held.operations.release();
    await this.#graph.detachRoot(edge);
  }

  /** Lets go of all nodes, the last one first. @throws the first of what closing nodes reported; all are gone then */
  async removeAllNodes(): Promise<void> {
    const faults: unknown[] = [];
    for (const { edge } of this.#nodes.toReversed()) {
      await this.removeNode(edge).catch((error: unknown) => faults.push(error));
    }
    if (faults.length > 0) throw faults[0];
  }

  /**
   * Changes the graph from within the driver's `run`. While it waits for the change the job counts as quiet, so
   * that the change, or others before it, may drain its nodes; afterwards it rests until no node is drained.
   *
   * Nothing else of the job may be under way meanwhile. The driver's other callbacks change the graph without this:
   * nobody waits for them.
   */
  async surgery<Result>(change: () => Promise<Result>): Promise<Result> {
    this.#surgeries += 1;
    this.job.notifyIdle();
    try {
      return await change();
    } finally {
      this.#surgeries -= 1;
      if (this.#isRunning) await this.job.pausePoint();
    }
  }

  /**
   * Decides about an I/O error, tells the event, and with the action `"stop"` pauses the job as its user would; it
   * rests at its next pause point and may then try again.
   *
   * @param isRead - whether reading failed; else writing
   * @returns what the driver is to do: fail with the error, go on without, or rest and repeat
   */
  errorAction(policy: OnError, error: BlockError, isRead: boolean): ErrorAction {
    const action = actionFor(policy, error);
    this.job.announceError(isRead ? "read" : "write", action);
    if (action === "stop") {
      if (this.#ioStatus === "ok") {
        this.#ioStatus = error.code === "ENOSPC" ? "nospace" : "failed";
      }
      this.job.stopForUser();
    }
    return action;
  }

  /** Its row of the block job query. @see spec/jobs.md section 14 */
  query(): BlockJobRow {
    return { ...this.job.blockInfo(), ioStatus: this.#ioStatus };
  }

  /**
   * Gives up a job whose creation could not be finished: lets go of its nodes, status `null`, nothing else told.
   *
   * @throws what closing nodes reported; the job is gone then
   */
  async failEarly(error?: BlockError): Promise<void> {
    try {
      await this.removeAllNodes();
    } finally {
      this.job.failEarly(error);
    }
  }

  // What the graph calls.

  drainedBegin(): void {
    this.job.drainPause();
  }

  drainedEnd(): void {
    this.job.drainResume();
  }

  drainedPoll(): Promise<void> | undefined {
    return this.job.isQuiescent ? undefined : this.job.quiescent();
  }

  // What the job calls.

  async #run(): Promise<void> {
    this.#isRunning = true;
    try {
      await this.#driver.run(this);
    } finally {
      this.#isRunning = false;
    }
  }

  #userResume(): void {
    this.#driver.userResume?.();
    assert(this.#ioStatus === "ok" || this.job.userPaused, "an error stops a job until its user");
    this.#ioStatus = "ok";
  }

  async #clean(): Promise<void> {
    try {
      await this.#driver.clean?.();
    } finally {
      await this.removeAllNodes();
    }
  }

  /** The nodes are gone since `clean`, but for a job that failed early by itself. */
  #free(): void {
    this.#driver.free?.();
    this.removeAllNodes().catch((error: unknown) => {
      this.#graph.core.log(`${this.describe()}: ${String(error)}`);
    });
  }
}
