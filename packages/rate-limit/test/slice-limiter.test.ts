import { manualEnv } from "@blocklayer/env";
import { SliceLimiter } from "@blocklayer/rate-limit";
import { describe, expect, it } from "vitest";

const SLICE_MS = 100;

function limiterOf(speed: number) {
  const { clock } = manualEnv();
  const limiter = new SliceLimiter(clock);
  limiter.setSpeed(speed, SLICE_MS);
  return { clock, limiter };
}

describe("the quota of a slice", () => {
  it.each([
    { speed: 0, sliceMs: 100, quota: 0 },
    { speed: 1, sliceMs: 100, quota: 1 },
    { speed: 9, sliceMs: 100, quota: 1 },
    { speed: 10, sliceMs: 100, quota: 1 },
    { speed: 29, sliceMs: 100, quota: 2 },
    { speed: 1048576, sliceMs: 100, quota: 104857 },
    { speed: 1000, sliceMs: 0.5, quota: 1 },
    { speed: Number.MAX_SAFE_INTEGER, sliceMs: 1000, quota: Number.MAX_SAFE_INTEGER },
  ])("of $speed a second in $sliceMs ms is $quota", ({ speed, sliceMs, quota }) => {
    const limiter = new SliceLimiter(manualEnv().clock);
    limiter.setSpeed(speed, sliceMs);
    expect(limiter.quota).toBe(quota);
  });
});

describe("delay", () => {
  it("is 0 for a new limiter and while unlimited, whatever is charged", () => {
    const limiter = new SliceLimiter(manualEnv().clock);
    expect(limiter.delay(2 ** 40)).toBe(0);
    expect(limiterOf(0).limiter.delay(2 ** 40)).toBe(0);
  });

  it.each([
    { charges: [99], delay: 0 },
    { charges: [100], delay: 100 },
    { charges: [250], delay: 250 },
    { charges: [50, 49], delay: 0 },
    { charges: [50, 50], delay: 100 },
    { charges: [99, 51], delay: 150 },
  ])(
    "after charging $charges to a quota of 100 at once is $delay ms",
    async ({ charges, delay }) => {
      const { clock, limiter } = limiterOf(1000);
      await clock.advance(1);
      expect(charges.map((charge) => limiter.delay(charge)).at(-1)).toBe(delay);
    },
  );

  it("asked with 0 charges nothing", async () => {
    const { clock, limiter } = limiterOf(1000);
    await clock.advance(1);
    expect(limiter.delay(100)).toBe(100);
    expect(limiter.delay(0)).toBe(100);
    await clock.advance(40);
    expect(limiter.delay(0)).toBe(60);
  });

  it("is not above 0 at the very end of a slice, and a new slice starts only after it", async () => {
    const { clock, limiter } = limiterOf(1000);
    await clock.advance(1);
    limiter.delay(100);
    await clock.advance(100);
    expect(limiter.delay(0)).toBe(0);
    expect(limiter.delay(1)).toBe(1);
    await clock.advance(2);
    expect(limiter.delay(99)).toBe(0);
  });

  it("forgets what an idle slice did not use", async () => {
    const { clock, limiter } = limiterOf(1000);
    await clock.advance(10_000);
    expect(limiter.delay(100)).toBe(100);
  });
});

it("a new speed keeps what was charged to the running slice", async () => {
  const { clock, limiter } = limiterOf(1000);
  await clock.advance(1);
  expect(limiter.delay(150)).toBe(150);
  limiter.setSpeed(500, SLICE_MS);
  expect(limiter.delay(0)).toBe(300);
  limiter.setSpeed(0, SLICE_MS);
  expect(limiter.delay(0)).toBe(0);
});

it.each([
  { speed: 1000, charge: 1 },
  { speed: 1000, charge: 70 },
  { speed: 1000, charge: 333 },
  { speed: 1048576, charge: 65536 },
  { speed: 1048576, charge: 1048576 },
])(
  "the long run at $speed a second in charges of $charge errs by at most 1 %",
  async ({ speed, charge }) => {
    const { clock, limiter } = limiterOf(speed);
    await clock.advance(1);
    const startMs = clock.now();
    let total = 0;
    while (clock.now() - startMs < 60_000) {
      total += charge;
      const delayMs = limiter.delay(charge);
      if (delayMs > 0) await clock.advance(delayMs);
    }
    const expected = (speed * (clock.now() - startMs)) / 1000;
    expect(Math.abs(total - expected) / expected).toBeLessThanOrEqual(0.01);
  },
);

describe("a value out of its range is a RangeError", () => {
  it.each([-1, 0.5, 2 ** 53, Number.NaN])("speed %d", (speed) => {
    const limiter = new SliceLimiter(manualEnv().clock);
    expect(() => limiter.setSpeed(speed, SLICE_MS)).toThrow(
      new RangeError(`speed ${speed} is not a safe integer of 0 or more`),
    );
  });

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])("slice of %d ms", (sliceMs) => {
    const limiter = new SliceLimiter(manualEnv().clock);
    expect(() => limiter.setSpeed(1, sliceMs)).toThrow(
      new RangeError(`slice of ${sliceMs} ms is not above 0`),
    );
  });

  it.each([-1, 0.5, 2 ** 53, Number.NaN])("charge of %d", (amount) => {
    expect(() => limiterOf(1).limiter.delay(amount)).toThrow(
      new RangeError(`charge of ${amount} is not a safe integer of 0 or more`),
    );
  });
});
