import { type BackupJob, type BackupOptions, Backups } from "@blocklayer/backup";
import { copyBeforeWrite, snapshotAccess } from "@blocklayer/backup-top";
import { type BlockNode, checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { BitmapManager, type DirtyBitmap } from "@blocklayer/dirty-bitmap";
import {
  passThrough,
  patternBytes,
  type ScriptedDriver,
  scriptedDefinition,
} from "@blocklayer/driver-tests";
import { type Env, type ManualEnv, manualEnv } from "@blocklayer/env";
import { JobManager } from "@blocklayer/jobs";
import { memory } from "@blocklayer/memory";

export const CLUSTER = 65536;

/** A disk with content and a guest on it, an empty target, and everything that a backup needs. */
export class Fixture {
  readonly env: Env;
  readonly graph: Graph;
  readonly jobs: JobManager;
  readonly bitmaps: BitmapManager;
  readonly backups: Backups;
  /** What was told of jobs, as `S:status` and the names of other events. */
  readonly events: string[] = [];
  /** The graph's log. */
  readonly lines: string[] = [];
  readonly #disks = scriptedDefinition();

  constructor(env: Env) {
    this.env = env;
    const drivers = [memory, passThrough, this.#disks, copyBeforeWrite(), snapshotAccess] as const;
    const log = (line: string): void => void this.lines.push(line);
    this.graph = new Graph({ env, drivers, log }) as unknown as Graph;
    this.jobs = new JobManager({ env });
    this.bitmaps = new BitmapManager(this.graph);
    this.backups = new Backups({ graph: this.graph, jobs: this.jobs, bitmaps: this.bitmaps });
    for (const name of ["ready", "pending", "error", "completed", "cancelled"] as const) {
      this.jobs.events.on(name, () => void this.events.push(name));
    }
    this.jobs.events.on("status", ({ status }) => void this.events.push(`S:${status}`));
  }

  /** Opens a scripted disk. */
  async disk(
    name: string,
    size: number,
    content?: Uint8Array,
    options: Readonly<Record<string, unknown>> = {},
  ): Promise<ScriptedDriver> {
    await this.graph.open({ driver: "x-blocklayer-scripted", "node-name": name, size, ...options });
    const driver = this.#disks.instance(name);
    if (content !== undefined && content.length > 0) driver.bytes.set(content);
    return driver;
  }

  node(name: string): BlockNode {
    return this.graph.node(name);
  }

  guest(name: string): Promise<WritableBackend> {
    return this.graph.createBackend({ node: this.node(name), perm: ["consistent-read", "write"] });
  }

  bitmap(name: string): DirtyBitmap {
    return this.bitmaps.lookup("disk", name);
  }

  start(options: Partial<BackupOptions> = {}): Promise<BackupJob> {
    return this.backups.start({
      "job-id": "job",
      device: "disk",
      target: "target",
      sync: "full",
      ...options,
    });
  }

  /** What must be as before when a backup is gone: nodes, bitmaps, jobs, and the graph's own rules. */
  remains(): unknown {
    checkGraph(this.graph);
    return {
      nodes: this.graph
        .nodes()
        .map((node) => [node.name, node.parents.size, node.quiesceCount, node.io.inFlight]),
      bitmaps: this.bitmaps.query(this.node("disk")),
      jobs: this.jobs.query(),
    };
  }
}

export interface Started {
  readonly fixture: Fixture;
  readonly env: ManualEnv;
  readonly source: ScriptedDriver;
  readonly target: ScriptedDriver;
  /** What the source held at the beginning. */
  readonly before: Uint8Array;
}

/** A fixture with a disk of `size` bytes called `disk` and a target called `target`. */
export async function backupFixture(size: number = 4 * CLUSTER): Promise<Started> {
  const env = manualEnv();
  const fixture = new Fixture(env);
  const before = size === 0 ? new Uint8Array(0) : patternBytes(size, 1);
  const source = await fixture.disk("disk", size, before);
  const target = await fixture.disk("target", size);
  return { fixture, env, source, target, before };
}

/** The numbers of the dirty clusters of a bitmap. */
export function dirtyClusters(bitmap: DirtyBitmap): number[] {
  const clusters: number[] = [];
  const { map } = bitmap;
  for (let at = map.nextDirty(0); at >= 0; ) {
    const cluster = Math.floor(at / CLUSTER);
    clusters.push(cluster);
    at = (cluster + 1) * CLUSTER >= map.size ? -1 : map.nextDirty((cluster + 1) * CLUSTER);
  }
  return clusters;
}
