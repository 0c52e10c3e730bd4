import { Decisions, Simulation, WorldScheduler } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { SizeOracle } from "../src/worlds/size-oracle.ts";

describe("the register of a length", () => {
  it.each([
    { steps: "begun", allowed: [1000, 2000] },
    { steps: "failed", allowed: [1000, 2000] },
    { steps: "ended", allowed: [2000] },
  ])("allows $allowed when a change to 2000 has $steps", ({ steps, allowed }) => {
    for (const size of [1000, 2000, 3000]) {
      const oracle = new SizeOracle(1000);
      const change = oracle.begin(2000);
      if (steps !== "begun") oracle.end(change, steps === "ended");
      expect(oracle.check(size) === undefined, `${size}`).toBe(allowed.includes(size));
    }
  });

  it.each([
    { flushed: false, allowed: [1000, 2000] },
    { flushed: true, allowed: [2000] },
  ])("allows $allowed after a crash when it was flushed: $flushed", ({ flushed, allowed }) => {
    for (const size of [1000, 2000]) {
      const oracle = new SizeOracle(1000);
      oracle.end(oracle.begin(2000), true);
      if (flushed) oracle.beginFlush()();
      expect(oracle.recover(size) === undefined).toBe(allowed.includes(size));
      expect(oracle.check(size)).toBeUndefined();
    }
  });

  it("is not stable by a flush that began before its end", () => {
    const oracle = new SizeOracle(1000);
    const change = oracle.begin(2000);
    const succeeded = oracle.beginFlush();
    oracle.end(change, true);
    succeeded();
    expect(oracle.recover(1000)).toBeUndefined();
  });

  it("says what is wrong", () => {
    const oracle = new SizeOracle(1000);
    oracle.end(oracle.begin(2000), true);
    expect(oracle.check(1000)).toBe("1000 bytes long now, after 1000 (stable), 2000 (ended)");
    oracle.begin(3000);
    expect(oracle.recover(5)).toBe(
      "5 bytes long after a crash, after 1000 (stable), 2000 (ended), 3000 (not ended well)",
    );
  });
});

describe("what is left behind", () => {
  function simulation(): Simulation {
    return new Simulation(new WorldScheduler({ decisions: new Decisions([]) }));
  }

  it.each([
    { what: "a listener", leave: true, kind: "still listening" },
    { what: "nothing", leave: false, kind: undefined },
  ])("is found at the end of a life: $what", async ({ leave, kind }) => {
    const one = simulation();
    const { signal } = one.cancellation();
    const listener = (): void => undefined;
    signal.addEventListener("abort", listener, { once: true });
    if (!leave) signal.removeEventListener("abort", listener);
    const end = one.scheduler.run(() =>
      one.expectNothingPending().then(() => one.scheduler.turn("end")),
    );
    if (kind === undefined) await expect(end).resolves.toBeUndefined();
    else await expect(end).rejects.toMatchObject({ kind });
  });

  it("are no listeners once a signal was aborted, or the process has crashed", async () => {
    const one = simulation();
    const cancellation = one.cancellation();
    cancellation.signal.addEventListener("abort", () => undefined, { once: true });
    expect(cancellation.listeners).toBe(1);
    cancellation.abort();
    expect([cancellation.listeners, cancellation.signal.reason]).toEqual([0, cancellation.reason]);
    one.cancellation().signal.addEventListener("abort", () => undefined);
    one.crash();
    await one.scheduler.run(() => one.expectNothingPending());
  });
});
