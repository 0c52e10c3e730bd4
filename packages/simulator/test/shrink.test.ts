import { runSeed, type Simulation, shrink, type World } from "@blocklayer/simulator";
import { expect, it } from "vitest";

/** Fails when one of 30 numbers is 40 or more and a later one is 7. */
const toyWorld: World = {
  name: "toy",
  situations: [],
  run({ decisions }: Simulation): Promise<void> {
    const values = Array.from({ length: 30 }, () => decisions.choose("value", 64));
    const large = values.findIndex((value) => value >= 40);
    if (large >= 0 && values.indexOf(7, large) >= 0) throw new Error("both happened");
    return Promise.resolve();
  },
};

it("shrinking leaves the decisions that matter", async () => {
  for (let seed = 1; ; seed += 1) {
    const failed = await runSeed(toyWorld, seed);
    if (failed.failure === undefined) continue;
    const shrunk = await shrink(toyWorld, failed);
    expect(shrunk.outcome.failure?.message).toBe(failed.failure.message);
    expect(shrunk.decisions.filter((value) => value !== 0)).toEqual([40, 7]);
    expect(shrunk.decisions.length).toBeLessThanOrEqual(4);
    expect((await runSeed(toyWorld, shrunk.decisions)).hash).toBe(shrunk.outcome.hash);
    return;
  }
});

it("shrinking spends no more runs than it may", async () => {
  for (let seed = 1; ; seed += 1) {
    const failed = await runSeed(toyWorld, seed);
    if (failed.failure === undefined) continue;
    expect((await shrink(toyWorld, failed, { runsMax: 5 })).runs).toBe(5);
    return;
  }
});
