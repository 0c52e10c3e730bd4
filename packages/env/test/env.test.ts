import {
  manualEnv,
  OffloadQueue,
  realEnv,
  SeededRandom,
  SeededScheduler,
  settleTurn,
} from "@blocklayer/env";
import { describe, expect, it } from "vitest";

describe("realEnv", () => {
  const env = realEnv();

  it("has a clock that does not run backwards and a sleep that takes its time", async () => {
    const before = env.clock.now();
    await env.clock.sleep(3);
    expect(env.clock.now() - before).toBeGreaterThanOrEqual(2);
  });

  it("sleep(0) ends in a later turn than every promise job that is ready", async () => {
    const order: string[] = [];
    const slept = env.clock.sleep(0).then(() => order.push("slept"));
    await Promise.resolve()
      .then(() => Promise.resolve())
      .then(() => order.push("jobs"));
    await slept;
    expect(order).toEqual(["jobs", "slept"]);
  });

  it.each([0, 60_000])(
    "sleep(%i) rejects with the reason of a signal that is or becomes aborted",
    async (delayMs) => {
      await expect(env.clock.sleep(delayMs, AbortSignal.abort(new Error("early")))).rejects.toThrow(
        "early",
      );
      const controller = new AbortController();
      const slept = env.clock.sleep(delayMs, controller.signal);
      controller.abort(new Error("late"));
      await expect(slept).rejects.toThrow("late");
    },
  );

  it("wakes at once, never buggifies, and draws numbers in range", () => {
    let woken = false;
    env.wake(() => {
      woken = true;
    }, "test");
    expect([woken, env.buggify("site")]).toEqual([true, false]);
    expect(env.random.bytes(70_000).some((byte) => byte !== 0)).toBe(true);
    for (let round = 0; round < 100; round += 1) expect([0, 1, 2]).toContain(env.random.below(3));
    expect(Number.isInteger(env.random.u32())).toBe(true);
  });

  it("runs at most offloadLimit works at once", async () => {
    const two = realEnv({ offloadLimit: 2 });
    let running = 0;
    let most = 0;
    const work = async (): Promise<number> => {
      running += 1;
      most = Math.max(most, running);
      await settleTurn();
      running -= 1;
      return most;
    };
    await Promise.all(Array.from({ length: 7 }, () => two.offload(work)));
    expect(most).toBe(2);
  });
});

describe("OffloadQueue", () => {
  it("goes on after a failure, in order", async () => {
    const queue = new OffloadQueue(1);
    const order: number[] = [];
    const failing = queue.run(() => Promise.reject(new Error("boom")));
    const after = [1, 2].map((id) => queue.run(async () => void order.push(id)));
    await expect(failing).rejects.toThrow("boom");
    await Promise.all(after);
    expect([order, queue.running]).toEqual([[1, 2], 0]);
  });

  it.each([0, 1.5, Number.NaN])("refuses a limit of %d", (limit) => {
    expect(() => new OffloadQueue(limit)).toThrow(RangeError);
  });
});

describe("manualEnv", () => {
  it("wakes sleepers in order of time, then of arrival, and those added on the way", async () => {
    const { clock } = manualEnv();
    const order: string[] = [];
    const sleeper = async (name: string, delayMs: number): Promise<void> => {
      await clock.sleep(delayMs);
      order.push(`${name}@${clock.now()}`);
    };
    const all = [
      sleeper("c", 30),
      sleeper("a", 10),
      sleeper("b", 10),
      sleeper("d", 20).then(() => sleeper("e", 5)),
    ];
    await clock.advance(9);
    expect(order).toEqual([]);
    await clock.advance(21);
    expect(order).toEqual(["a@10", "b@10", "d@20", "e@25", "c@30"]);
    expect([clock.now(), clock.sleeping]).toEqual([30, 0]);
    await Promise.all(all);
  });

  it("drops an aborted sleeper and refuses an aborted signal", async () => {
    const { clock } = manualEnv();
    const controller = new AbortController();
    const slept = clock.sleep(10, controller.signal);
    expect(clock.sleeping).toBe(1);
    controller.abort(new Error("stop"));
    await expect(slept).rejects.toThrow("stop");
    expect(clock.sleeping).toBe(0);
    await expect(clock.sleep(0, AbortSignal.abort(new Error("no")))).rejects.toThrow("no");
  });
});

describe("SeededRandom", () => {
  it("repeats itself for the same seed and differs for another", () => {
    const draw = (seed: number): number[] => {
      const random = new SeededRandom(seed);
      return [random.u32(), random.below(1000), ...random.bytes(4)];
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  it("is spread evenly", () => {
    const random = new SeededRandom(1);
    const counts = [0, 0, 0, 0];
    for (let round = 0; round < 40_000; round += 1) {
      const bucket = random.below(4);
      counts[bucket] = (counts[bucket] ?? 0) + 1;
    }
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(400);
  });
});

describe("SeededScheduler", () => {
  const race = async (seed: number): Promise<string> => {
    const scheduler = new SeededScheduler({ seed });
    let order = "";
    const walker = async (name: string): Promise<void> => {
      for (let step = 0; step < 3; step += 1) {
        await scheduler.turn(name);
        order += name;
      }
    };
    await scheduler.run(async () => {
      await Promise.all([walker("a"), walker("b")]);
    });
    expect(scheduler.pending).toBe(0);
    expect(scheduler.trace.join("")).toBe(order);
    return order;
  };

  it("replays a seed and reaches every order over the seeds", async () => {
    expect(await race(3)).toBe(await race(3));
    const seen = new Set<string>();
    for (let seed = 0; seed < 200; seed += 1) seen.add(await race(seed));
    expect(seen.size).toBe(20);
  });

  it("moves time to the next timer when nothing else is pending", async () => {
    const scheduler = new SeededScheduler({ seed: 1 });
    const { clock } = scheduler.env;
    const now = await scheduler.run(async () => {
      await clock.sleep(5000);
      await clock.sleep(0);
      return clock.now();
    });
    expect(now).toBe(5000);
  });

  it("makes wake-ups and offloaded work decisions", async () => {
    const scheduler = new SeededScheduler({ seed: 1 });
    const value = await scheduler.run(async () => {
      await new Promise<void>((resolve) => scheduler.env.wake(resume(resolve), "lock"));
      return await scheduler.env.offload(async () => 42);
    });
    expect([value, scheduler.trace]).toEqual([42, ["wake lock", "offload"]]);
    function resume(resolve: () => void): () => void {
      return resolve;
    }
  });

  it("reports a deadlock, passes a failure on, and settles leftovers", async () => {
    const scheduler = new SeededScheduler({ seed: 1, buggify: 1 });
    await expect(scheduler.run(() => new Promise(() => undefined))).rejects.toThrow(
      "deadlock at 0 ms after 0 completions",
    );
    await expect(scheduler.run(() => Promise.reject(new Error("main failed")))).rejects.toThrow(
      "main failed",
    );
    expect(scheduler.env.buggify("site")).toBe(true);
    scheduler.post("leftover", () => undefined, 10);
    await scheduler.settle();
    expect(scheduler.trace).toEqual(["leftover"]);
  });

  it("drops an aborted sleeper and refuses an aborted signal", async () => {
    const scheduler = new SeededScheduler({ seed: 1 });
    const controller = new AbortController();
    const slept = scheduler.env.clock.sleep(10, controller.signal);
    controller.abort(new Error("stop"));
    await expect(slept).rejects.toThrow("stop");
    expect(scheduler.pending).toBe(0);
    await expect(scheduler.env.clock.sleep(1, AbortSignal.abort(new Error("no")))).rejects.toThrow(
      "no",
    );
  });
});
