import { type Env, manualEnv } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { RequestTracker, type TrackedRequest } from "../src/io/tracked-request.ts";

interface Flow {
  readonly order: string[];
  readonly tracker: RequestTracker;
  /** Begins a request that notes its name when it may go on. */
  start(name: string, offset: number, length: number, alignment?: number): TrackedRequest;
}

function flow(env: Env = manualEnv()): Flow {
  const tracker = new RequestTracker(env);
  const order: string[] = [];
  return {
    order,
    tracker,
    start(name, offset, length, alignment) {
      const request = tracker.begin("write", offset, length);
      if (alignment !== undefined) tracker.serialise(request, alignment);
      const wait = tracker.waitForConflicts(request);
      if (wait === undefined) order.push(name);
      else void wait.then(() => order.push(name));
      return request;
    },
  };
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

describe("tracked requests", () => {
  it.each([
    ["two plain requests overlap freely", [0, 1024], undefined, [512, 1024], undefined, true],
    ["a serialising request waits for a plain one", [0, 1024], undefined, [512, 512], 1, false],
    ["a plain request waits for a serialising one", [0, 1024], 1, [512, 1024], undefined, false],
    ["neighbours do not conflict", [0, 512], 1, [512, 512], 1, true],
    ["a range is widened to the alignment", [0, 512], 4096, [2048, 512], undefined, false],
    ["an empty range conflicts with nothing", [512, 0], 1, [0, 4096], 1, true],
  ] as const)(
    "%s",
    async (_title, [offset, length], alignment, [nextOffset, nextLength], nextAlignment, free) => {
      const { start, order, tracker } = flow();
      const first = start("first", offset, length, alignment);
      start("second", nextOffset, nextLength, nextAlignment);
      await turns();
      expect(order).toEqual(free ? ["first", "second"] : ["first"]);
      tracker.end(first);
      await turns();
      expect(order).toEqual(["first", "second"]);
    },
  );

  it("skips a conflicting request that waits itself, and that one looks again", async () => {
    const { start, order, tracker } = flow();
    const first = start("first", 0, 512);
    const waiting = start("waiting", 0, 1024, 1);
    const third = start("third", 512, 512);
    expect(order).toEqual(["first", "third"]);
    tracker.end(first);
    await turns();
    expect(order).toEqual(["first", "third"]);
    tracker.end(third);
    await turns();
    expect(order).toEqual(["first", "third", "waiting"]);
    tracker.end(waiting);
    expect([...tracker.requests]).toEqual([]);
    expect(tracker.serialisingCount).toBe(0);
  });

  it("resumes waiters in the order in which they began to wait, one exclusive one at a time", async () => {
    const { start, order, tracker } = flow();
    const requests = ["a", "b", "c", "d"].map((name) => start(name, 0, 512, 1));
    for (const [index, request] of requests.entries()) {
      await turns();
      expect(order).toHaveLength(index + 1);
      tracker.end(request);
    }
    expect(order).toEqual(["a", "b", "c", "d"]);
  });

  it("keeps the exclusion when wake-ups are delivered late and out of order", async () => {
    const wakes: (() => void)[] = [];
    const { start, order, tracker } = flow({
      ...manualEnv(),
      wake: (resume) => wakes.push(resume),
    });
    const first = start("first", 0, 512, 1);
    start("second", 0, 512, 1);
    start("third", 0, 512, 1);
    tracker.end(first);
    for (const resume of wakes.splice(0).toReversed()) resume();
    await turns();
    expect(order).toEqual(["first", "third"]);
  });

  it("counts a request as waiting until it runs again, so that a newcomer may pass", async () => {
    const wakes: (() => void)[] = [];
    const { start, order, tracker } = flow({
      ...manualEnv(),
      wake: (resume) => wakes.push(resume),
    });
    const first = start("first", 0, 512, 1);
    start("second", 0, 512, 1);
    tracker.end(first);
    const newcomer = start("newcomer", 0, 512, 1);
    expect(order).toEqual(["first", "newcomer"]);
    wakes.shift()?.();
    await turns();
    expect(order).toEqual(["first", "newcomer"]);
    tracker.end(newcomer);
    wakes.shift()?.();
    await turns();
    expect(order).toEqual(["first", "newcomer", "second"]);
  });

  it.each(["before it waits", "while it waits"])(
    "stops waiting when the signal is aborted %s",
    async (when) => {
      const { start, tracker } = flow();
      const first = start("first", 0, 512, 1);
      const aborting = new AbortController();
      const request = tracker.begin("write", 0, 512);
      if (when === "before it waits") aborting.abort(new Error("enough"));
      const wait = tracker.waitForConflicts(request, aborting.signal);
      aborting.abort(new Error("enough"));
      await expect(wait).rejects.toThrow("enough");
      tracker.end(request);
      tracker.end(first);
      expect([...tracker.requests]).toEqual([]);
    },
  );

  it("ends a request once", () => {
    const { start, tracker } = flow();
    const request = start("first", 0, 512);
    tracker.end(request);
    expect(() => tracker.end(request)).toThrow("a request ends once");
  });
});
