import type { BackupJob, BackupOptions } from "@blocklayer/backup";
import type { WritableBackend } from "@blocklayer/block-graph";
import { sameBytes } from "../disk/same-bytes.ts";
import { CLUSTER, type SweepStage } from "./stage.ts";
import type { SweepScenario } from "./sweep.ts";

/** So that a sweep tries the same order again and again. */
export const ONE_AT_A_TIME: Pick<BackupOptions, "x-perf"> = {
  "x-perf": { "max-workers": 1, "max-chunk": CLUSTER },
};
/** Why a failed status is nobody's concern. */
export const STATUS_ABSORBED: string = "what the source holds is then taken for data";

/** Opens a disk and its target, and marks the first two clusters. */
export async function setUp(stage: SweepStage): Promise<void> {
  await stage.open("disk");
  await stage.open("target");
  await stage.bitmaps.add("disk", { name: "bm" });
  const disk = await stage.writer("disk");
  await stage.write(disk, "disk", 10, 40);
  await stage.write(disk, "disk", CLUSTER, 41);
  await disk.close();
}

/** What is remembered of the instant in which a backup began. */
interface Instant {
  readonly source: Uint8Array;
  readonly dirty: readonly number[];
  /** Whether the job has used up what the bitmap held. */
  hasSucceeded: boolean;
}

const instants = new WeakMap<SweepStage, Instant>();

function remember(stage: SweepStage): void {
  const { map } = stage.bitmaps.lookup("disk", "bm");
  const starts = [0, CLUSTER, 2 * CLUSTER];
  const dirty = starts.filter((at) => map.nextDirty(at, Math.min(CLUSTER, map.size - at)) >= 0);
  const source = stage.store("disk").content.slice();
  instants.set(stage, { source, dirty, hasSucceeded: false });
}

/** Starts a backup; remembers the instant. */
export async function begin(
  stage: SweepStage,
  options: Partial<BackupOptions> & Pick<BackupOptions, "sync">,
): Promise<BackupJob> {
  const given = { "job-id": "job", device: "disk", target: "target", ...ONE_AT_A_TIME, ...options };
  const step = { name: "remember", prepare: () => undefined, commit: () => remember(stage) };
  const [job] = await stage.backups.startAll([given], { steps: [step] });
  if (job === undefined) throw new Error("no backup was started");
  const instant = instants.get(stage);
  void job.job.completed().then((error) => {
    if (instant !== undefined) instant.hasSucceeded = error === undefined;
  });
  return job;
}

/** Ends with the first error of several things that go on, when all have ended. */
export async function all(...works: readonly Promise<unknown>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(works)) {
    if (outcome.status === "rejected") throw outcome.reason;
  }
}

/** A guest writes once to each of the first two clusters while something else goes on. */
export async function guestWrites(
  stage: SweepStage,
  disk: WritableBackend,
  store = "disk",
): Promise<void> {
  await stage.write(disk, store, CLUSTER + 7, 50);
  await stage.write(disk, store, 10, 51);
}

/** The target holds these clusters as they were in the instant. */
export function expectCopied(stage: SweepStage, clusters: readonly number[]): void {
  const instant = instants.get(stage);
  if (instant === undefined) return;
  for (const at of clusters) {
    const end = Math.min(at + CLUSTER, instant.source.length);
    const isSame = sameBytes(
      stage.store("target").content.subarray(at, end),
      instant.source.subarray(at, end),
    );
    stage.expect(isSame, "not the point in time", () => `cluster at ${at}`);
  }
}

/** The bitmap is free again; what a backup that failed has not used up is still marked. */
function expectBitmap(stage: SweepStage): void {
  const bitmap = stage.bitmaps.lookup("disk", "bm");
  stage.expect(!bitmap.busy, "bitmap left busy", () => "bm");
  stage.expect(stage.bitmaps.list(bitmap.node).length === 1, "bitmaps left behind", () => "");
  const { hasSucceeded = true, dirty = [] } = instants.get(stage) ?? {};
  for (const at of hasSucceeded ? [] : dirty) {
    stage.expect(bitmap.map.nextDirty(at, 4096) >= 0, "bit lost", () => `at ${at}`);
  }
}

/** Nothing is left, the bitmap is as it has to be; then everything is as it was. */
export async function tidy(stage: SweepStage): Promise<void> {
  if (stage.graph.findNode("view") !== undefined) await stage.graph.remove("view");
  await stage.jobs.cancelAll();
  await stage.simulation.scheduler.rest();
  stage.expectBaseline(["disk", "target"]);
  expectBitmap(stage);
  stage.store("target").content.fill(0x77);
  const disk = await stage.writer("disk");
  await stage.write(disk, "disk", 10, 40);
  await stage.write(disk, "disk", CLUSTER, 41);
  await stage.write(disk, "disk", CLUSTER + 7, 42);
  await disk.close();
  stage.expectContent("disk");
}

/** A backup while a guest writes, in one of its modes. */
function backupScenario(
  name: string,
  options: Partial<BackupOptions> & Pick<BackupOptions, "sync">,
  expectAll: boolean,
): SweepScenario {
  return {
    name,
    setUp,
    tidy,
    act: async (stage) => {
      const disk = await stage.writer("disk");
      try {
        const job = await begin(stage, options);
        await all(job.completed(), guestWrites(stage, disk));
      } finally {
        await disk.close();
      }
    },
    verify: (stage) => {
      stage.expectContent("disk");
      const dirty = instants.get(stage)?.dirty ?? [];
      expectCopied(stage, expectAll ? [0, CLUSTER, 2 * CLUSTER] : dirty);
      const { unstableChanges } = stage.store("target");
      stage.expect(unstableChanges === 0, "backup not stable", () => String(unstableChanges));
    },
    absorbed: {
      "disk status": STATUS_ABSORBED,
      "target copy range": "what is not copied that way is read and written",
    },
  };
}

/** Only what the guest overwrites is saved, and the point in time is looked at. */
const looks: SweepScenario = {
  name: "backup none with a view of its point in time",
  setUp,
  tidy,
  act: async (stage) => {
    const disk = await stage.writer("disk");
    try {
      const job = await begin(stage, { sync: "none" });
      await stage.graph.open({
        driver: "snapshot-access",
        "node-name": "view",
        file: job.filterNode.name,
      });
      const view = await stage.graph.createBackend({ node: "view", perm: ["consistent-read"] });
      try {
        await guestWrites(stage, disk);
        const buffer = new Uint8Array(view.size);
        await view.read(0, buffer);
        const { source } = instants.get(stage) ?? { source: buffer };
        stage.expect(sameBytes(buffer, source), "the view is not the point in time", () => "");
        await view.blockStatus(0, view.size);
      } finally {
        await view.close();
      }
      await stage.graph.remove("view");
      await job.job.cancelAndWait();
    } finally {
      await disk.close();
    }
  },
  verify: (stage) => stage.expectContent("disk"),
  absorbed: { "disk status": STATUS_ABSORBED },
};

/** A job that stops at an error waits for its user, and ends well when nothing fails any more. */
const stops: SweepScenario = {
  name: "backup that stops at errors",
  setUp,
  tidy,
  act: async (stage) => {
    const stop = "stop" as const;
    const job = await begin(stage, {
      sync: "full",
      "on-source-error": stop,
      "on-target-error": stop,
    });
    const { scheduler } = stage.simulation;
    const watch = stage.jobs.events.on("status", ({ status }) => {
      if (status !== "paused" || !job.job.userPaused) return;
      const isShown = job.blockJob.ioStatus !== "ok";
      stage.expect(isShown, "stopped without a reason", () => job.blockJob.ioStatus);
      stage.plan.heal();
      scheduler.post("the user resumes", () => job.job.resume());
    });
    try {
      await job.completed();
    } finally {
      watch[Symbol.dispose]();
    }
  },
  verify: (stage) => expectCopied(stage, [0, CLUSTER, 2 * CLUSTER]),
  absorbed: { "disk status": STATUS_ABSORBED },
};

export const backupScenarios: readonly SweepScenario[] = [
  backupScenario("full backup", { sync: "full" }, true),
  backupScenario(
    "full backup that clears a bitmap",
    { sync: "full", bitmap: "bm", "bitmap-mode": "on-success" },
    true,
  ),
  backupScenario(
    "incremental backup",
    { sync: "incremental", bitmap: "bm", "bitmap-mode": "on-success" },
    false,
  ),
  backupScenario(
    "backup that breaks its snapshot rather than the guest",
    { sync: "full", "on-cbw-error": "break-snapshot" },
    true,
  ),
  backupScenario(
    "backup that copies without buffers",
    { sync: "full", "x-perf": { ...ONE_AT_A_TIME["x-perf"], "use-copy-range": true } },
    true,
  ),
  looks,
  stops,
];
