import type { BlockChild } from "@blocklayer/driver";
import { ScriptedDriver, testChild } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { Decisions } from "../src/decisions.ts";
import {
  type BlockCopyPlan,
  drawBlockCopyPlan,
  isAllocated,
} from "../src/worlds/block-copy-plan.ts";
import { CopyWatch } from "../src/worlds/copy-watch.ts";

const CLUSTER = 4096;
const SIZE = 4 * CLUSTER - 512;

interface Watched {
  readonly watch: CopyWatch;
  readonly source: BlockChild;
  readonly target: BlockChild;
  readonly targetDisk: ScriptedDriver;
  /** Clusters that are not to be copied. */
  readonly unwanted: Set<number>;
  readonly found: string[];
  readonly discards: string[];
}

function watched(changes: Partial<BlockCopyPlan> = {}): Watched {
  const plan: BlockCopyPlan = {
    ...drawBlockCopyPlan(new Decisions([])),
    clusterCount: 4,
    size: SIZE,
    ...changes,
  };
  const found: string[] = [];
  const discards: string[] = [];
  const unwanted = new Set<number>();
  const watch = new CopyWatch(
    { expect: (condition, kind) => void (condition || found.push(kind)) },
    plan,
    {
      isWanted: (at) => !unwanted.has(at),
      discarding: (offset) => {
        discards.push(`begin ${offset}`);
        return (succeeded) => discards.push(`end ${succeeded}`);
      },
    },
  );
  const targetDisk = new ScriptedDriver({ size: SIZE });
  const edge = testChild(targetDisk);
  const source = watch.source(testChild(new ScriptedDriver({ size: SIZE })), edge);
  return { watch, source, target: watch.target(edge), targetDisk, unwanted, found, discards };
}

const bytes = (length: number): Uint8Array => new Uint8Array(length);

describe("the watch over copies", () => {
  it.each<[string, (made: Watched) => Promise<void>, string[]]>([
    ["takes whole clusters", ({ target }) => target.pwrite(0, bytes(2 * CLUSTER)), []],
    ["takes the short last one", ({ source }) => source.pread(3 * CLUSTER, bytes(3584)), []],
    ["finds half a cluster", ({ target }) => target.pwriteZeroes(0, 512), ["not whole clusters"]],
    [
      "finds what is not wanted",
      ({ source, unwanted }) => {
        unwanted.add(CLUSTER);
        return source.pread(0, bytes(2 * CLUSTER));
      },
      ["copied what was not wanted"],
    ],
    [
      "finds what is copied again",
      async ({ target, source }) => {
        await target.pwriteZeroes(0, CLUSTER);
        await source.pread(0, bytes(CLUSTER));
      },
      ["copied again"],
    ],
    [
      "takes it after a new beginning",
      async ({ target, watch }) => {
        await target.pwriteZeroes(0, CLUSTER);
        watch.restart();
        await target.pwriteZeroes(0, CLUSTER);
      },
      [],
    ],
    [
      "finds two at once",
      async ({ source, target, targetDisk }) => {
        targetDisk.hold("pwrite");
        const writing = target.pwrite(CLUSTER, bytes(CLUSTER));
        await source.pread(0, bytes(CLUSTER));
        await source.pread(0, bytes(2 * CLUSTER));
        targetDisk.releaseAll();
        await writing;
      },
      ["copied twice at once"],
    ],
    [
      "finds what begins in silence, but takes the rest of a copy",
      async ({ source, target, watch }) => {
        watch.silence("a cancel");
        await target.pwrite(0, bytes(CLUSTER));
        await source.pread(CLUSTER, bytes(CLUSTER));
      },
      ["began after a cancel"],
    ],
    [
      "finds a discard of what was not copied",
      ({ source }) => source.pdiscard(0, CLUSTER),
      ["discarded before it was copied"],
    ],
  ])("%s", async (_, act, expected) => {
    const made = watched();
    await act(made);
    expect(made.found).toEqual(expected);
    expect(made.watch.inFlight).toBe(0);
  });

  it("finds copies that take more memory than there is", async () => {
    const { target, targetDisk, found } = watched({ hasTightMemory: true });
    targetDisk.hold("pwrite");
    const first = target.pwrite(0, bytes(CLUSTER));
    const second = target.pwrite(CLUSTER, bytes(CLUSTER));
    expect(found).toEqual([]);
    const third = target.pwrite(2 * CLUSTER, bytes(CLUSTER));
    expect(found).toEqual(["too much memory"]);
    targetDisk.releaseAll();
    await Promise.all([first, second, third]);
  });

  it("does not count what failed", async () => {
    const { watch, target, targetDisk } = watched();
    targetDisk.failNth("pwrite", 1);
    await expect(target.pwrite(0, bytes(CLUSTER))).rejects.toMatchObject({ code: "EIO" });
    expect([watch.isCopied(0), watch.isTouched(0), watch.copiedClusters]).toEqual([false, true, 0]);
  });

  it("tells of discards, and copies without buffers where the plan says so", async () => {
    const { watch, source, target, discards, found } = watched({ copyRange: "works" });
    await source.copyRangeFrom(0, target, 0, CLUSTER);
    await source.pdiscard(0, CLUSTER);
    expect([found, discards, watch.copiedClusters]).toEqual([[], ["begin 0", "end true"], 1]);
    const refusing = watched({ copyRange: "refused" });
    await expect(refusing.source.copyRangeFrom(0, target, 0, CLUSTER)).rejects.toMatchObject({
      code: "ENOTSUP",
    });
  });

  it("shows the top layer as the plan says", async () => {
    const isPresent = [true, false, false, false, true, true, false, true];
    const { source } = watched({ isPresent });
    const status = async (offset: number) => {
      const { flags, length } = await source.blockStatus(offset, SIZE - offset);
      return [flags === 0, length];
    };
    expect(await status(0)).toEqual([false, 2048]);
    expect(await status(2048)).toEqual([true, 3 * 2048]);
    expect(await status(4 * 2048)).toEqual([false, 2 * 2048]);
    const plan = { ...drawBlockCopyPlan(new Decisions([])), isPresent, size: SIZE };
    expect([0, 1, 2, 3].map((cluster) => isAllocated(plan, cluster * CLUSTER))).toEqual([
      true,
      false,
      true,
      true,
    ]);
  });
});
