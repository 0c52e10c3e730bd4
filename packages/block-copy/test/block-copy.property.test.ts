import { BlockCopy, type CopyCall } from "@blocklayer/block-copy";
import { patternBytes, SeededDisk, testChild } from "@blocklayer/driver-tests";
import { SeededScheduler, settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import fc from "fast-check";
import { expect, it } from "vitest";
import { isSame } from "./fixture.ts";

/*
 * Guests that copy before they write, background calls that are cancelled, limited and kicked, disks that fail:
 * all in an order that the seed decides. After every step each cluster is in one of three states, and each state
 * keeps its promise.
 */

const CLUSTER = 512;
const CLUSTERS = 9;
const SIZE = CLUSTERS * CLUSTER - 200;

class World {
  readonly scheduler: SeededScheduler;
  readonly source: SeededDisk;
  readonly target: SeededDisk;
  readonly engine: BlockCopy;
  /** What the source held at the beginning. */
  readonly before: Uint8Array;
  started = 0;
  ended = 0;
  readonly calls: CopyCall[] = [];

  constructor(seed: number) {
    this.scheduler = new SeededScheduler({ seed, drain: () => this.#drain() });
    this.source = new SeededDisk(this.scheduler, SIZE);
    this.source.bytes.set(patternBytes(SIZE, seed));
    const holes = this.scheduler.random.below(SIZE);
    this.source.bytes.fill(0, holes, holes + 3 * CLUSTER);
    this.before = this.source.bytes.slice();
    this.target = new SeededDisk(this.scheduler, SIZE);
    this.target.bytes.fill(0x77);
    this.engine = new BlockCopy({
      env: this.scheduler.env,
      source: testChild(this.source),
      target: testChild(this.target, { name: "target" }),
      clusterSize: CLUSTER,
    });
  }

  async #drain(): Promise<void> {
    await settleTurn();
    this.check();
  }

  check(): void {
    let inFlight = 0;
    for (let offset = 0; offset < SIZE; offset += CLUSTER) {
      const { clean } = this.engine.status(offset, 1);
      const dirty = this.engine.copyBitmap.get(offset);
      const [start, end] = [offset, Math.min(offset + CLUSTER, SIZE)];
      const original = this.before.subarray(start, end);
      if (dirty) expect(isSame(this.source.bytes.subarray(start, end), original)).toBe(true);
      if (clean) expect(isSame(this.target.bytes.subarray(start, end), original)).toBe(true);
      if (!(dirty || clean)) inFlight += CLUSTER;
      expect(dirty && clean).toBe(false);
    }
    expect(this.engine.inFlightBytes).toBe(inFlight);
  }

  range(): [offset: number, length: number] {
    const first = this.scheduler.random.below(CLUSTERS);
    const count = 1 + this.scheduler.random.below(CLUSTERS - first);
    return [first * CLUSTER, count * CLUSTER];
  }

  /** Copies, and overwrites what it copied. */
  async guest(): Promise<void> {
    const { random } = this.scheduler;
    const [offset, length] = this.range();
    const timeoutMs = random.below(3) === 0 ? 1 + random.below(20) : 0;
    this.started += 1;
    try {
      await this.engine.copy(offset, length, {
        timeoutMs,
        ignoreRateLimit: random.below(2) === 0,
        onEnd: () => {
          this.ended += 1;
        },
      });
    } catch (error) {
      expect(error).toBeInstanceOf(BlockError);
      return;
    }
    expect(this.engine.isClean(offset, length)).toBe(true);
    this.source.bytes.fill(0xee, offset, Math.min(offset + length, SIZE));
  }

  async background(): Promise<void> {
    const { random } = this.scheduler;
    const maxWorkers = 1 + random.below(4);
    const call = this.engine.start(...this.range(), {
      maxWorkers,
      maxChunk: random.below(3) * CLUSTER,
    });
    this.calls.push(call);
    await call.done;
    expect(Number(call.succeeded) + Number(call.failed) + Number(call.cancelled)).toBe(1);
  }

  async act(): Promise<void> {
    const { random } = this.scheduler;
    await this.scheduler.turn("actor", random.below(40));
    switch (random.below(6)) {
      case 0:
        return this.background();
      case 1:
        this.calls[random.below(this.calls.length)]?.cancel();
        return;
      case 2:
        this.engine.setSpeed(random.below(3) * 40 * CLUSTER);
        for (const call of this.calls) call.kick();
        return;
      default:
        return this.guest();
    }
  }
}

it("every cluster is dirty, in a task, or copied, in any order of completions", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0 }), async (seed) => {
      const world = new World(seed);
      const { scheduler, engine, source, target } = world;
      await scheduler.run(async () => {
        source.failures = scheduler.random.below(3) * 10;
        target.failures = scheduler.random.below(3) * 10;
        await Promise.all([world.background(), ...Array.from({ length: 14 }, () => world.act())]);
        source.failures = 0;
        target.failures = 0;
        engine.setSpeed(0);
        const last = engine.start(0, CLUSTERS * CLUSTER, { maxWorkers: 3, maxChunk: 0 });
        await last.done;
        expect(last.succeeded).toBe(true);
        await engine.whenIdle();
      });
      expect(target.bytes).toEqual(world.before);
      expect([engine.remaining, engine.inFlightBytes, source.running, target.running]).toEqual([
        0, 0, 0, 0,
      ]);
      await scheduler.settle();
      expect(world.ended).toBe(world.started);
    }),
    { numRuns: 200 },
  );
});

it("the same seed gives the same run", async () => {
  const traceOf = async (seed: number): Promise<readonly string[]> => {
    const world = new World(seed);
    world.target.failures = 10;
    await world.scheduler.run(async () => {
      await Promise.all(Array.from({ length: 6 }, () => world.act()));
    });
    return world.scheduler.trace;
  };
  expect(await traceOf(7)).toEqual(await traceOf(7));
});
