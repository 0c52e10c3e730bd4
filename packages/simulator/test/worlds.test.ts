import { readFileSync } from "node:fs";
import { join } from "node:path";
import { realEnv } from "@blocklayer/env";
import {
  findWorld,
  mergeReports,
  quantile,
  runCampaign,
  runSeed,
  worlds,
} from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

interface SavedSeed {
  readonly world: string;
  readonly seed: number;
  readonly why: string;
}

const saved = JSON.parse(
  readFileSync(join(import.meta.dirname, "../saved-seeds.json"), "utf8"),
) as SavedSeed[];
/** Of each world: more than 2,000 of all. */
const FRESH = 250;
const from = realEnv().random.below(2 ** 30);

describe.each(worlds)("the world $name", (world) => {
  it(`finds nothing in ${FRESH} fresh seeds from ${from}`, async () => {
    const { failures, seeds } = await runCampaign(world, { from, seeds: FRESH });
    expect(failures).toEqual([]);
    expect(seeds).toBe(FRESH);
  }, 120_000);
});

it.each(saved)("seed $seed of the world $world lives well: $why", async ({ world, seed }) => {
  expect((await runSeed(findWorld(world), seed)).failure).toBeUndefined();
});

it("a campaign reports the seeds that failed", async () => {
  const told: number[] = [];
  const report = await runCampaign(
    {
      name: "toy",
      situations: ["never", "lived", "another never"],
      run: ({ decisions, counts }) => {
        counts.set("lived", 1);
        return decisions.choose("fate", 2) === 0
          ? Promise.resolve()
          : Promise.reject(new Error("unlucky"));
      },
    },
    { from: 10, seeds: 20, onFailure: ({ seed }) => void told.push(seed) },
  );
  expect(report.failures.map(({ seed }) => seed)).toEqual(told);
  expect(told.length).toBeGreaterThan(0);
  expect(report.failures[0]).toMatchObject({
    world: "toy",
    kind: "Error: unlucky",
    message: "Error: unlucky",
  });
  expect(report.counts.get("lived")).toBe(20);
  expect(report.missing).toEqual(["another never", "never"]);
  expect(mergeReports("toy", [report, { ...report, missing: [] }]).missing).toEqual(report.missing);
});

it("a campaign finds a world that is not deterministic", async () => {
  let lives = 0;
  const { failures } = await runCampaign(
    {
      name: "moody",
      situations: [],
      run: ({ trace }) => {
        lives += 1;
        trace.note("x".repeat(lives));
        return Promise.resolve();
      },
    },
    { from: 3, seeds: 4, repeatedOf: 5 },
  );
  expect(failures.map(({ seed }) => seed)).toEqual([3, 5]);
  expect(failures[0]?.message).toContain("not deterministic: the trace ");
});

it("a campaign gives the same hash however it is divided", async () => {
  const world = findWorld("range-lock");
  const whole = await runCampaign(world, { from: 1, seeds: 30 });
  const parts = [
    await runCampaign(world, { from: 11, seeds: 20 }),
    await runCampaign(world, { from: 1, seeds: 10 }),
  ];
  const merged = mergeReports(world.name, parts);
  expect(merged).toEqual(whole);
  const others = await runCampaign(world, { from: 2, seeds: 30 });
  expect(others.hash).not.toBe(whole.hash);
});

it.each([
  { part: 0.5, value: 3 },
  { part: 0.99, value: 5 },
  { part: 0, value: 1 },
])("the quantile of $part is $value", ({ part, value }) => {
  expect(quantile([5, 1, 4, 2, 3], part)).toBe(value);
  expect(quantile([], part)).toBe(0);
});
