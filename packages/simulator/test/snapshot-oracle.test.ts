import { BlockError } from "@blocklayer/errors";
import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { Decisions } from "../src/decisions.ts";
import { Medium } from "../src/disk/medium.ts";
import { drawSnapshotPlan, type SnapshotPlan } from "../src/worlds/snapshot-access-plan.ts";
import { type SnapshotAccess, SnapshotOracle } from "../src/worlds/snapshot-oracle.ts";

const CLUSTER = 65536;
const SIZE = 3 * CLUSTER;

interface Judged {
  readonly oracle: SnapshotOracle;
  readonly source: Medium;
  readonly target: Medium;
  readonly final: Medium;
  /** Kinds of what was found. */
  readonly found: string[];
}

function judged(plan: Partial<SnapshotPlan> = {}): Judged {
  const decisions = new Decisions([]);
  const medium = (name: string): Medium =>
    new Medium({ name, size: SIZE, decisions, post: () => undefined, report: () => undefined });
  const [source, target, final] = [medium("source"), medium("target"), medium("final")];
  source.format(new Uint8Array(SIZE).fill(1, 0, 2 * CLUSTER));
  const found: string[] = [];
  const oracle = new SnapshotOracle(
    {
      expect: (condition, kind) => void (condition || found.push(kind)),
      fail: (kind) => void found.push(kind),
      sometimes: () => undefined,
    },
    { ...drawSnapshotPlan(decisions), size: SIZE, ...plan },
    { source, target, final },
  );
  return { oracle, source, target, final, found };
}

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const refused = new BlockError("EACCES", "not part of the snapshot");
const mixed: Partial<SnapshotPlan> = { onError: "break-snapshot", timeout: 1 };

describe("the oracle of a snapshot", () => {
  it.each<[string, (judged: Judged) => void, string[]]>([
    [
      "takes what the instant held",
      ({ oracle }) => oracle.judgeRead(oracle.access("read", 0, 10), bytes(10, 1)),
      [],
    ],
    [
      "finds what is newer",
      ({ oracle }) => oracle.judgeRead(oracle.access("read", CLUSTER, 10), bytes(10, 2)),
      ["not the point in time"],
    ],
    [
      "takes zeroes where there are zeroes",
      ({ oracle }) => oracle.judgeStatus(oracle.access("status", 2 * CLUSTER, 10), 10, true),
      [],
    ],
    [
      "finds zeroes that are data",
      ({ oracle }) => oracle.judgeStatus(oracle.access("status", 0, 10), 10, true),
      ["zeroes that are data"],
    ],
    [
      "finds a run that is longer than what was asked",
      ({ oracle }) => oracle.judgeStatus(oracle.access("status", 0, 10), 11, false),
      ["wrong run"],
    ],
    [
      "finds a refusal without a reason",
      ({ oracle }) => oracle.judgeError(oracle.access("read", 0, 10), refused),
      ["error from nowhere"],
    ],
    [
      "finds an overwrite of what is not kept",
      ({ oracle }) => oracle.beforeOverwrite("write", 0, 10),
      ["overwrote before copying"],
    ],
    [
      "takes an overwrite of what is kept",
      ({ oracle, target }) => {
        target.format(bytes(SIZE, 1));
        oracle.beforeOverwrite("write", CLUSTER - 1, 2);
      },
      [],
    ],
    [
      "takes an overwrite after the end",
      ({ oracle }) => {
        oracle.end();
        oracle.beforeOverwrite("write", 0, 10);
      },
      [],
    ],
  ])("%s", (_, act, expected) => {
    const made = judged();
    made.oracle.begin(undefined);
    act(made);
    expect(made.found).toEqual(expected);
  });

  it("knows what was given up: whole clusters, when the discard has ended", () => {
    const { oracle, found } = judged();
    oracle.begin(undefined);
    const ended = oracle.discard(10, 2 * CLUSTER);
    const during = oracle.access("read", CLUSTER, 1);
    oracle.judgeRead(during, bytes(1, 1));
    oracle.judgeError(during, refused);
    oracle.beforeOverwrite("write", CLUSTER, 1);
    expect(found).toEqual([]);
    ended();
    oracle.judgeRead(during, bytes(1, 1));
    expect(found).toEqual([]);
    oracle.judgeRead(oracle.access("read", CLUSTER, 1), bytes(1, 1));
    expect(found.splice(0)).toEqual(["succeeded without right"]);
    oracle.judgeError(oracle.access("read", 0, 1), refused);
    expect(found).toEqual(["error from nowhere"]);
  });

  it("knows what the bitmap does not mark", () => {
    const { oracle, found } = judged();
    const marked = new HBitmap(SIZE, 4096);
    marked.set(CLUSTER, 1);
    oracle.begin(marked);
    oracle.beforeOverwrite("write", 0, 10);
    oracle.judgeError(oracle.access("read", 0, 10), refused);
    const across: SnapshotAccess = oracle.access("status", CLUSTER, CLUSTER + 1);
    oracle.judgeStatus(across, CLUSTER, false);
    expect(found).toEqual([]);
    oracle.judgeStatus(across, CLUSTER + 1, false);
    expect(found).toEqual(["succeeded without right"]);
  });

  it("lets nothing succeed that begins after the snapshot was broken", () => {
    const { oracle, found } = judged(mixed);
    oracle.begin(undefined);
    const before = oracle.access("read", 0, 1);
    oracle.broken();
    oracle.judgeRead(before, bytes(1, 1));
    oracle.beforeOverwrite("write", 0, 10);
    oracle.judgeError(before, refused);
    expect(found).toEqual([]);
    oracle.judgeRead(oracle.access("read", 0, 1), bytes(1, 1));
    oracle.broken();
    expect(found).toEqual(["succeeded without right", "broke twice"]);
  });

  it("finds a snapshot that is broken though guests bear the errors", () => {
    const { oracle, found } = judged();
    oracle.begin(undefined);
    oracle.broken();
    expect(found).toEqual(["broke for nothing"]);
  });

  it("judges a backup of the snapshot: equal and stable", async () => {
    const { oracle, source, final, found } = judged();
    oracle.begin(undefined);
    final.format(source.cache.visible.slice());
    oracle.judgeBackup();
    expect(found).toEqual([]);
    await final.write(0, bytes(512, 9), false);
    oracle.judgeBackup();
    expect(found).toEqual(["backup is not the point in time", "backup not stable"]);
  });

  it("passes on what is no error of a disk", () => {
    const { oracle } = judged();
    const access = oracle.access("read", 0, 1);
    expect(() => oracle.judgeError(access, new TypeError("bug"))).toThrow("bug");
  });
});
