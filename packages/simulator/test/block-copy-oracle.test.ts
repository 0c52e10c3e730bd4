import { BlockCopy } from "@blocklayer/block-copy";
import { ScriptedDriver, testChild } from "@blocklayer/driver-tests";
import { manualEnv } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { Decisions } from "../src/decisions.ts";
import { Medium } from "../src/disk/medium.ts";
import { BlockCopyOracle } from "../src/worlds/block-copy-oracle.ts";
import { type BlockCopyPlan, drawBlockCopyPlan } from "../src/worlds/block-copy-plan.ts";
import { CopyWatch } from "../src/worlds/copy-watch.ts";

const CLUSTER = 4096;
const SIZE = 4 * CLUSTER;

interface Judged {
  readonly oracle: BlockCopyOracle;
  readonly engine: BlockCopy;
  readonly watch: CopyWatch;
  readonly target: Medium;
  readonly found: string[];
}

/** An engine over disks of its own, beside two media of which the test says what they hold. */
function judged(changes: Partial<BlockCopyPlan> = {}): Judged {
  const decisions = new Decisions([]);
  const plan = { ...drawBlockCopyPlan(decisions), clusterCount: 4, size: SIZE, ...changes };
  const medium = (name: string): Medium =>
    new Medium({ name, size: SIZE, decisions, post: () => undefined, report: () => undefined });
  const [source, target] = [medium("source"), medium("target")];
  source.format(new Uint8Array(SIZE).fill(1));
  const found: string[] = [];
  const findings = {
    expect: (condition: boolean, kind: string) => void (condition || found.push(kind)),
  };
  const oracle = new BlockCopyOracle(findings, plan, { source, target });
  const watch = new CopyWatch(findings, plan, {
    isWanted: () => true,
    discarding: () => () => undefined,
  });
  const child = () => testChild(new ScriptedDriver({ size: SIZE }));
  const edge = child();
  const engine = new BlockCopy({
    env: manualEnv(),
    source: watch.source(child(), edge),
    target: watch.target(edge),
    clusterSize: CLUSTER,
  });
  engine.setProgress(oracle);
  oracle.begin([0, CLUSTER, 2 * CLUSTER, 3 * CLUSTER]);
  return { oracle, engine, watch, target, found };
}

describe("the oracle of copies", () => {
  it("takes what is in the target, or is still to be copied", async () => {
    const { oracle, engine, watch, target, found } = judged();
    oracle.expectNothingLost(engine);
    oracle.expectIdle(engine, watch);
    await engine.copy(0, CLUSTER);
    target.format(new Uint8Array(SIZE).fill(1, 0, CLUSTER));
    oracle.expectCopied({ engine, watch }, 0, CLUSTER);
    oracle.expectNothingLost(engine);
    oracle.expectIdle(engine, watch);
    expect(found).toEqual([]);
  });

  it("finds a clean cluster that the target does not hold", async () => {
    const { oracle, engine, watch, found } = judged();
    await engine.copy(CLUSTER, CLUSTER);
    oracle.expectNothingLost(engine);
    oracle.expectCopied({ engine, watch }, CLUSTER, CLUSTER);
    expect(found).toEqual(["bit lost", "not copied"]);
  });

  it("finds a call that succeeds while its range is dirty", () => {
    const { oracle, engine, watch, target, found } = judged();
    target.format(new Uint8Array(SIZE).fill(1));
    oracle.expectCopied({ engine, watch }, 0, CLUSTER);
    expect(found).toEqual(["not clean"]);
  });

  it("finds counters that are not exact", () => {
    const { oracle, engine, watch, found } = judged();
    oracle.workDone(CLUSTER);
    oracle.expectIdle(engine, watch);
    oracle.workDone(-CLUSTER);
    oracle.setRemaining(CLUSTER);
    oracle.expectIdle(engine, watch);
    expect(found).toEqual(["wrong progress", "wrong progress"]);
  });

  it("takes a skip only on purpose, or where the layer holds nothing", () => {
    const isPresent = [false, false, true, false, true, true, true, true];
    const { oracle, watch, found } = judged({ isPresent });
    oracle.skipped(0, CLUSTER, watch);
    oracle.givingUp(() => oracle.skipped(2 * CLUSTER, CLUSTER, watch));
    expect([found, oracle.isWanted(0), oracle.isWanted(2 * CLUSTER)]).toEqual([[], false, false]);
    oracle.skipped(CLUSTER, CLUSTER, watch);
    oracle.skipped(0, CLUSTER, watch);
    expect(found).toEqual(["skipped what was wanted", "skipped what was wanted"]);
  });

  it("finds what was written to a cluster that nobody wanted", () => {
    const { oracle, engine, watch, target, found } = judged();
    oracle.givingUp(() => {
      engine.reset(0, CLUSTER);
      oracle.skipped(0, CLUSTER, watch);
    });
    oracle.expectCopied({ engine, watch }, 0, CLUSTER);
    expect(found).toEqual([]);
    target.format(new Uint8Array(SIZE).fill(1));
    oracle.expectCopied({ engine, watch }, 0, CLUSTER);
    expect(found).toEqual(["wrote what was not wanted"]);
  });
});
