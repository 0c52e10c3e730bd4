import { readFileSync } from "node:fs";
import { join } from "node:path";
import { realEnv } from "@blocklayer/env";
import { findWorld, runCampaign, runSeed, worlds } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

interface SavedSeed {
  readonly world: string;
  readonly seed: number;
  readonly why: string;
}

const saved = JSON.parse(
  readFileSync(join(import.meta.dirname, "../saved-seeds.json"), "utf8"),
) as SavedSeed[];
const from = realEnv().random.below(2 ** 30);

describe.each(worlds)("the world $name", (world) => {
  it(`finds nothing in 400 fresh seeds from ${from}`, async () => {
    const { failures, seeds } = await runCampaign(world, { from, seeds: 400 });
    expect(failures).toEqual([]);
    expect(seeds).toBe(400);
  }, 60_000);

  it("is wild enough for its rare situations", async () => {
    const { counts } = await runCampaign(world, { seeds: 400 });
    expect([...counts.keys()]).toEqual(expect.arrayContaining([...world.situations]));
  }, 60_000);
});

it.each(saved)("seed $seed of the world $world lives well: $why", async ({ world, seed }) => {
  expect((await runSeed(findWorld(world), seed)).failure).toBeUndefined();
});

it("a campaign reports the seeds that failed", async () => {
  const told: number[] = [];
  const report = await runCampaign(
    {
      name: "toy",
      situations: [],
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
    message: "Error: unlucky: Error: unlucky",
  });
  expect(report.counts.get("lived")).toBe(20);
});
