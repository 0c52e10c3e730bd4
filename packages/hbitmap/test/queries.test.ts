import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { borders, Pair, type Shadow } from "./shadow.ts";

const MAX = 2 ** 53 - 2 ** 30;

describe.each(
  borders.flatMap((border) => [1, 2, 16].map((granularity) => ({ ...border, granularity }))),
)("queries with borders of $name in groups of $granularity", ({ L1, L2, granularity }) => {
  const size = 3 * L2;
  const sets: [number, number][] = [
    [L2, L1],
    [L2 + 5, L1],
    [L2 + 3 * L1, 1],
    [2 * L2, 5],
    [2 * L2 + L1 - 1, 2],
    [size - 3, 3],
  ];
  const starts = [
    0,
    1,
    L1 - 1,
    L1,
    L2 - 1,
    L2,
    L2 + 1,
    L2 + 5,
    L2 + L1 + 4,
    L2 + L1 + 5,
    L2 + L1 + 6,
  ]
    .concat([L2 + 3 * L1 - 1, 2 * L2 - 1, 2 * L2, 2 * L2 + 4, 2 * L2 + 5, 2 * L2 + L1, size - 4])
    .concat([size - 3, size - 1, size, size + 1, size + L2]);
  const counts = [0, 1, 2, 3, 4, 6, L1, MAX];

  function steps(): Pair[] {
    return Array.from({ length: sets.length + 1 }, (_, done) => {
      const both = new Pair(new HBitmap(size, granularity));
      for (const [offset, length] of sets.slice(0, done)) both.set(offset, length);
      return both;
    });
  }

  /** The questions to which the bitmap, at any step, gives another answer than its shadow. */
  function differences<Question extends number[]>(
    questions: Question[],
    ask: (bitmap: HBitmap | Shadow, ...question: Question) => unknown,
  ): string[] {
    return steps().flatMap(({ bitmap, shadow }) =>
      questions
        .map((question) => [question, ask(bitmap, ...question), ask(shadow, ...question)] as const)
        .map(([question, answer, expected]) =>
          [question, answer, expected].map((part) => JSON.stringify(part)),
        )
        .filter(([, answer, expected]) => answer !== expected)
        .map(([question, answer, expected]) => `${question}: ${answer} is not ${expected}`),
    );
  }

  const ranges = starts.flatMap((start) => counts.map((count): [number, number] => [start, count]));

  it("nextDirty agrees with a search byte by byte", () => {
    expect(differences(ranges, (map, start, count) => map.nextDirty(start, count))).toEqual([]);
  });

  it("nextZero agrees with a search byte by byte", () => {
    expect(differences(ranges, (map, start, count) => map.nextZero(start, count))).toEqual([]);
  });

  it("nextDirtyArea agrees with a search byte by byte, with limits and empty ranges", () => {
    const questions = ranges.flatMap(([start, count]) =>
      [1, 3, 5, 10, MAX].map((max): [number, number, number] => [start, count, max]),
    );
    const wrong = differences(questions, (map, start, count, max) =>
      map.nextDirtyArea(start, Math.min(start + count, MAX), max),
    );
    expect(wrong).toEqual([]);
  });

  it("countBetween counts whole groups, and agrees with counting them one by one", () => {
    const questions = starts.flatMap((start) =>
      starts.map((end): [number, number] => [start, end]),
    );
    expect(differences(questions, (map, start, end) => map.countBetween(start, end))).toEqual([]);
  });
});

describe("queries after truncate", () => {
  it("nextZero finds what growing has added", () => {
    const bitmap = new HBitmap(64, 1);
    bitmap.truncate(128);
    bitmap.set(0, 64);
    expect(bitmap.nextZero(0)).toBe(64);
    expect(bitmap.nextZero(0, 64)).toBe(-1);
  });

  it("nextDirtyArea finds what was set beyond the former end", () => {
    const bitmap = new HBitmap(64, 1);
    bitmap.truncate(128);
    bitmap.set(65, 1);
    expect(bitmap.nextDirtyArea(0)).toEqual({ offset: 65, length: 1 });
  });
});

describe("queries do not look beyond the size", () => {
  it("though the last group reaches there", () => {
    const bitmap = new HBitmap(13, 8);
    bitmap.setAll();
    expect(bitmap.nextDirty(13)).toBe(-1);
    expect(bitmap.nextDirtyArea(9)).toEqual({ offset: 9, length: 4 });
    expect(bitmap.status(9, 4)).toEqual({ dirty: true, length: 4 });
    expect(bitmap.get(15)).toBe(true);
  });
});

describe("status", () => {
  // 1024 bytes in groups of 8; bytes 256 to 511 are dirty.
  it.each([
    ["all dirty", 256, 256, true, 256],
    ["all clean", 512, 512, false, 512],
    ["dirty, then clean", 300, 700, true, 212],
    ["clean, then dirty", 0, 1024, false, 256],
    ["one byte, dirty", 511, 1, true, 1],
    ["one byte, clean", 512, 1, false, 1],
    ["clean up to the dirty part", 100, 156, false, 156],
  ])("of a range that is %s", (_title, offset, length, dirty, run) => {
    const bitmap = new HBitmap(1024, 8);
    bitmap.set(256, 256);
    expect(bitmap.status(offset, length)).toEqual({ dirty, length: run });
  });
});
