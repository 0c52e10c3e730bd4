import { sameBytes } from "../disk/same-bytes.ts";
import {
  all,
  begin,
  expectCopied,
  guestWrites,
  ONE_AT_A_TIME,
  STATUS_ABSORBED,
  setUp,
  tidy,
} from "./backup-scenarios.ts";
import { CLUSTER, type SweepStage } from "./stage.ts";
import type { SweepScenario } from "./sweep.ts";

const DISCARD_ABSORBED = "what is given up may stay where it is";

/** A backup of zeroes to a target that holds something else: they are written, not left out. */
const zeroes: SweepScenario = {
  name: "full backup of zeroes over a stale target",
  setUp: async (stage) => {
    stage.store("disk").content.fill(0, 2 * CLUSTER);
    await setUp(stage);
  },
  tidy,
  act: async (stage) => {
    const disk = await stage.writer("disk");
    try {
      const job = await begin(stage, { sync: "full" });
      await all(job.completed(), guestWrites(stage, disk));
    } finally {
      await disk.close();
    }
  },
  verify: (stage) => {
    stage.expectContent("disk");
    expectCopied(stage, [0, CLUSTER, 2 * CLUSTER]);
    const { unstableChanges } = stage.store("target");
    stage.expect(unstableChanges === 0, "backup not stable", () => String(unstableChanges));
  },
  absorbed: { "disk status": STATUS_ABSORBED },
};

/** The source is discarded where it was copied: what guests have written since stays. */
const moves: SweepScenario = {
  name: "backup that discards its source",
  setUp,
  tidy: async (stage) => {
    forgetDiscarded(stage);
    await tidy(stage);
    stage.store("disk").content.fill(1);
    stage.meant("disk", (content) => content.fill(1));
    const disk = await stage.writer("disk");
    await stage.write(disk, "disk", 10, 40);
    await disk.close();
  },
  act: async (stage) => {
    const disk = await stage.writer("disk");
    try {
      const job = await begin(stage, { sync: "full", "discard-source": true });
      await all(job.completed(), guestWrites(stage, disk));
    } finally {
      await disk.close();
    }
  },
  verify: (stage) => {
    const { content } = stage.store("disk");
    for (const [offset, fill] of [
      [CLUSTER + 7, 50],
      [10, 51],
    ] as const) {
      const isThere = content.subarray(offset, offset + 1000).every((byte) => byte === fill);
      stage.expect(isThere, "discarded what was written since", () => `bytes at ${offset}`);
    }
    forgetDiscarded(stage);
    stage.expectContent("disk");
    expectCopied(stage, [0, CLUSTER, 2 * CLUSTER]);
  },
  absorbed: { "disk status": STATUS_ABSORBED, "disk discard": DISCARD_ABSORBED },
};

/** What was discarded reads as zeroes, and nothing else has changed. */
function forgetDiscarded(stage: SweepStage): void {
  const { content } = stage.store("disk");
  stage.meant("disk", (meant) => {
    for (let at = 0; at < meant.length; at += 1) if (content[at] === 0) meant[at] = 0;
  });
}

/** A backup of what a filter keeps of an instant; what was copied on is given up there. */
const fleeces: SweepScenario = {
  name: "backup of a snapshot that gives up what it has copied",
  setUp: async (stage) => {
    await setUp(stage);
    await stage.open("target2");
  },
  tidy: async (stage) => {
    await stage.jobs.cancelAll();
    await stage.simulation.scheduler.rest();
    await takeOut(stage);
    await stage.graph.remove("target2");
    stage.store("target2").content.fill(0x77);
    await tidy(stage);
    await stage.open("target2");
  },
  act: async (stage) => {
    const { graph } = stage;
    const disk = await stage.writer("disk");
    try {
      await graph.insertNode(
        { driver: "copy-before-write", "node-name": "filter", file: "disk", target: "target" },
        graph.node("disk"),
      );
      const source = stage.store("disk").content.slice();
      await graph.open({
        driver: "snapshot-access",
        "node-name": "view",
        file: "filter",
        discard: "unmap",
      });
      const [job] = await stage.backups.startAll([
        {
          "job-id": "job",
          device: "view",
          target: "target2",
          sync: "full",
          "discard-source": true,
          ...ONE_AT_A_TIME,
        },
      ]);
      if (job === undefined) throw new Error("no backup was started");
      await all(job.completed(), guestWrites(stage, disk));
      const isSame = sameBytes(source, stage.store("target2").content);
      stage.expect(isSame, "not the point in time", () => "");
      await takeOut(stage);
    } finally {
      await disk.close();
    }
  },
  verify: (stage) => {
    stage.expectContent("disk");
    const { unstableChanges } = stage.store("target2");
    stage.expect(unstableChanges === 0, "backup not stable", () => String(unstableChanges));
  },
  absorbed: {
    "disk status": STATUS_ABSORBED,
    "target status": STATUS_ABSORBED,
    "target discard": DISCARD_ABSORBED,
  },
};

/** Takes the view and the filter out, as far as they are there. */
async function takeOut({ graph }: SweepStage): Promise<void> {
  if (graph.findNode("view") !== undefined) await graph.remove("view");
  const filter = graph.findNode("filter");
  if (filter === undefined) return;
  if (filter.parents.size > 0) await graph.change([graph.dropFilter(filter)]);
  await graph.remove("filter");
}

export const fleeceScenarios: readonly SweepScenario[] = [zeroes, moves, fleeces];
