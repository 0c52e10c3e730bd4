import { ProgressMeter } from "@blocklayer/jobs";
import { expect, it } from "vitest";

it("counts done and expected work", () => {
  const meter = new ProgressMeter();
  const seen = [meter.snapshot()];
  meter.setRemaining(100);
  meter.workDone(30);
  seen.push(meter.snapshot());
  meter.increaseRemaining(50);
  meter.increaseRemaining(-20);
  seen.push(meter.snapshot());
  meter.setRemaining(10);
  meter.workDone(10);
  seen.push(meter.snapshot());
  expect(seen).toEqual([
    { current: 0, total: 0 },
    { current: 30, total: 100 },
    { current: 30, total: 130 },
    { current: 40, total: 40 },
  ]);
});

it.each([
  ["workDone", -1, 0],
  ["workDone", 0.5, 0],
  ["setRemaining", -1, 0],
  ["setRemaining", 2 ** 53, 0],
  ["increaseRemaining", Number.NaN, Number.MIN_SAFE_INTEGER],
] as const)("%s(%d) is a RangeError", (method, amount, min) => {
  expect(() => new ProgressMeter()[method](amount)).toThrow(
    new RangeError(`amount of work ${amount} is not a safe integer of ${min} or more`),
  );
});
