import { SeededRandom } from "@blocklayer/env";
import { NoveltySearch, runSeed, type World } from "@blocklayer/simulator";
import { expect, it } from "vitest";

/** Seven doors, each of them opened by one choice of eight: a seed opens all of them once in two million. */
const doors: World = {
  name: "doors",
  situations: [],
  run: async ({ decisions, scheduler }) => {
    for (let door = 1; door <= 7; door += 1) {
      if (decisions.choose("key", 8) !== 3) return;
      await scheduler.turn(`door ${"abcdefg"[door - 1] ?? ""}`);
    }
    throw new Error("the treasure");
  },
};

it("a search for novelty finds what builds on what was found", async () => {
  const search = new NoveltySearch(doors, new SeededRandom(1));
  let lives = 1;
  let outcome = await search.step();
  while (outcome.failure === undefined && lives < 20_000) {
    outcome = await search.step();
    lives += 1;
  }
  expect(outcome.failure?.message).toContain("the treasure");
  expect(search.kept).toBeGreaterThan(3);
  expect(search.features).toBeGreaterThanOrEqual(search.kept);
  const again = await runSeed(doors, outcome.decisions);
  expect(again.failure?.message).toContain("the treasure");
});

it("features are kept on demand: what came right after what, without its numbers", async () => {
  const world: World = {
    name: "steps",
    situations: [],
    run: async ({ scheduler }) => {
      for (let step = 0; step < 5; step += 1) await scheduler.turn(`step ${step}`);
    },
  };
  expect((await runSeed(world, 1)).features.size).toBe(0);
  expect((await runSeed(world, 1, { keepsFeatures: true })).features.size).toBe(2);
});
