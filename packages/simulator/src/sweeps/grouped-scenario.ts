import type { BackupJob } from "@blocklayer/backup";
import type { WritableBackend } from "@blocklayer/block-graph";
import { sameBytes } from "../disk/same-bytes.ts";
import { all, guestWrites, ONE_AT_A_TIME, STATUS_ABSORBED } from "./backup-scenarios.ts";
import { CLUSTER, type SweepStage } from "./stage.ts";
import type { SweepScenario } from "./sweep.ts";

const PAIRS = [
  { node: "disk", name: "bm", target: "target" },
  { node: "other", name: "bm2", target: "target2" },
] as const;
/** A byte of the first cluster that is marked before the backups, and that no guest writes while they run. */
const MARKED = 8192;

/** What became of the last attempt. */
interface Attempt {
  readonly sources: Map<string, Uint8Array>;
  hasSucceeded: boolean;
}

const attempts = new WeakMap<SweepStage, Attempt>();

function mark(stage: SweepStage): void {
  for (const { node, name } of PAIRS) {
    const bitmap = stage.bitmaps.lookup(node, name);
    bitmap.clear();
    bitmap.set(MARKED, 1);
  }
}

async function startBoth(stage: SweepStage, attempt: Attempt): Promise<readonly BackupJob[]> {
  const remember = (): void => {
    for (const { node } of PAIRS) attempt.sources.set(node, stage.store(node).content.slice());
  };
  const given = PAIRS.map(({ node, name, target }) => ({
    "job-id": node,
    device: node,
    target,
    bitmap: name,
    sync: "incremental" as const,
    "bitmap-mode": "on-success" as const,
    ...ONE_AT_A_TIME,
  }));
  const steps = [{ name: "remember", prepare: () => undefined, commit: remember }];
  return stage.backups.startAll(given, { grouped: true, steps });
}

/** Both succeed, or none does. */
async function ends(
  stage: SweepStage,
  jobs: readonly BackupJob[],
  attempt: Attempt,
): Promise<void> {
  const errors = await Promise.all(jobs.map(({ job }) => job.completed()));
  const failed = errors.filter((error) => error !== undefined);
  attempt.hasSucceeded = failed.length === 0;
  if (failed.length === 0) return;
  stage.expect(failed.length === 2, "one of two succeeded", () => String(errors));
  throw failed.find(({ code }) => code !== "ECANCELED") ?? failed[0];
}

async function withWriters(
  stage: SweepStage,
  work: (disk: WritableBackend, other: WritableBackend) => Promise<void>,
): Promise<void> {
  const disk = await stage.writer("disk");
  try {
    const other = await stage.writer("other");
    try {
      await work(disk, other);
    } finally {
      await other.close();
    }
  } finally {
    await disk.close();
  }
}

/** Two disks of one instant under guests: both backups succeed, or none does and both bitmaps keep their bits. */
export const grouped: SweepScenario = {
  name: "two backups of one transaction while guests write",
  setUp: async (stage) => {
    for (const { node, name, target } of PAIRS) {
      await stage.open(node);
      await stage.open(target);
      await stage.bitmaps.add(node, { name, granularity: 4096 });
    }
    mark(stage);
  },
  act: async (stage) => {
    const attempt: Attempt = { sources: new Map(), hasSucceeded: false };
    attempts.set(stage, attempt);
    await withWriters(stage, async (disk, other) => {
      const jobs = await startBoth(stage, attempt);
      const guests = [guestWrites(stage, disk), guestWrites(stage, other, "other")];
      await all(ends(stage, jobs, attempt), ...guests);
    });
  },
  tidy: async (stage) => {
    await stage.jobs.cancelAll();
    await stage.simulation.scheduler.rest();
    stage.expectBaseline(["disk", "target", "other", "target2"]);
    const hasSucceeded = attempts.get(stage)?.hasSucceeded === true;
    for (const { node, name, target } of PAIRS) {
      const bitmap = stage.bitmaps.lookup(node, name);
      stage.expect(!bitmap.busy, "bitmap left busy", () => name);
      const isKept = bitmap.map.get(MARKED);
      stage.expect(isKept !== hasSucceeded, "bits not as they should be", () => name);
      expectMarked(stage, node, name);
      stage.store(target).content.fill(0x77);
      const disk = await stage.writer(node);
      await guestWrites(stage, disk, node);
      await disk.close();
      stage.expectContent(node);
    }
    mark(stage);
  },
  verify: (stage) => {
    for (const { node, target } of PAIRS) {
      stage.expectContent(node);
      const source = attempts.get(stage)?.sources.get(node)?.subarray(0, CLUSTER);
      const copy = stage.store(target).content.subarray(0, CLUSTER);
      stage.expect(source !== undefined && sameBytes(source, copy), "not copied", () => node);
    }
  },
  absorbed: { "disk status": STATUS_ABSORBED, "other status": STATUS_ABSORBED },
};

/** What guests have changed since the instant is marked for the next backup. */
function expectMarked(stage: SweepStage, node: string, name: string): void {
  const before = attempts.get(stage)?.sources.get(node);
  const { map } = stage.bitmaps.lookup(node, name);
  const { content } = stage.store(node);
  for (let at = 0; before !== undefined && at < content.length; at += map.granularity) {
    const end = Math.min(at + map.granularity, content.length);
    const isSame = sameBytes(before.subarray(at, end), content.subarray(at, end));
    stage.expect(isSame || map.get(at), "change not marked", () => `${node}: bytes at ${at}`);
  }
}
