import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Canary, plant } from "../src/canaries/canary.ts";
import { canaries } from "../src/canaries/canary-list.ts";
import { describeHunt, huntInProcess, median } from "../src/canaries/hunt-all.ts";

const packages = join(import.meta.dirname, "../..");

describe("a canary", () => {
  it.each(canaries)("matches its source once: $id", (canary) => {
    const source = readFileSync(join(packages, canary.file), "utf8");
    expect(plant(canary, source)).not.toBe(source);
  });

  it.each([
    { source: "one thing", count: 0 },
    { source: "bug and bug", count: 2 },
  ])("that matches $count times is refused", ({ source, count }) => {
    const canary = { ...(canaries[0] as Canary), id: "it", file: "a.ts", find: "bug" };
    expect(() => plant(canary, source)).toThrow(
      `canary it: its text occurs ${count} times in a.ts`,
    );
  });

  it("is planted as it is written, dollars too", () => {
    const canary = { ...(canaries[0] as Canary), find: "good", replace: "$& bad" };
    expect(plant(canary, "so good")).toBe("so $& bad");
  });

  it("has a name of its own", () => {
    expect(new Set(canaries.map(({ id }) => id)).size).toBe(canaries.length);
  });
});

describe("a hunt", () => {
  it.each(["rmw-not-serialised", "running-copy-counts-as-copied", "failed-backup-drops-bits"])(
    "finds %s",
    async (id) => {
      const canary = canaries.find((one) => one.id === id) as Canary;
      const result = await huntInProcess(canary, 2, 0);
      expect(result.seeds).toHaveLength(2);
      expect(describeHunt(canary, result)).toContain(
        `${id} (${canary.invariant}): found 2 times, median `,
      );
    },
    60_000,
  );

  it("fails for a canary that there is not", async () => {
    const canary = { ...(canaries[0] as Canary), id: "none" };
    await expect(huntInProcess(canary, 1, 0)).rejects.toThrow("there is no canary 'none'");
  });

  it("is described with its shrunk decisions, or as not found", () => {
    const canary = canaries[0] as Canary;
    expect(describeHunt(canary, { id: canary.id, seeds: [] })).toBe(
      `${canary.id} (${canary.invariant}): NOT FOUND`,
    );
    const hunt = {
      id: canary.id,
      seeds: [3, 1, 2],
      kind: "wrong data",
      before: [9, 5],
      after: [2, 1],
      decisions: [0, 1],
      shrinkRuns: 4,
    } as const;
    expect(describeHunt(canary, hunt)).toBe(
      `${canary.id} (${canary.invariant}): found 3 times, median 2 seeds; wrong data\n` +
        "  9 (5 not 0) -> 2 (1 not 0) decisions in 4 runs: [0,1]",
    );
    expect(median([])).toBeUndefined();
  });
});
