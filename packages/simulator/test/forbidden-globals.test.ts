import { runSeed } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { withoutGlobals } from "../src/forbidden-globals.ts";

const uses: readonly { readonly name: string; use(): unknown; readonly instead: string }[] = [
  { name: "Date", use: () => Date.now(), instead: "time comes from `env.clock`" },
  { name: "Date", use: () => new Date(), instead: "time comes from `env.clock`" },
  { name: "performance", use: () => performance.now(), instead: "time comes from `env.clock`" },
  { name: "setTimeout", use: () => setTimeout(String, 1), instead: "time comes from `env.clock`" },
  {
    name: "setImmediate",
    use: () => setImmediate(String),
    instead: "a turn of the event loop is `env.clock.sleep(0)`",
  },
  {
    name: "queueMicrotask",
    use: () => queueMicrotask(() => undefined),
    instead: "await a promise",
  },
  { name: "Math.random", use: () => Math.random(), instead: "chance comes from `env.random`" },
  {
    name: "AbortSignal.timeout",
    use: () => AbortSignal.timeout(1),
    instead: "time comes from `env.clock`",
  },
  { name: "crypto", use: () => crypto.randomUUID(), instead: "chance comes from `env.random`" },
  { name: "process", use: () => process.env, instead: "a process comes by argument" },
  {
    name: "WeakRef",
    use: () => new WeakRef({}),
    instead: "the garbage collector keeps no times",
  },
];

describe("in a simulation", () => {
  it.each(uses)("$name can not be used", async ({ name, use, instead }) => {
    const { failure } = await runSeed(
      {
        name: "curious",
        situations: [],
        run: async ({ scheduler }) => {
          await scheduler.turn("a turn");
          use();
        },
      },
      1,
    );
    expect(failure?.message).toContain(`${name} is not to be had in a simulation: ${instead}`);
  });

  it("also who catches the error is found", () => {
    const work = (): void => {
      try {
        Date.now();
      } catch {
        // Whoever does this has to be found all the same.
      }
    };
    expect(() => withoutGlobals(work)).toThrow("Date is not to be had in a simulation");
  });

  it("globals may be named", () => {
    expect(withoutGlobals(() => typeof process === "undefined")).toBe(false);
  });

  it("they are back afterwards, also after an error", () => {
    const before = [Date, performance, setTimeout, Math.random, AbortSignal.timeout, process];
    expect(() =>
      withoutGlobals(() => {
        throw new RangeError("mine");
      }),
    ).toThrow(new RangeError("mine"));
    expect([Date, performance, setTimeout, Math.random, AbortSignal.timeout, process]).toEqual(
      before,
    );
    expect(Date.now()).toBeGreaterThan(0);
  });
});
