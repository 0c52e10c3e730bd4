import { runCampaign, runSeed, type World } from "@blocklayer/simulator";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

let others: NodeJS.UnhandledRejectionListener[] = [];

beforeEach(() => {
  // The test runner would take them for its own.
  others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
});

afterEach(() => {
  for (const listener of others) process.on("unhandledRejection", listener);
});

/** Seed 3 fails, and leaves a rejection behind that nobody handles. */
const careless: World = {
  name: "careless",
  situations: [],
  run: ({ decisions }) => {
    const isBad = decisions.choose("number", 4) === 3;
    if (!isBad) return Promise.resolve();
    void Promise.reject(new Error("left behind"));
    return Promise.reject(new Error("failed"));
  },
};

/** A rejection is handled two turns after it came. */
const late: World = {
  name: "late",
  situations: [],
  async run({ scheduler }) {
    const promise = Promise.reject(new Error("too late"));
    await scheduler.turn("one");
    await scheduler.turn("two");
    await promise.catch(() => undefined);
  },
};

describe("rejections that nobody handles", () => {
  it("of a life that failed are not those of the next one", async () => {
    const bad: number[] = [];
    for (let seed = 1; seed <= 40; seed += 1) {
      if ((await runSeed(careless, seed)).failure !== undefined) bad.push(seed);
    }
    expect(bad.length).toBeGreaterThan(2);
    expect(bad.length).toBeLessThan(38);
    const { failures } = await runCampaign(careless, { seeds: 40, repeatedOf: 1000 });
    expect(failures.map(({ seed }) => seed)).toEqual(bad);
    expect(failures.every(({ message }) => message.includes("failed"))).toBe(true);
  });

  it("are found too when somebody handles them a turn too late", async () => {
    const { failures } = await runCampaign(late, { from: 7, seeds: 3 });
    expect(failures.map(({ seed }) => seed)).toEqual([7]);
    expect(failures[0]?.message).toContain("unhandled rejection");
  });
});
