import { manualEnv, SeededScheduler } from "@blocklayer/env";
import { type RangeHold, RangeLock, type RangeMode } from "@blocklayer/range-lock";
import fc from "fast-check";
import { expect, it } from "vitest";

interface Asked {
  readonly offset: number;
  length: number;
  readonly mode: RangeMode;
  isHeld: boolean;
}

function conflict(a: Asked, b: Asked): boolean {
  if (a.mode === "shared" && b.mode === "shared") return false;
  for (let byte = a.offset; byte < a.offset + a.length; byte += 1) {
    if (byte >= b.offset && byte < b.offset + b.length) return true;
  }
  return false;
}

/** The dumbest correct lock: a list, and after each change every request is looked at in order. */
class Model {
  readonly list: Asked[] = [];

  settle(): void {
    for (const [index, asked] of this.list.entries()) {
      if (asked.isHeld) continue;
      asked.isHeld = !this.list.slice(0, index).some((earlier) => conflict(earlier, asked));
    }
  }
}

const step = fc.record({
  kind: fc.constantFrom("acquire", "acquire", "acquire", "release", "shrink", "abort"),
  offset: fc.nat(20),
  length: fc.nat(8),
  mode: fc.constantFrom<RangeMode>("shared", "exclusive"),
  pick: fc.nat(),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Real {
  readonly controller: AbortController;
  hold: RangeHold | undefined;
}

class Both {
  readonly lock: RangeLock = new RangeLock(manualEnv());
  readonly model: Model = new Model();
  readonly real: Map<Asked, Real> = new Map();

  run(taken: Step): void {
    const { offset, length, mode } = taken;
    if (taken.kind === "acquire") {
      const asked: Asked = { offset, length, mode, isHeld: false };
      const real: Real = { controller: new AbortController(), hold: undefined };
      this.model.list.push(asked);
      this.real.set(asked, real);
      this.lock.acquire(offset, length, { mode, signal: real.controller.signal }).then(
        (hold) => {
          real.hold = hold;
        },
        () => undefined,
      );
      return;
    }
    const wanted = this.model.list.filter(({ isHeld }) => isHeld === (taken.kind !== "abort"));
    const asked = wanted[taken.pick % wanted.length];
    if (asked === undefined) return;
    const real = this.real.get(asked);
    if (taken.kind === "shrink") {
      asked.length = Math.min(asked.length, length);
      real?.hold?.shrink(asked.length);
      return;
    }
    this.model.list.splice(this.model.list.indexOf(asked), 1);
    if (taken.kind === "abort") real?.controller.abort();
    else real?.hold?.release();
  }
}

it("grants what the list model grants, after every step", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const both = new Both();
      for (const taken of steps) {
        both.run(taken);
        both.model.settle();
        for (let turn = 0; turn < 4; turn += 1) await Promise.resolve();
        for (const asked of both.model.list) {
          expect(both.real.get(asked)?.hold !== undefined).toBe(asked.isHeld);
        }
        const held = both.model.list.filter(({ isHeld }) => isHeld).length;
        expect(both.lock.held).toBe(held);
        expect(both.lock.waiting).toBe(both.model.list.length - held);
      }
    }),
    { numRuns: 200 },
  );
});

it("serves everybody and never lets conflicting holders meet, in any order of wake-ups", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), async (seed) => {
      const scheduler = new SeededScheduler({ seed });
      const { random } = scheduler;
      const lock = new RangeLock(scheduler.env);
      const inside = new Set<Asked>();
      let served = 0;
      const client = async (): Promise<void> => {
        for (let round = 0; round < 4; round += 1) {
          const asked: Asked = {
            offset: random.below(16),
            length: random.below(8),
            mode: random.below(2) === 0 ? "shared" : "exclusive",
            isHeld: true,
          };
          using _hold = await lock.acquire(asked.offset, asked.length, { mode: asked.mode });
          for (const other of inside) expect(conflict(other, asked)).toBe(false);
          inside.add(asked);
          await scheduler.turn("work");
          await lock.waitUntilFree(30, 1);
          inside.delete(asked);
          served += 1;
        }
      };
      await scheduler.run(() => Promise.all([client(), client(), client(), client(), client()]));
      expect(served).toBe(20);
      expect([lock.held, lock.waiting, scheduler.pending]).toEqual([0, 0, 0]);
    }),
    { numRuns: 100 },
  );
});
