import { Decisions, runSeed, Trace, trimmed } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

describe("decisions", () => {
  it("from one seed are always the same", () => {
    const draw = (): number[] => {
      const decisions = new Decisions(7);
      for (let index = 0; index < 20; index += 1) decisions.choose("any", 100);
      return decisions.recorded;
    };
    expect(draw()).toEqual(draw());
    expect(new Set(draw()).size).toBeGreaterThan(5);
  });

  it("from a list are what it says, then 0", () => {
    const decisions = new Decisions([3, 1]);
    expect([1, 2, 3].map(() => decisions.choose("any", 5))).toEqual([3, 1, 0]);
    expect(decisions.recorded).toEqual([3, 1, 0]);
  });

  it("reduce numbers of the list that are too large", () => {
    expect(new Decisions([13]).choose("any", 5)).toBe(3);
  });

  it("record nothing where there is no choice", () => {
    const decisions = new Decisions(1);
    expect(decisions.choose("any", 1)).toBe(0);
    expect(decisions.recorded).toEqual([]);
  });

  it.each([
    { list: [0, -1], value: "-1" },
    { list: [0, 1.5], value: "1.5" },
    { list: [0, Number.NaN], value: "NaN" },
    { list: [0, "1" as unknown as number], value: "1" },
  ])("refuse a list with $value", async ({ list, value }) => {
    const error = new RangeError(`decision 1 is ${value}, not a whole number of 0 or more`);
    expect(() => new Decisions(list)).toThrow(error);
    const world = { name: "toy", situations: [], run: () => Promise.resolve() };
    await expect(runSeed(world, list)).rejects.toThrow(error);
  });

  it("say in a trace what a number means, which is no part of its hash", () => {
    const [named, bare] = [new Trace({ keepsLines: true }), new Trace()];
    for (const trace of [named, bare]) {
      const decisions = new Decisions([1, 2, 1, 1, 1], trace);
      decisions.among("way", ["dull", "wild"]);
      decisions.weighted("fate", [1, 1, 1], ["early", "late", "never"]);
      decisions.weighted("another", [1, 0], ["early", "late"]);
      decisions.weighted("bare", [1, 1]);
      decisions.among("thing", [{}, {}]);
    }
    expect(named.lines).toEqual([
      "  way -> 1 (wild)",
      "  fate -> 2 (never)",
      "  another -> 1 (early)",
      "  bare -> 1",
      "  thing -> 1",
    ]);
    expect(named.hash).toBe(bare.hash);
  });

  it("refuse a question without an answer", () => {
    expect(() => new Decisions(1).choose("any", 0)).toThrow("any: 0 is no number of choices");
  });

  it.each([
    { weights: [0, 5, 0], list: [0], chosen: 1 },
    { weights: [0, 5, 0], list: [2], chosen: 1 },
    { weights: [1, 5, 0], list: [1], chosen: 1 },
    { weights: [0, 0], list: [1], chosen: 0 },
  ])("take $chosen of $weights when the list says $list", ({ weights, list, chosen }) => {
    expect(new Decisions(list).weighted("any", weights)).toBe(chosen);
  });

  it("happen about as often as their weights say", () => {
    const decisions = new Decisions(3);
    const counts = [0, 0];
    for (let index = 0; index < 4000; index += 1) {
      const chosen = decisions.weighted("any", [3, 1]);
      counts[chosen] = (counts[chosen] ?? 0) + 1;
    }
    expect(counts[0]).toBeGreaterThan(2800);
    expect(counts[0]).toBeLessThan(3200);
  });

  it("answer among values, the first one being the dullest", () => {
    expect(new Decisions([]).among("any", ["dull", "wild"])).toBe("dull");
    expect(new Decisions([1]).among("any", ["dull", "wild"])).toBe("wild");
    expect(new Decisions([1]).chance("any", 1, 100)).toBe(true);
  });

  it("need no zeroes at the end", () => {
    expect(trimmed([0, 2, 0, 0])).toEqual([0, 2]);
    expect(trimmed([0, 0])).toEqual([]);
  });
});
