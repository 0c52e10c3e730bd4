import { manualEnv, SeededScheduler } from "@blocklayer/env";
import { type RangeHold, RangeLock, type RangeMode } from "@blocklayer/range-lock";
import { describe, expect, it } from "vitest";

const exclusive = { mode: "exclusive" } as const;
const shared = { mode: "shared" } as const;

/** Waits for a promise without blocking the test: `state()` is what became of it after all ready jobs. */
function watch<T>(promise: Promise<T>): { readonly value: T | undefined; readonly done: boolean } {
  const state: { value: T | undefined; done: boolean } = { value: undefined, done: false };
  promise.then(
    (value) => {
      state.value = value;
      state.done = true;
    },
    () => undefined,
  );
  return state;
}

const jobs = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
};

describe("conflicts", () => {
  it.each<[string, RangeMode, RangeMode, [number, number], [number, number], boolean]>([
    ["the same range, both exclusive", "exclusive", "exclusive", [0, 10], [0, 10], true],
    ["shared beside shared", "shared", "shared", [0, 10], [0, 10], false],
    ["exclusive after shared", "shared", "exclusive", [0, 10], [9, 1], true],
    ["shared after exclusive", "exclusive", "shared", [0, 10], [9, 1], true],
    ["neighbours above", "exclusive", "exclusive", [0, 10], [10, 10], false],
    ["neighbours below", "exclusive", "exclusive", [10, 10], [0, 10], false],
    ["one byte of overlap", "exclusive", "exclusive", [10, 10], [0, 11], true],
    ["inside", "exclusive", "exclusive", [0, 100], [50, 1], true],
    ["around", "exclusive", "exclusive", [50, 1], [0, 100], true],
    ["zero length inside a held range", "exclusive", "exclusive", [0, 100], [50, 0], false],
    ["a held zero length", "exclusive", "exclusive", [50, 0], [0, 100], false],
    ["above 2^32", "exclusive", "exclusive", [2 ** 40, 2 ** 33], [2 ** 40 + 2 ** 32, 1], true],
  ])("%s", async (_title, firstMode, secondMode, first, second, conflict) => {
    const lock = new RangeLock(manualEnv());
    const hold = await lock.acquire(...first, { mode: firstMode });
    const again = lock.tryAcquire(...second, { mode: secondMode });
    expect(again === undefined).toBe(conflict);
    again?.release();
    hold.release();
    expect([lock.held, lock.waiting]).toEqual([0, 0]);
  });
});

describe("order", () => {
  it("serves conflicting requests in the order in which they came", async () => {
    const lock = new RangeLock(manualEnv());
    const order: number[] = [];
    const one = async (id: number): Promise<void> => {
      using _hold = await lock.acquire(0, 10, exclusive);
      order.push(id);
      await Promise.resolve();
    };
    await Promise.all([1, 2, 3, 4].map(one));
    expect(order).toEqual([1, 2, 3, 4]);
  });

  it("does not let shared requests pass a waiting exclusive one", async () => {
    const lock = new RangeLock(manualEnv());
    const reader = await lock.acquire(0, 10, shared);
    const writer = watch(lock.acquire(5, 10, exclusive));
    const late = watch(lock.acquire(8, 1, shared));
    expect(lock.tryAcquire(6, 1, shared)).toBeUndefined();
    await jobs();
    expect([writer.done, late.done]).toEqual([false, false]);
    reader.release();
    await jobs();
    expect([writer.done, late.done]).toEqual([true, false]);
    writer.value?.release();
    await jobs();
    expect(late.done).toBe(true);
  });

  it("does not delay whoever conflicts with nobody", async () => {
    const lock = new RangeLock(manualEnv());
    await lock.acquire(0, 10, exclusive);
    watch(lock.acquire(0, 20, exclusive));
    expect(lock.tryAcquire(20, 10, exclusive)?.offset).toBe(20);
    expect(lock.tryAcquire(15, 10, exclusive)).toBeUndefined();
  });

  it("resumes shared waiters together", async () => {
    const lock = new RangeLock(manualEnv());
    const writer = await lock.acquire(0, 10, exclusive);
    const readers = [1, 2, 3].map(() => watch(lock.acquire(0, 10, shared)));
    expect(lock.waiting).toBe(3);
    writer.release();
    expect([lock.held, lock.waiting]).toEqual([3, 0]);
    await jobs();
    expect(readers.every(({ done }) => done)).toBe(true);
  });

  it("owns the range from the grant on, before the waiter runs", async () => {
    const scheduler = new SeededScheduler({ seed: 1 });
    const lock = new RangeLock(scheduler.env, "disk0");
    const first = await lock.acquire(0, 10, exclusive);
    const second = watch(lock.acquire(0, 10, exclusive));
    first.release();
    await jobs();
    expect([second.done, lock.held, lock.waiting]).toEqual([false, 1, 0]);
    expect(lock.tryAcquire(0, 10, exclusive)).toBeUndefined();
    await scheduler.settle();
    expect(second.done).toBe(true);
    expect(scheduler.trace).toEqual(["wake range-lock disk0"]);
  });
});

describe("a hold", () => {
  it("tells its range and mode", () => {
    const hold = new RangeLock(manualEnv()).tryAcquire(7, 9, shared);
    expect([hold?.offset, hold?.length, hold?.mode]).toEqual([7, 9, "shared"]);
  });

  it("may be released twice, and the second time takes nothing from its successor", async () => {
    const lock = new RangeLock(manualEnv());
    const first = await lock.acquire(0, 10, exclusive);
    first.release();
    const second = await lock.acquire(0, 10, exclusive);
    first.release();
    first[Symbol.dispose]();
    expect(lock.held).toBe(1);
    expect(lock.tryAcquire(0, 1, shared)).toBeUndefined();
    second.release();
  });

  it("wakes by shrinking only those who do not need the rest", async () => {
    const lock = new RangeLock(manualEnv());
    const hold = await lock.acquire(0, 100, exclusive);
    const low = watch(lock.acquire(0, 10, exclusive));
    const high = watch(lock.acquire(50, 10, exclusive));
    const edge = watch(lock.acquire(49, 1, exclusive));
    hold.shrink(50);
    await jobs();
    expect([low.done, high.done, edge.done, hold.length]).toEqual([false, true, false, 50]);
    hold.shrink(50);
    hold.shrink(0);
    await jobs();
    expect([low.done, edge.done]).toEqual([true, true]);
    hold.release();
    expect(lock.held).toBe(3);
  });

  it.each([-1, 11, 0.5, Number.NaN])("refuses to shrink from 10 to %d bytes", (newLength) => {
    const hold = new RangeLock(manualEnv()).tryAcquire(0, 10, exclusive);
    expect(() => hold?.shrink(newLength)).toThrow(
      new RangeError(`new length ${newLength} is not an integer from 0 to 10`),
    );
  });

  it("is not shrunk after its release", () => {
    const hold = new RangeLock(manualEnv()).tryAcquire(0, 10, exclusive);
    hold?.release();
    expect(() => hold?.shrink(1)).toThrow("a released hold is not used any more");
  });
});

describe("waiting until free", () => {
  it("resolves at once when nothing conflicts", async () => {
    const lock = new RangeLock(manualEnv());
    await lock.acquire(0, 10, shared);
    await lock.waitUntilFree(10, 10);
    await lock.waitUntilFree(0, 10, shared);
    expect(lock.waiting).toBe(0);
  });

  it("takes nothing and lets others pass", async () => {
    const lock = new RangeLock(manualEnv());
    const hold = await lock.acquire(0, 10, exclusive);
    const free = watch(lock.waitUntilFree(0, 20));
    const later = lock.tryAcquire(10, 10, exclusive);
    expect([lock.held, lock.waiting, later?.offset]).toEqual([2, 1, 10]);
    hold.release();
    await jobs();
    expect([free.done, lock.held, lock.waiting]).toEqual([true, 1, 0]);
  });

  it("waits for requests that wait already", async () => {
    const lock = new RangeLock(manualEnv());
    const first = await lock.acquire(0, 10, exclusive);
    const second = watch(lock.acquire(0, 10, exclusive));
    const free = watch(lock.waitUntilFree(0, 10));
    first.release();
    await jobs();
    expect([second.done, free.done]).toEqual([true, false]);
    second.value?.release();
    await jobs();
    expect(free.done).toBe(true);
  });
});

describe("aborting", () => {
  it("removes the waiter and wakes those it blocked", async () => {
    const lock = new RangeLock(manualEnv());
    const reader = await lock.acquire(0, 10, shared);
    const controller = new AbortController();
    const writer = lock.acquire(0, 10, { mode: "exclusive", signal: controller.signal });
    const late = watch(lock.acquire(0, 10, shared));
    controller.abort(new Error("enough"));
    await expect(writer).rejects.toThrow("enough");
    await jobs();
    expect([late.done, lock.held, lock.waiting]).toEqual([true, 2, 0]);
    reader.release();
  });

  it("rejects at once when the signal is aborted before", async () => {
    const lock = new RangeLock(manualEnv());
    const signal = AbortSignal.abort(new Error("before"));
    await expect(lock.acquire(0, 1, { mode: "shared", signal })).rejects.toThrow("before");
    await expect(lock.waitUntilFree(0, 1, { signal })).rejects.toThrow("before");
    expect([lock.held, lock.waiting]).toEqual([0, 0]);
  });

  it("ends a wait until free", async () => {
    const lock = new RangeLock(manualEnv());
    const hold = await lock.acquire(0, 10, shared);
    const controller = new AbortController();
    const free = lock.waitUntilFree(0, 10, { signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(free).rejects.toThrow("enough");
    hold.release();
    expect([lock.held, lock.waiting]).toEqual([0, 0]);
  });

  it("does not take back what was granted", async () => {
    const scheduler = new SeededScheduler({ seed: 1 });
    const lock = new RangeLock(scheduler.env);
    const first = await lock.acquire(0, 10, exclusive);
    const controller = new AbortController();
    const second = watch<RangeHold>(
      lock.acquire(0, 10, { mode: "exclusive", signal: controller.signal }),
    );
    first.release();
    controller.abort();
    await scheduler.settle();
    expect(second.value?.length).toBe(10);
    expect(lock.held).toBe(1);
  });
});

it.each([
  [-1, 0],
  [0, -1],
  [0.5, 1],
  [Number.MAX_SAFE_INTEGER, 1],
  [0, Number.POSITIVE_INFINITY],
])("refuses offset %d, length %d", (offset, length) => {
  const lock = new RangeLock(manualEnv());
  const text = `offset ${offset}, length ${length} is not a range of bytes`;
  expect(() => lock.tryAcquire(offset, length, exclusive)).toThrow(new RangeError(text));
});
