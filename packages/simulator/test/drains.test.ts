import {
  channelDrain,
  defaultDrain,
  immediateDrain,
  nativeDrain,
  requestLayerWorld,
  runSeed,
  worlds,
} from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

describe("a seed", () => {
  it.each(worlds)("has the same trace by every drain, in the world $name", async (world) => {
    const native = nativeDrain();
    expect(native?.name).toBe("native");
    if (native === undefined) return;
    for (let seed = 1; seed <= 5; seed += 1) {
      const outcomes = [];
      for (const drain of [native, immediateDrain, channelDrain]) {
        outcomes.push(await runSeed(world, seed, { drain }));
      }
      expect(new Set(outcomes.map(({ hash }) => hash)).size).toBe(1);
      expect(new Set(outcomes.map(({ events }) => events)).size).toBe(1);
      expect(outcomes.map(({ failure }) => failure)).toEqual([undefined, undefined, undefined]);
    }
  });

  it.each(worlds)("is replayed by its decisions, in the world $name", async (world) => {
    for (let seed = 100; seed < 110; seed += 1) {
      const first = await runSeed(world, seed);
      const again = await runSeed(world, first.decisions);
      expect(again.hash).toBe(first.hash);
      expect(again.decisions).toEqual(first.decisions);
    }
  });

  it("has other traces than other seeds", async () => {
    const hashes = new Set<string>();
    for (let seed = 1; seed <= 20; seed += 1) {
      hashes.add((await runSeed(requestLayerWorld, seed)).hash);
    }
    expect(hashes.size).toBe(20);
  });

  it("shows its lines on demand", async () => {
    const { lines } = await runSeed(requestLayerWorld, 4, { keepsLines: true });
    expect(lines.some((line) => /^\d+ ms: /.test(line))).toBe(true);
    expect(lines.some((line) => line.startsWith("  begins: client"))).toBe(true);
  });
});

describe("a drain", () => {
  it.each([defaultDrain(), immediateDrain, channelDrain])(
    "passes on what a step throws: $name",
    async (drain) => {
      const error = new Error("a step failed");
      const steps = (): boolean => {
        throw error;
      };
      await expect(drain.loop(steps)).rejects.toBe(error);
    },
  );

  it("is the native one by default, where there is one", () => {
    expect(defaultDrain().name).toBe("native");
  });
});

describe("a run", () => {
  it("fails by a rejection that nobody handles", async () => {
    const seen: unknown[] = [];
    // The test runner would take it for its own.
    const others = process.listeners("unhandledRejection");
    process.removeAllListeners("unhandledRejection");
    try {
      const outcome = await runSeed(
        {
          name: "careless",
          situations: [],
          run: () => {
            void Promise.reject(new Error("nobody cares"));
            return Promise.resolve();
          },
        },
        1,
      );
      seen.push(outcome.failure?.message);
    } finally {
      for (const listener of others) process.on("unhandledRejection", listener);
    }
    expect(seen).toEqual(["unhandled rejection: Error: nobody cares"]);
  });

  it("turns an error of the program into a failure without numbers in its kind", async () => {
    const { failure } = await runSeed(
      { name: "broken", situations: [], run: () => Promise.reject(new RangeError("offset 4096")) },
      1,
    );
    expect([failure?.kind, failure?.message]).toEqual([
      "RangeError: offset #",
      "RangeError: offset 4096",
    ]);
  });
});
