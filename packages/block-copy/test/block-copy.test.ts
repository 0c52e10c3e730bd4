import { BlockCopy } from "@blocklayer/block-copy";
import { completed, RequestFlag } from "@blocklayer/driver";
import { type ScriptedDriver, type TestChild, testChild } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { CLUSTER, CompressingChild, dirtyClusters, fixture, SparseChild } from "./fixture.ts";

const all = { maxWorkers: 4, maxChunk: 0 };

describe("a background call", () => {
  it("copies everything and reports bytes read and written", async () => {
    const { engine, source, target, env } = fixture();
    const call = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1);
    await call.done;
    expect([call.finished, call.succeeded, call.failed, call.cancelled]).toEqual([
      true,
      true,
      false,
      false,
    ]);
    expect(target.bytes).toEqual(source.bytes);
    expect([engine.remaining, engine.inFlightBytes]).toEqual([0, 0]);
  });

  it("copies only what the initial bitmap marks, in whole clusters", async () => {
    const initial = new HBitmap(4 * CLUSTER, 4096);
    initial.set(CLUSTER + 5000, 1);
    const { engine, source, target, env } = fixture({ initial });
    const call = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1);
    await call.done;
    const expected = new Uint8Array(4 * CLUSTER);
    expected.set(source.bytes.subarray(CLUSTER, 2 * CLUSTER), CLUSTER);
    expect(target.bytes).toEqual(expected);
  });

  it.each([
    [0, [[0, 262144]]],
    [
      2 * CLUSTER,
      [
        [0, 131072],
        [131072, 131072],
      ],
    ],
    [
      1,
      [
        [0, 65536],
        [65536, 65536],
        [131072, 65536],
        [196608, 65536],
      ],
    ],
  ])("with a longest chunk of %i makes tasks %j", async (maxChunk, tasks) => {
    const { engine, source, env } = fixture();
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk });
    await env.clock.advance(1);
    await call.done;
    const reads = source.log.filter(({ operation }) => operation === "pread");
    expect(reads.map(({ offset, length }) => [offset, length])).toEqual(tasks);
  });

  it("runs at most maxWorkers tasks at once", async () => {
    const { engine, source, env } = fixture({ size: 8 * CLUSTER });
    source.hold("pread");
    const call = engine.start(0, 8 * CLUSTER, { maxWorkers: 3, maxChunk: CLUSTER });
    await env.clock.advance(1);
    expect(source.held.length).toBe(3);
    source.release();
    await env.clock.advance(1);
    expect(source.held.length).toBe(3);
    source.releaseAll();
    await env.clock.advance(1);
    await call.done;
    expect(call.succeeded).toBe(true);
  });

  it("clips the last cluster at the end of the source", async () => {
    const size = 2 * CLUSTER + 1000;
    const { engine, source, target, env } = fixture({ size });
    const call = engine.start(0, 3 * CLUSTER, { maxWorkers: 1, maxChunk: CLUSTER });
    await env.clock.advance(1);
    await call.done;
    expect(target.bytes).toEqual(source.bytes);
    expect(source.log.filter(({ operation }) => operation === "pread").at(-1)).toMatchObject({
      offset: 2 * CLUSTER,
      length: 1000,
    });
  });

  it("of an empty source has nothing to do", async () => {
    const { engine } = fixture({ size: 0 });
    const call = engine.start(0, 0, all);
    await call.done;
    expect(call.succeeded).toBe(true);
  });

  it("writes zeroes where the source reads as zeroes, without a buffer", async () => {
    const { source, target, env } = fixture();
    source.bytes.fill(0, CLUSTER, 3 * CLUSTER);
    target.bytes.fill(7);
    const edge = new SparseChild(source, [[CLUSTER, 2 * CLUSTER]]);
    const engine = new BlockCopy({
      env,
      source: edge,
      target: testChild(target),
      clusterSize: CLUSTER,
    });
    const call = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1);
    await call.done;
    expect(target.bytes).toEqual(source.bytes);
    expect(target.log.filter(({ operation }) => operation === "pwriteZeroes")).toMatchObject([
      { offset: CLUSTER, length: 2 * CLUSTER },
    ]);
  });

  it("treats a failing status as data", async () => {
    const { engine, source, target, env } = fixture();
    source.failNth("blockStatus", 1, "EIO", { persistent: true });
    const call = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1);
    await call.done;
    expect(target.bytes).toEqual(source.bytes);
  });

  it("goes on with a call over a range whose last task is another call's", async () => {
    const { engine, source, env } = fixture();
    source.hold("pread");
    const first = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1);
    const second = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1);
    expect(second.finished).toBe(false);
    source.releaseAll();
    await env.clock.advance(1);
    await Promise.all([first.done, second.done]);
    expect([first.succeeded, second.succeeded]).toEqual([true, true]);
    expect(source.log.filter(({ operation }) => operation === "pread").length).toBe(1);
  });
});

describe("an error", () => {
  it.each([
    ["pread", "source", true],
    ["pwrite", "target", false],
  ] as const)(
    "of %s on the %s ends the call and leaves the clusters dirty",
    async (operation, side, isRead) => {
      const made = fixture();
      made[side].failNth(operation, 2, "ENOSPC");
      const call = made.engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk: CLUSTER });
      await made.env.clock.advance(1);
      await call.done;
      expect(call).toMatchObject({ failed: true, succeeded: false, errorIsRead: isRead });
      expect(call.error).toMatchObject({ code: "ENOSPC" });
      expect(dirtyClusters(made.engine)).toEqual([1, 2, 3]);
      const again = made.engine.start(0, 4 * CLUSTER, all);
      await made.env.clock.advance(1);
      await again.done;
      expect(made.target.bytes).toEqual(made.source.bytes);
    },
  );

  it("in another call's task does not fail this one: it copies the clusters itself", async () => {
    const { engine, source, target, env } = fixture();
    source.hold("pread");
    const first = engine.start(0, CLUSTER, all);
    await env.clock.advance(1);
    const second = engine.start(0, CLUSTER, all);
    await env.clock.advance(1);
    source.fail(source.held[0]?.index ?? -1);
    await env.clock.advance(1);
    source.releaseAll();
    await env.clock.advance(1);
    await Promise.all([first.done, second.done]);
    expect([first.failed, second.succeeded]).toEqual([true, true]);
    expect(target.bytes.subarray(0, CLUSTER)).toEqual(source.bytes.subarray(0, CLUSTER));
  });

  it("keeps the first of several and lets the tasks that run end", async () => {
    const { engine, source, env } = fixture();
    source.hold("pread");
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 4, maxChunk: CLUSTER });
    await env.clock.advance(1);
    const [first, second] = source.held;
    source.fail(second?.index ?? -1, "ENOSPC");
    source.fail(first?.index ?? -1, "EIO");
    await env.clock.advance(1);
    expect(call.finished).toBe(false);
    source.releaseAll();
    await env.clock.advance(1);
    await call.done;
    expect(call.error).toMatchObject({ code: "ENOSPC" });
    expect(dirtyClusters(engine)).toEqual([0, 1]);
  });
});

describe("a guest's copy", () => {
  it("returns the completed promise when its clusters are clean", async () => {
    const { engine, env } = fixture();
    let ended = 0;
    const onEnd = (): void => {
      ended += 1;
    };
    const first = engine.copy(0, CLUSTER, { onEnd });
    expect(first).not.toBe(completed);
    await env.clock.advance(0);
    await first;
    expect(engine.copy(0, CLUSTER, { onEnd })).toBe(completed);
    expect(ended).toBe(2);
    expect(engine.isClean(0, CLUSTER)).toBe(true);
    expect(engine.isClean(0, 2 * CLUSTER)).toBe(false);
  });

  it("waits for a copy that is under way instead of repeating it", async () => {
    const { engine, source, env } = fixture();
    source.hold("pread");
    const background = engine.start(0, 2 * CLUSTER, all);
    await env.clock.advance(1);
    const guest = engine.copy(0, CLUSTER);
    expect(engine.isClean(0, CLUSTER)).toBe(false);
    source.releaseAll();
    await env.clock.advance(1);
    await Promise.all([background.done, guest]);
    expect(source.log.filter(({ operation }) => operation === "pread").length).toBe(1);
  });

  it("fails with the error of its own task", async () => {
    const { engine, target } = fixture();
    target.failNth("pwrite", 1, "EIO");
    await expect(engine.copy(0, CLUSTER)).rejects.toMatchObject({ code: "EIO" });
    expect(dirtyClusters(engine)).toEqual([0, 1, 2, 3]);
  });

  it("is answered ETIMEDOUT while its work goes on, and its end is told when it really ends", async () => {
    const { engine, target, env, before } = fixture();
    target.hold("pwrite");
    let ended = false;
    const onEnd = (): void => {
      ended = true;
    };
    const guest = engine.copy(0, CLUSTER, { timeoutMs: 1000, onEnd });
    const outcome = expect(guest).rejects.toMatchObject({
      code: "ETIMEDOUT",
      context: { offset: 0, length: CLUSTER },
    });
    await env.clock.advance(1000);
    await outcome;
    expect([ended, engine.inFlightBytes]).toEqual([false, CLUSTER]);
    target.releaseAll();
    await engine.whenIdle();
    await settleTurn();
    expect([ended, env.clock.sleeping]).toEqual([true, 0]);
    expect(target.bytes.subarray(0, CLUSTER)).toEqual(before.subarray(0, CLUSTER));
    expect(dirtyClusters(engine)).toEqual([1, 2, 3]);
  });

  it("leaves no timer when it ends in time", async () => {
    const { engine, env } = fixture();
    await engine.copy(0, CLUSTER, { timeoutMs: 1000 });
    expect(env.clock.sleeping).toBe(0);
  });

  it.each([
    [1, CLUSTER],
    [0, 1000],
    [0, 5 * CLUSTER],
  ])("of [%i, +%i) is a defect of the caller", (offset, length) => {
    const { engine } = fixture();
    expect(() => engine.copy(offset, length)).toThrow(
      expect.objectContaining({ name: "AssertionError" }),
    );
  });
});

describe("the speed limit", () => {
  it("spreads the tasks of a background call over time", async () => {
    const { engine, source, env } = fixture();
    engine.setSpeed(CLUSTER * 10);
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 4, maxChunk: CLUSTER });
    await env.clock.advance(50);
    const early = source.log.filter(({ operation }) => operation === "pread").length;
    expect(early).toBe(1);
    await env.clock.advance(1000);
    await call.done;
    expect(call.succeeded).toBe(true);
  });

  it("does not hold a guest's copy back, but charges it", async () => {
    const { engine, env, source } = fixture();
    engine.setSpeed(1);
    await engine.copy(0, CLUSTER, { ignoreRateLimit: true });
    const call = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1000);
    expect(source.log.filter(({ operation }) => operation === "pread").length).toBe(1);
    engine.setSpeed(0);
    call.kick();
    await env.clock.advance(1);
    await call.done;
    expect(call.succeeded).toBe(true);
    expect(env.clock.sleeping).toBe(0);
  });
});

describe("cancelling", () => {
  it("finishes what runs, starts nothing more, and the rest stays dirty", async () => {
    const { engine, source, env } = fixture();
    source.hold("pread");
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 2, maxChunk: CLUSTER });
    await env.clock.advance(1);
    call.cancel();
    source.releaseAll();
    await env.clock.advance(1);
    await call.done;
    expect(call).toMatchObject({ cancelled: true, succeeded: false, failed: false });
    expect(dirtyClusters(engine)).toEqual([2, 3]);
    call.cancel();
  });

  it("ends a wait for the speed limit", async () => {
    const { engine, env } = fixture();
    engine.setSpeed(1);
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk: CLUSTER });
    await env.clock.advance(1);
    call.cancel();
    await call.done;
    expect([call.cancelled, env.clock.sleeping]).toEqual([true, 0]);
  });
});

describe("options", () => {
  it("compress copies cluster by cluster with the compressed flag, zeroes without it", async () => {
    const { source, target, env } = fixture();
    const engine = new BlockCopy({
      env,
      source: new SparseChild(source, [[0, CLUSTER]]),
      target: new CompressingChild(target),
      clusterSize: CLUSTER,
      serialising: true,
    });
    engine.setOptions({ useCopyRange: false, compress: true });
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    expect(call.error).toBeUndefined();
    const { compressed, serialising, mayUnmap } = RequestFlag;
    expect(target.log.map(({ operation, length, flags }) => [operation, length, flags])).toEqual([
      ["pwriteZeroes", CLUSTER, serialising | mayUnmap],
      ["pwrite", CLUSTER, compressed | serialising],
      ["pwrite", CLUSTER, compressed | serialising],
      ["pwrite", CLUSTER, compressed | serialising],
    ]);
  });

  it("copy range falls back to reading and writing for good when it does not work", async () => {
    const { engine, source, target, env } = fixture();
    engine.setOptions({ useCopyRange: true, compress: false });
    const call = engine.start(0, 4 * CLUSTER, all);
    await env.clock.advance(1);
    await call.done;
    expect(target.bytes).toEqual(source.bytes);
  });

  it.each([
    [{ maxTransfer: 4096 }, { maxTransfer: 0 }, [CLUSTER, CLUSTER, CLUSTER, CLUSTER]],
    [{ maxTransfer: 0 }, { maxTransfer: 3 * CLUSTER - 1 }, [2 * CLUSTER, 2 * CLUSTER]],
  ])("transfer limits %j and %j make tasks of %j", async (ofSource, ofTarget, lengths) => {
    const { source, target, env } = fixture();
    const limited = (driver: ScriptedDriver, limits: { maxTransfer: number }): TestChild =>
      Object.defineProperty(testChild(driver), "limits", {
        value: { ...driver.limits, ...limits },
      });
    const engine = new BlockCopy({
      env,
      source: limited(source, ofSource),
      target: limited(target, ofTarget),
      clusterSize: CLUSTER,
    });
    const progress: number[] = [];
    engine.setProgress({
      workDone: (length) => progress.push(length),
      setRemaining: () => undefined,
    });
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    expect(progress).toEqual(lengths);
    expect(target.bytes).toEqual(source.bytes);
  });
});

describe("the allocation of the top layer", () => {
  const sparse = (holes: [number, number][]) => {
    const { source, target, env } = fixture({ size: 4 * CLUSTER + 1000 });
    const edge = new SparseChild(source, holes);
    return {
      env,
      source,
      target,
      engine: new BlockCopy({ env, source: edge, target: testChild(target), clusterSize: CLUSTER }),
    };
  };

  it.each([
    ["nothing allocated counts the tail as a cluster", [[0, 4 * CLUSTER + 1000]], 0, false, 5, []],
    ["a partly allocated cluster is allocated", [[0, CLUSTER - 1]], 0, true, 5, [0, 1, 2, 3, 4]],
    [
      "an unallocated run ends at the last whole cluster",
      [[0, 2 * CLUSTER + 5]],
      0,
      false,
      2,
      [2, 3, 4],
    ],
    ["an allocated run is rounded up", [[CLUSTER + 5, 3 * CLUSTER]], 0, true, 2, [0, 1, 2, 3, 4]],
    [
      "holes that touch are one",
      [
        [0, CLUSTER / 2],
        [CLUSTER / 2, CLUSTER],
      ],
      0,
      false,
      1,
      [1, 2, 3, 4],
    ],
  ] as [string, [number, number][], number, boolean, number, number[]][])(
    "%s",
    async (_title, holes, offset, allocated, clusters, dirty) => {
      const { engine } = sparse(holes);
      expect(await engine.resetUnallocated(offset)).toEqual({
        allocated,
        length: clusters * CLUSTER,
      });
      expect(dirtyClusters(engine)).toEqual(dirty);
    },
  );

  it("is left out of a copy that skips it, and not found again", async () => {
    const { engine, source, target, env } = sparse([[CLUSTER, 2 * CLUSTER]]);
    engine.setSkipUnallocated(true);
    const call = engine.start(0, 5 * CLUSTER, { maxWorkers: 4, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    const expected = source.bytes.slice();
    expected.fill(0, CLUSTER, 3 * CLUSTER);
    expect(target.bytes).toEqual(expected);
    expect(engine.remaining).toBe(0);
  });
});

describe("the copy bitmap", () => {
  it("is reset by ranges, restarted as a whole, and counted as remaining", async () => {
    const { engine, env } = fixture();
    const remaining: number[] = [];
    engine.setProgress({
      workDone: () => undefined,
      setRemaining: (length) => remaining.push(length),
    });
    engine.reset(CLUSTER, CLUSTER);
    expect(dirtyClusters(engine)).toEqual([0, 2, 3]);
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk: CLUSTER });
    await env.clock.advance(1);
    await call.done;
    expect(remaining.at(-1)).toBe(0);
    engine.restart();
    expect(dirtyClusters(engine)).toEqual([0, 1, 2, 3]);
    expect(remaining.at(-1)).toBe(4 * CLUSTER);
  });

  it("refuses an initial bitmap of another size", () => {
    const initial = new HBitmap(CLUSTER, CLUSTER);
    expect(() => fixture({ initial })).toThrow(
      expect.objectContaining({
        code: "EINVAL",
        context: expect.objectContaining({ length: CLUSTER }),
      }),
    );
  });
});
