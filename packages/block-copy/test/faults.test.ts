import { BlockCopy } from "@blocklayer/block-copy";
import type { BlockChild } from "@blocklayer/driver";
import { type ScriptedDriver, TestChild, testChild } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { CLUSTER, dirtyClusters, fixture, isSame, SparseChild } from "./fixture.ts";

const all = { maxWorkers: 4, maxChunk: 0 };

describe("request n of a disk fails, for n = 1, 2, … until none does", () => {
  const rows = [
    ["source", "pread"],
    ["target", "pwrite"],
    ["target", "pwriteZeroes"],
  ] as const;
  it.each(rows)("of the %s, %s: what is not copied is dirty", async (side, operation) => {
    for (let at = 1; ; at += 1) {
      const { env, source, target, before } = fixture({ size: 6 * CLUSTER - 100 });
      before.fill(0, 2 * CLUSTER, 4 * CLUSTER);
      source.bytes.set(before);
      const engine = new BlockCopy({
        env,
        source: new SparseChild(source, [[2 * CLUSTER, 2 * CLUSTER]]),
        target: testChild(target),
        clusterSize: CLUSTER,
      });
      (side === "source" ? source : target).failNth(operation, at, "ENOSPC");
      const call = engine.start(0, 6 * CLUSTER, { maxWorkers: 2, maxChunk: CLUSTER });
      await env.clock.advance(1);
      await call.done;
      expect(engine.inFlightBytes).toBe(0);
      for (let offset = 0; offset < before.length; offset += CLUSTER) {
        if (engine.copyBitmap.get(offset)) continue;
        const end = offset + CLUSTER;
        expect(isSame(target.bytes.subarray(offset, end), before.subarray(offset, end))).toBe(true);
      }
      if (call.succeeded) {
        expect(at).toBeGreaterThan(1);
        expect(isSame(target.bytes, before)).toBe(true);
        return;
      }
      expect(call).toMatchObject({
        errorIsRead: operation === "pread",
        error: { code: "ENOSPC" },
      });
      const again = engine.start(0, 6 * CLUSTER, all);
      await env.clock.advance(1);
      await again.done;
      expect(isSame(target.bytes, before)).toBe(true);
    }
  });
});

/** An edge that copies ranges by itself, as long as it is told to. */
class OffloadingChild extends TestChild {
  works: boolean = true;
  readonly lengths: number[] = [];

  override async copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
  ): Promise<void> {
    this.lengths.push(length);
    if (!this.works) throw new Error("no offload today");
    const bytes = (this.driver as ScriptedDriver).bytes.slice(offset, offset + length);
    await target.pwrite(targetOffset, bytes);
  }
}

describe("copies without buffers", () => {
  const MIB = 2 ** 20;
  const offloading = (size: number) => {
    const made = fixture({ size });
    const source = new OffloadingChild(made.source);
    const engine = new BlockCopy({
      env: made.env,
      source,
      target: testChild(made.target),
      clusterSize: CLUSTER,
    });
    engine.setOptions({ useCopyRange: true, compress: false });
    return { ...made, engine, edge: source };
  };

  it("begin small and grow once one has worked", async () => {
    const { engine, edge, env, source, target } = offloading(20 * MIB);
    const call = engine.start(0, 20 * MIB, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    expect(edge.lengths).toEqual([MIB, 16 * MIB, 3 * MIB]);
    expect(source.log.some(({ operation }) => operation === "pread")).toBe(false);
    expect(isSame(target.bytes, source.bytes)).toBe(true);
  });

  it("are given up for good when one fails, and that task is read and written, in pieces", async () => {
    const { engine, edge, env, source, target } = offloading(36 * MIB);
    const first = engine.start(0, MIB, all);
    await env.clock.advance(1);
    await first.done;
    edge.works = false;
    const call = engine.start(0, 36 * MIB, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    expect(edge.lengths).toEqual([MIB, 16 * MIB]);
    const reads = source.log.filter(({ operation }) => operation === "pread");
    expect(new Set(reads.map(({ length }) => length))).toEqual(new Set([MIB]));
    expect(isSame(target.bytes, source.bytes)).toBe(true);
  });
});

describe("a long run of zeroes", () => {
  const MIB = 2 ** 20;
  it.each([
    [0, [64, 6], 10],
    [2 * MIB, Array.from({ length: 35 }, () => 2), 10],
  ])("with a longest chunk of %i is few tasks", async (maxChunk, zeroes, dataTasks) => {
    const size = 80 * MIB;
    const { env, source, target } = fixture({ size });
    const engine = new BlockCopy({
      env,
      source: new SparseChild(source, [[0, 70 * MIB]]),
      target: testChild(target),
      clusterSize: CLUSTER,
    });
    const call = engine.start(0, size, { maxWorkers: 1, maxChunk });
    await env.clock.advance(1);
    await call.done;
    const lengthsOf = (wanted: string) =>
      target.log.filter(({ operation }) => operation === wanted).map(({ length }) => length / MIB);
    expect(lengthsOf("pwriteZeroes")).toEqual(zeroes);
    expect(lengthsOf("pwrite")).toEqual(Array.from({ length: dataTasks }, () => 1));
    expect(engine.remaining).toBe(0);
  });

  it("that is being looked at does not keep a guest from what turns out to be data", async () => {
    const { engine, source, env } = fixture({ size: 8 * MIB });
    source.hold("blockStatus");
    const call = engine.start(0, 8 * MIB, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(0);
    const guest = engine.copy(6 * MIB, CLUSTER);
    expect(engine.isClean(6 * MIB, CLUSTER)).toBe(false);
    source.hold("pread");
    source.release();
    await env.clock.advance(0);
    const reads = source.held.map(({ offset, length }) => [offset, length]);
    expect(reads).toEqual([
      [0, MIB],
      [6 * MIB, CLUSTER],
    ]);
    source.releaseAll();
    await env.clock.advance(0);
    await Promise.all([guest, call.done]);
  });
});

describe("clusters that are not copied", () => {
  it("are told to who has to know that the target does not hold them", async () => {
    const { env, source, target } = fixture();
    const skipped: number[][] = [];
    const engine = new BlockCopy({
      env,
      source: new SparseChild(source, [[CLUSTER, CLUSTER]]),
      target: testChild(target),
      clusterSize: CLUSTER,
      onSkip: (offset, length) => skipped.push([offset, length]),
    });
    engine.reset(3 * CLUSTER, CLUSTER);
    engine.reset(0, 0);
    engine.setSkipUnallocated(true);
    await engine.copy(0, 2 * CLUSTER);
    expect(skipped).toEqual([
      [3 * CLUSTER, CLUSTER],
      [CLUSTER, CLUSTER],
    ]);
  });
});

describe("the state of a range", () => {
  it("is dirty, in a task or clean, with the length of the run", async () => {
    const initial = new HBitmap(4 * CLUSTER, CLUSTER);
    initial.set(CLUSTER, 2 * CLUSTER);
    const { engine, source, env } = fixture({ initial });
    source.hold("pread");
    const copy = engine.copy(2 * CLUSTER, CLUSTER);
    await env.clock.advance(0);
    const at = (offset: number) => {
      const { clean, length } = engine.status(offset, 4 * CLUSTER - offset);
      return [clean, length];
    };
    expect([at(10), at(CLUSTER), at(2 * CLUSTER + 1), at(3 * CLUSTER)]).toEqual([
      [true, CLUSTER - 10],
      [false, CLUSTER],
      [false, CLUSTER - 1],
      [true, CLUSTER],
    ]);
    expect(dirtyClusters(engine)).toEqual([1]);
    expect(engine.remainingBitmap().countBetween(0, 4 * CLUSTER)).toBe(2 * CLUSTER);
    source.releaseAll();
    await copy;
    expect(at(2 * CLUSTER)).toEqual([true, 2 * CLUSTER]);
  });
});

describe("beginning anew", () => {
  it("takes the length that the source has then", async () => {
    const { engine, source, env } = fixture({ size: 2 * CLUSTER });
    await source.truncate(3 * CLUSTER);
    engine.restart();
    expect([engine.size, dirtyClusters(engine)]).toEqual([3 * CLUSTER, [0, 1, 2]]);
    await source.truncate(CLUSTER);
    engine.restart();
    await env.clock.advance(0);
    expect([engine.size, dirtyClusters(engine)]).toEqual([CLUSTER, [0]]);
  });

  it("while tasks run is a defect of the caller", async () => {
    const { engine, source } = fixture();
    source.hold("pread");
    const copy = engine.copy(0, CLUSTER);
    expect(() => engine.restart()).toThrow(expect.objectContaining({ name: "AssertionError" }));
    await settleTurn();
    source.releaseAll();
    await copy;
  });
});

describe("a kick", () => {
  it("in the moment before the wait begins is not lost", async () => {
    for (let turns = 0; turns < 12; turns += 1) {
      const { engine, env } = fixture();
      engine.setSpeed(1);
      await engine.copy(0, CLUSTER);
      const call = engine.start(0, 4 * CLUSTER, all);
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      engine.setSpeed(0);
      call.kick();
      await env.clock.advance(1);
      expect([turns, call.finished]).toEqual([turns, true]);
    }
  });
});

describe("a time-out", () => {
  it("in the moment in which the copy ends is no failure", async () => {
    const { engine, target, env } = fixture();
    target.hold("pwrite");
    const guest = engine.copy(0, CLUSTER, { timeoutMs: 5 });
    await env.clock.advance(4);
    target.releaseAll();
    await Promise.all([env.clock.advance(1), guest]);
    expect(env.clock.sleeping).toBe(0);
  });
});

describe("a cluster that is longer than a buffer", () => {
  it("is copied in pieces", async () => {
    const size = 40 * 2 ** 20;
    const { source, target, env } = fixture({ size });
    const engine = new BlockCopy({
      env,
      source: testChild(source),
      target: testChild(target),
      clusterSize: 2 ** 26,
    });
    await engine.copy(0, 2 ** 26);
    const reads = source.log.filter(({ operation }) => operation === "pread");
    expect(reads.map(({ length }) => length / 2 ** 20)).toEqual([16, 16, 8]);
    expect(isSame(target.bytes, source.bytes)).toBe(true);
  });
});
