import { DelayHistogram } from "@blocklayer/backup-top";
import { describe, expect, it } from "vitest";

function recorded(...delays: number[]): DelayHistogram {
  const histogram = new DelayHistogram();
  for (const delay of delays) histogram.record(delay);
  return histogram;
}

describe("the histogram of delays", () => {
  it("is empty at first", () => {
    expect(new DelayHistogram().snapshot()).toEqual({
      count: 0,
      sumMs: 0,
      p50Ms: 0,
      p99Ms: 0,
      maxMs: 0,
    });
  });

  it("counts what was not delayed as 0", () => {
    const histogram = recorded(0, -1);
    histogram.recordUndelayed();
    expect(histogram.snapshot()).toMatchObject({ count: 3, sumMs: 0, p99Ms: 0, maxMs: 0 });
  });

  it.each([
    [[1, 2, 3, 4], 2, 4, 4, 10],
    [[0, 0, 0, 8], 0, 8, 8, 8],
    [Array.from({ length: 100 }, (_, index) => (index < 99 ? 1 : 1000)), 1, 1, 1000, 1099],
    [[0.0001], 0.0001, 0.0001, 0.0001, 0.0001],
    [[5e9], 5e9, 5e9, 5e9, 5e9],
  ])("of %j has percentiles that are at most a fifth too high", (delays, p50, p99, max, sum) => {
    const snapshot = recorded(...delays).snapshot();
    expect(snapshot.count).toBe(delays.length);
    expect(snapshot.sumMs).toBeCloseTo(sum, 6);
    expect(snapshot.maxMs).toBe(max);
    for (const [found, exact] of [
      [snapshot.p50Ms, p50],
      [snapshot.p99Ms, p99],
    ] as const) {
      expect(found).toBeGreaterThanOrEqual(Math.min(exact, 2 ** 32));
      expect(found).toBeLessThanOrEqual(exact * 1.2);
    }
  });

  it("forgets when it is cleared", () => {
    const histogram = recorded(5, 6);
    histogram.clear();
    expect(histogram.snapshot()).toEqual(new DelayHistogram().snapshot());
  });
});
