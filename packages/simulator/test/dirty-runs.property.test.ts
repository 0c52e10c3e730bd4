import fc from "fast-check";
import { expect, it } from "vitest";
import { DirtyRuns } from "../src/worlds/dirty-runs.ts";

const GROUPS = 80;

const range = fc
  .tuple(fc.nat(GROUPS), fc.nat(GROUPS))
  .map(([one, two]) => ({ first: Math.min(one, two), end: Math.max(one, two) }));

const change = fc.record({ isDirty: fc.boolean(), range });

const groups = Array.from({ length: GROUPS }, (_, group) => group);

it("runs of dirty groups answer as a plain set of groups", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 12 }), range, (changes, asked) => {
      const runs = new DirtyRuns();
      const set = new Set<number>();
      for (const { isDirty, range: at } of changes) {
        const touched = groups.filter((group) => at.first <= group && group < at.end);
        const differs = touched.some((group) => set.has(group) !== isDirty);
        for (const group of touched) isDirty ? set.add(group) : set.delete(group);
        const told = isDirty ? runs.set(at.first, at.end) : runs.clear(at.first, at.end);
        expect(told).toBe(differs);
      }
      const { first, end } = asked;
      const inside = [...set].filter((group) => first <= group && group < end);
      expect(groups.filter((group) => runs.has(group))).toEqual(
        groups.filter((one) => set.has(one)),
      );
      expect(runs.count()).toBe(set.size);
      expect(runs.count(first, end)).toBe(inside.length);
      expect(runs.nextDirty(first)).toBe(groups.find((one) => one >= first && set.has(one)) ?? -1);
      const clean = groups.find((one) => one >= first && !set.has(one)) ?? Math.max(first, GROUPS);
      expect(runs.nextClean(first)).toBe(clean);
    }),
    { numRuns: 200 },
  );
});

it("bytes of runs, loaded, are the same runs", () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 8 }), fc.constantFrom(0, 64), (changes, first) => {
      const runs = new DirtyRuns();
      for (const { isDirty, range: at } of changes) {
        if (isDirty) runs.set(at.first, at.end);
        else runs.clear(at.first, at.end);
      }
      const bytes = runs.bytes(first, GROUPS);
      expect(bytes.length % 8).toBe(0);
      const copy = new DirtyRuns();
      copy.set(0, GROUPS);
      copy.load(bytes, first, GROUPS);
      runs.set(0, first);
      expect(copy.runs).toEqual(runs.runs);
    }),
    { numRuns: 200 },
  );
});
