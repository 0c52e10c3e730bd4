import { open } from "node:fs/promises";
import { Backups } from "@blocklayer/backup";
import { copyBeforeWrite, snapshotAccess } from "@blocklayer/backup-top";
import { type BlockNode, Graph } from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import type { Env } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { JobManager } from "@blocklayer/jobs";
import { memory } from "@blocklayer/memory";
import { NbdServer } from "@blocklayer/nbd-server";
import { listenUnix, type UnixListener } from "@blocklayer/nbd-server/node";
import { raw } from "@blocklayer/raw";
import type { DemoDisk } from "../disk/demo-disk.ts";
import { type SlowOptions, slow } from "./slow-driver.ts";

const DRIVERS = [file, raw, memory, copyBeforeWrite(), snapshotAccess, slow] as const;

/** Clients that are left when the server ends get this time, milliseconds. */
const GRACE_MS = 200;

export interface ServedDiskOptions {
  readonly env: Env;
  readonly disk: DemoDisk;
  /** Path of the unix socket. */
  readonly socket: string;
}

/**
 * The disk in a graph, served over NBD: `export <- raw <- file`, or for a disk that is only read
 * `export <- memory <- raw <- file`.
 */
export class ServedDisk implements AsyncDisposable {
  readonly graph: Graph<typeof DRIVERS>;
  readonly jobs: JobManager;
  readonly bitmaps: BitmapManager;
  readonly backups: Backups;
  readonly server: NbdServer;
  #node: BlockNode | undefined;
  #listener: UnixListener | undefined;
  /** What has to be given back, the last first; all of it, even if something fails. */
  readonly #held = new AsyncDisposableStack();
  #writeCount: number = 0;

  private constructor(env: Env) {
    this.graph = new Graph({ env, drivers: DRIVERS });
    this.jobs = new JobManager({ env });
    this.bitmaps = new BitmapManager(this.graph);
    const { graph, jobs, bitmaps } = this;
    this.backups = new Backups({ graph, jobs, bitmaps });
    this.server = new NbdServer({ env });
    this.#held.use(this.bitmaps);
    this.#held.defer(() => graph.close());
    this.#held.defer(() => this.server.stop(GRACE_MS));
    this.#held.defer(() => jobs.cancelAll());
  }

  static async start(options: ServedDiskOptions): Promise<ServedDisk> {
    const served = new ServedDisk(options.env);
    try {
      await served.#open(options);
    } catch (error) {
      await served[Symbol.asyncDispose]();
      throw error;
    }
    return served;
  }

  /** The node that backups begin from. */
  get node(): BlockNode {
    if (this.#node === undefined) throw new Error("the disk is not open");
    return this.#node;
  }

  /** Writes of clients that have arrived at the disk so far. */
  get writeCount(): number {
    return this.#writeCount;
  }

  /** The URI of an export. */
  uri(exportName: string): string {
    if (this.#listener === undefined) throw new Error("the disk is not served");
    return this.#listener.uri(exportName);
  }

  /**
   * Makes a file of the disk's size and opens it as the target of a backup, behind a slow line if wanted.
   *
   * @returns its node's name, which is `name`
   */
  async openTarget(name: string, path: string, line?: SlowOptions): Promise<string> {
    const handle = await open(path, "wx", 0o600);
    try {
      await handle.truncate(this.node.size);
    } finally {
      await handle.close();
    }
    const disk = {
      driver: "raw",
      discard: "unmap",
      file: { driver: "file", filename: path },
    } as const;
    await this.graph.open(
      line === undefined
        ? { ...disk, "node-name": name }
        : { driver: "x-demo-slow", "node-name": name, discard: "unmap", ...line, file: disk },
    );
    return name;
  }

  /** Sends the clients away, cancels the jobs and closes every node. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#held.disposeAsync();
  }

  async #open({ disk, socket }: ServedDiskOptions): Promise<void> {
    this.#node = await this.graph.open(disk.isUsersOwn ? readOnly(disk.path) : writable(disk.path));
    this.#node.addObserver({
      afterWrite: (_request, error) => {
        if (error === undefined) this.#writeCount += 1;
      },
    });
    await this.server.addExport({ name: "disk", node: this.#node, writable: true });
    this.#listener = await listenUnix({ server: this.server, path: socket });
    this.#held.use(this.#listener);
  }
}

function writable(path: string) {
  return {
    driver: "raw",
    "node-name": "disk",
    discard: "unmap",
    file: { driver: "file", "node-name": "disk-file", filename: path },
  } as const;
}

/** The file is opened for reading alone; what is written stays in an overlay in memory. */
function readOnly(path: string) {
  return {
    driver: "memory",
    "node-name": "disk",
    discard: "unmap",
    backing: {
      driver: "raw",
      "node-name": "disk-raw",
      "read-only": true,
      file: { driver: "file", "node-name": "disk-file", "read-only": true, filename: path },
    },
  } as const;
}
