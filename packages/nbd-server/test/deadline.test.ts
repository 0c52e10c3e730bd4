import { manualEnv } from "@blocklayer/env";
import { expect, it } from "vitest";
import { Deadline } from "../src/deadline.ts";

it("expires once, at its moment", async () => {
  const { clock } = manualEnv();
  let count = 0;
  const deadline = new Deadline(clock, () => {
    count += 1;
  });
  deadline.set(100);
  await clock.advance(99);
  expect(count).toBe(0);
  await clock.advance(1);
  expect(count).toBe(1);
  await clock.advance(1000);
  expect(count).toBe(1);
  expect(clock.sleeping).toBe(0);
});

it("can be put off and brought forward", async () => {
  const { clock } = manualEnv();
  const at: number[] = [];
  const deadline = new Deadline(clock, () => at.push(clock.now()));
  deadline.set(100);
  await clock.advance(50);
  deadline.set(100);
  expect(clock.sleeping).toBe(1);
  await clock.advance(100);
  deadline.set(500);
  deadline.set(10);
  await clock.advance(500);
  expect(at).toEqual([150, 160]);
});

it("costs no timer per setting", async () => {
  const { clock } = manualEnv();
  const deadline = new Deadline(clock, () => undefined);
  for (let index = 0; index < 100; index += 1) {
    deadline.set(1000);
    deadline.clear();
    await clock.advance(1);
  }
  expect(clock.sleeping).toBe(1);
  deadline.cancel();
  await clock.advance(0);
  expect(clock.sleeping).toBe(0);
});
