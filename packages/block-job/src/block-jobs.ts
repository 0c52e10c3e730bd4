import type { BlockBackend, BlockNode, Graph } from "@blocklayer/block-graph";
import { BlockError, toBlockError } from "@blocklayer/errors";
import type { JobManager, JobOptions } from "@blocklayer/jobs";
import { BlockJob, type BlockJobRow } from "./block-job.ts";
import type { BlockJobDriver } from "./block-job-driver.ts";
import type { NodeOptions } from "./job-node.ts";

export interface BlockJobsOptions {
  readonly graph: Graph;
  readonly jobs: JobManager;
}

/** A node that a new job holds from the beginning. */
export interface InitialNode extends NodeOptions {
  readonly name: string;
  readonly node: BlockNode;
}

export interface BlockJobOptions extends Omit<JobOptions, "driver" | "kind"> {
  readonly driver: BlockJobDriver;
  /** Without an id the job takes the name of a backend of its main node. */
  readonly mainNode?: BlockNode;
  /** What to hold from the beginning. Default nothing: see `BlockJob.addNode`. */
  readonly nodes?: readonly InitialNode[];
  /** Whether the job has no id on purpose: no query and no event mentions it. Default `false`. */
  readonly isInternal?: boolean;
}

/**
 * The block jobs of a process.
 *
 * @see spec/jobs.md section 1
 */
export class BlockJobs {
  readonly #graph: Graph;
  readonly #manager: JobManager;
  /** The oldest first. */
  readonly #jobs = new Set<BlockJob>();

  constructor(options: BlockJobsOptions) {
    this.#graph = options.graph;
    this.#manager = options.jobs;
  }

  /**
   * Makes a job that holds its nodes and waits to be started. When that fails it is gone again.
   *
   * @throws BlockError `EINVAL` no id, or not one, or a negative speed; `EEXIST` the id is in use; `EPERM` others do not
   *   share what the job needs of a node; `ECANCELED` somebody cancelled it before it held all of them
   */
  async create(options: BlockJobOptions): Promise<BlockJob> {
    const { mainNode, nodes = [], isInternal = false, ...machine } = options;
    const id = isInternal ? undefined : (options.id ?? deviceNameOf(mainNode));
    const forget = (gone: BlockJob): void => void this.#jobs.delete(gone);
    const blockJob = new BlockJob(this.#graph, this.#manager, { ...machine, id }, forget);
    this.#jobs.add(blockJob);
    try {
      for (const { name, node, ...held } of nodes) {
        await blockJob.addNode(name, node, held);
        checkCreated(blockJob);
      }
    } catch (error) {
      if (blockJob.job.status === "created") {
        await blockJob.failEarly(toBlockError(error, "block job"));
      } else {
        // Its end has let go of the nodes that it had then.
        await blockJob.removeAllNodes();
      }
      throw error;
    }
    return blockJob;
  }

  /** Returns the block job of that id, `undefined` if there is none. */
  find(id: string): BlockJob | undefined {
    return this.list().find(({ job }) => job.id === id);
  }

  /** @throws BlockError `ENOENT`, class `DeviceNotActive` */
  get(id: string): BlockJob {
    const blockJob = this.find(id);
    if (blockJob !== undefined) return blockJob;
    const message = `Block job '${id}' not found`;
    throw new BlockError("ENOENT", message, { job: id }, { errorClass: "DeviceNotActive" });
  }

  /** All block jobs, newest first, internal ones too. */
  list(): BlockJob[] {
    return [...this.#jobs].reverse();
  }

  /** A row for each job that has an id, newest first. @see spec/jobs.md section 14 */
  query(): BlockJobRow[] {
    return this.list()
      .filter(({ job }) => job.id !== undefined)
      .map((blockJob) => blockJob.query());
  }
}

/** A new job can be found, and cancelled, by everybody. @throws BlockError `ECANCELED` */
function checkCreated({ job }: BlockJob): void {
  if (job.status === "created") return;
  const message = `Block job '${job.id ?? ""}' was cancelled before it was started`;
  throw new BlockError("ECANCELED", message, { job: job.id });
}

/** @throws BlockError `EINVAL` the node has no backend with a name */
function deviceNameOf(node: BlockNode | undefined): string {
  for (const { parent } of node?.parents ?? []) {
    const name = parent.kind === "backend" ? (parent as BlockBackend).name : undefined;
    if (name !== undefined) return name;
  }
  const hint = "an explicit job ID is required";
  const context = node === undefined ? {} : { node: node.name };
  throw new BlockError("EINVAL", "Invalid job ID ''", context, { hint });
}
