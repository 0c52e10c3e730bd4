import { Decisions, Simulation, SimulationFailure, WorldScheduler } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

function scheduler(source: number | readonly number[] = []): WorldScheduler {
  return new WorldScheduler({ decisions: new Decisions(source), eventsMax: 1000 });
}

describe("the scheduler", () => {
  it("delivers the oldest first when all decisions are dull", async () => {
    const world = scheduler();
    const order: string[] = [];
    await world.run(async () => {
      await Promise.all(["a", "b", "c"].map((tag) => world.turn(tag).then(() => order.push(tag))));
    });
    expect(order).toEqual(["a", "b", "c"]);
    expect(world.events).toBe(3);
  });

  it("delivers in every order that decisions ask for", async () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 100; seed += 1) {
      const world = scheduler(seed);
      const order: string[] = [];
      await world.run(async () => {
        const turns = ["a", "b", "c"].map((tag) => world.turn(tag).then(() => order.push(tag)));
        await Promise.all(turns);
      });
      orders.add(order.join(""));
    }
    expect(orders.size).toBe(6);
  });

  it("lets every promise job run before the next completion", async () => {
    const world = scheduler();
    const order: string[] = [];
    await world.run(async () => {
      world.post("first", () => {
        void (async () => {
          for (let count = 0; count < 50; count += 1) await null;
          order.push("its jobs");
        })();
      });
      await world.turn("second");
      order.push("second");
    });
    expect(order).toEqual(["its jobs", "second"]);
  });

  it("moves the clock to the next timer when nothing is ready", async () => {
    const { env, run } = bound(scheduler());
    const times = await run(async () => {
      await env.clock.sleep(50);
      const first = env.clock.now();
      await Promise.all([env.clock.sleep(30), env.clock.sleep(10)]);
      return [first, env.clock.now()];
    });
    expect(times).toEqual([50, 80]);
  });

  it("may let a timer go off before what is ready", async () => {
    // The first decision is about wake-ups, the second chooses the timer, which comes behind the one that is ready.
    const world = scheduler([0, 1]);
    const order: string[] = [];
    await world.run(async () => {
      const timer = world.env.clock.sleep(9).then(() => order.push("timer"));
      await Promise.all([timer, world.turn("ready").then(() => order.push("ready"))]);
    });
    expect(order).toEqual(["timer", "ready"]);
  });

  it("drops a sleep that is aborted, and refuses one that was", async () => {
    const { env, run, world } = bound(scheduler());
    const controller = new AbortController();
    const reason = new Error("enough");
    await run(async () => {
      const sleep = env.clock.sleep(1000, controller.signal);
      controller.abort(reason);
      await expect(sleep).rejects.toBe(reason);
      await expect(env.clock.sleep(1, controller.signal)).rejects.toBe(reason);
    });
    expect(world.pending).toBe(0);
  });

  it.each([
    { title: "at once in a faithful run", list: [0], order: ["woken", "after"] },
    { title: "as a completion in an adversarial one", list: [1], order: ["after", "woken"] },
  ])("wakes $title", async ({ list, order }) => {
    const world = scheduler(list);
    const seen: string[] = [];
    world.env.wake(() => seen.push("woken"), "lock");
    seen.push("after");
    await world.settle();
    expect(seen).toEqual(order);
  });

  it("delivers offloaded work as a completion, and passes its error on", async () => {
    const { env, run, world } = bound(scheduler());
    expect(await run(() => env.offload(() => Promise.resolve(5)))).toBe(5);
    expect(world.events).toBe(1);
    await expect(run(() => env.offload(() => Promise.reject(new Error("bad"))))).rejects.toThrow(
      "bad",
    );
  });

  it("takes chance and rare paths from decisions", () => {
    const { env } = scheduler([0, 9, 4, 1, 77]);
    expect([env.random.u32(), env.random.below(6)]).toEqual([9, 4]);
    expect(env.buggify("anywhere")).toBe(true);
    expect(env.random.bytes(3)).toEqual(scheduler([0, 77]).env.random.bytes(3));
  });

  it("reports a deadlock with what waits", async () => {
    const world = scheduler();
    const simulation = new Simulation(world);
    const error = await failureOf(
      world.run(async () => {
        await world.turn("last thing");
        await simulation.operation("a write", () => new Promise<void>(() => undefined));
      }),
    );
    expect(error.kind).toBe("deadlock");
    expect(error.message).toContain("nothing is pending at 0 ms after 1 events");
    expect(error.message).toContain("unfinished: a write (operation 1)");
    expect(error.message).toContain("last events: last thing");
  });

  it("reports what goes on and on", async () => {
    const world = scheduler();
    const error = await failureOf(
      world.run(async () => {
        for (;;) await world.turn("again");
      }),
    );
    expect(error.kind).toBe("livelock");
    expect(error.message).toContain("it goes on and on at 0 ms after 1000 events");
    expect(error.message).toContain("pending: again");
  });

  it("ends with the first failure that was reported from within", async () => {
    const world = scheduler();
    const simulation = new Simulation(world);
    const error = await failureOf(
      world.run(async () => {
        simulation.expect(true, "never", () => "never");
        simulation.fail("first", "the one that counts");
        simulation.fail("second", "another");
        for (;;) await world.turn("again");
      }),
    );
    expect([error.kind, error.message]).toEqual(["first", "first: the one that counts"]);
  });

  it("forgets what is pending in a crash", async () => {
    const world = scheduler();
    const simulation = new Simulation(world);
    let isAlive = false;
    await world.run(async () => {
      void world.turn("of the old life").then(() => {
        isAlive = true;
      });
      simulation.crash();
      await world.turn("of the new life");
    });
    expect(isAlive).toBe(false);
    expect(world.pending).toBe(0);
  });

  it("calls a timer that is left a finding, but not a wake-up", async () => {
    const world = scheduler([1]);
    const simulation = new Simulation(world);
    const error = await failureOf(
      world.run(async () => {
        world.env.wake(() => undefined, "lock");
        await simulation.expectNothingPending();
        void world.env.clock.sleep(7);
        await simulation.expectNothingPending();
        await world.turn("next step");
      }),
    );
    expect(error.message).toBe("left behind: sleep 7");
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])(
    "keeps nobody waiting for ever once it is calm, seed %i",
    async (seed) => {
      const world = scheduler(seed);
      world.calm(500);
      await world.run(async () => {
        let isDone = false;
        const waits = world.turn("waits").then(() => {
          isDone = true;
        });
        while (!isDone) await world.turn("impatient");
        await waits;
      });
      expect(world.events).toBeLessThan(500);
    },
  );

  it("allows only so many completions once it is calm", async () => {
    const world = scheduler(1);
    const running = world.run(async () => {
      await world.turn("before");
      world.calm(5);
      for (;;) await world.turn("again");
    });
    await expect(running).rejects.toMatchObject({ kind: "livelock" });
    expect(world.events).toBe(6);
  });
});

function bound(world: WorldScheduler): {
  world: WorldScheduler;
  env: WorldScheduler["env"];
  run: WorldScheduler["run"];
} {
  return { world, env: world.env, run: (main) => world.run(main) };
}

async function failureOf(run: Promise<unknown>): Promise<SimulationFailure> {
  const error: unknown = await run.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SimulationFailure);
  return error as SimulationFailure;
}
