import { CopyBeforeWriteDriver } from "@blocklayer/backup-top";
import type { CopyCall } from "@blocklayer/block-copy";
import { RequestFlag } from "@blocklayer/driver";
import { patternBytes, SeededDisk, testChild } from "@blocklayer/driver-tests";
import { SeededScheduler, settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import fc from "fast-check";
import { expect, it } from "vitest";
import { isSame } from "./fixture.ts";

/*
 * CB-1 to CB-6 of docs/reliability.md: guests that write, zero, discard and give up; readers of the snapshot; a
 * background copy that is paused, limited and cancelled; disks that fail and are slow: in an order that the seed
 * decides. Whatever happens, a read of the snapshot gives the disk as it was at the beginning, or fails.
 */

const CLUSTER = 512;
const CLUSTERS = 9;
const SIZE = CLUSTERS * CLUSTER - 200;

class World {
  readonly scheduler: SeededScheduler;
  readonly source: SeededDisk;
  readonly target: SeededDisk;
  readonly filter: CopyBeforeWriteDriver;
  readonly before: Uint8Array;
  readonly calls: CopyCall[] = [];
  /** Clusters that were given up by a discard of the snapshot. */
  readonly discarded: Set<number> = new Set();
  held = 0;
  writes = 0;
  reads = 0;

  constructor(seed: number) {
    this.scheduler = new SeededScheduler({ seed, drain: () => this.#drain() });
    const { random, env } = this.scheduler;
    this.source = new SeededDisk(this.scheduler, SIZE);
    this.source.bytes.set(patternBytes(SIZE, seed));
    const holes = this.scheduler.random.below(SIZE);
    this.source.bytes.fill(0, holes, holes + 3 * CLUSTER);
    this.before = this.source.bytes.slice();
    this.target = new SeededDisk(this.scheduler, SIZE);
    this.target.bytes.fill(0x77);
    this.filter = new CopyBeforeWriteDriver({
      host: { nodeName: "cbw", holdInFlight: () => this.#hold() },
      env,
      source: testChild(this.source),
      target: testChild(this.target, { name: "target" }),
      clusterSize: CLUSTER,
      serialising: false,
      options: {
        "on-cbw-error": random.below(2) === 0 ? "break-guest-write" : "break-snapshot",
        "cbw-timeout": random.below(3) === 0 ? 0.02 : 0,
        "min-cluster-size": 0,
        "x-blocklayer-discard-source": false,
      },
    });
  }

  get isBroken(): boolean {
    return this.filter.snapshotError !== undefined;
  }

  #hold(): Disposable {
    this.held += 1;
    return {
      [Symbol.dispose]: () => {
        this.held -= 1;
      },
    };
  }

  async #drain(): Promise<void> {
    await settleTurn();
    this.check();
  }

  /** CB-2: what is not saved was not overwritten; what counts as saved is. */
  check(): void {
    if (this.isBroken) return;
    const { engine } = this.filter;
    for (let cluster = 0; cluster < CLUSTERS; cluster += 1) {
      if (this.discarded.has(cluster)) continue;
      const [start, end] = [cluster * CLUSTER, Math.min((cluster + 1) * CLUSTER, SIZE)];
      const kept = engine.status(start, 1).clean ? this.target : this.source;
      expect(isSame(kept.bytes.subarray(start, end), this.before.subarray(start, end))).toBe(true);
    }
  }

  range(): [offset: number, length: number] {
    const { random } = this.scheduler;
    const offset = random.below(SIZE);
    const most = random.below(3) === 0 ? SIZE : CLUSTER;
    return [offset, 1 + random.below(Math.min(most, SIZE - offset))];
  }

  async guest(): Promise<void> {
    const { random } = this.scheduler;
    const [offset, length] = this.range();
    const controller = new AbortController();
    const { signal } = controller;
    if (random.below(5) === 0) {
      const reason = new BlockError("ECANCELED", "given up");
      this.scheduler.post("give up", () => controller.abort(reason), random.below(10));
    }
    this.writes += 1;
    const bytes = new Uint8Array(length).fill(0xee);
    try {
      await [
        () => this.filter.pwrite(offset, bytes, { signal }),
        () => this.filter.pwrite(offset, bytes),
        () => this.filter.pwritev(offset, [bytes.subarray(0, 1), bytes.subarray(1)], { signal }),
        () => this.filter.pwriteZeroes(offset, length, { flags: RequestFlag.mayUnmap, signal }),
        () => this.filter.pdiscard(offset, length, { signal }),
      ][random.below(5)]?.();
    } catch (error) {
      expect(error).toBeInstanceOf(BlockError);
      expect(["EIO", "ETIMEDOUT", "ECANCELED"]).toContain((error as BlockError).code);
    }
  }

  async reader(): Promise<void> {
    const [offset, length] = this.range();
    const wasBroken = this.isBroken;
    const buffer = new Uint8Array(length);
    try {
      await this.filter.snapshotRead(offset, buffer);
    } catch (error) {
      const { code } = error as BlockError;
      if (code === "EIO") expect(this.source.failures + this.target.failures).toBeGreaterThan(0);
      else expect([code, this.isBroken || this.discarded.size > 0]).toEqual(["EACCES", true]);
      return;
    }
    this.reads += 1;
    expect(wasBroken).toBe(false);
    expect(isSame(buffer, this.before.subarray(offset, offset + length))).toBe(true);
  }

  async background(): Promise<void> {
    const { random } = this.scheduler;
    const call = this.filter.engine.start(0, CLUSTERS * CLUSTER, {
      maxWorkers: 1 + random.below(4),
      maxChunk: random.below(3) * CLUSTER,
    });
    this.calls.push(call);
    await call.done;
  }

  async giveUp(): Promise<void> {
    const cluster = this.scheduler.random.below(CLUSTERS);
    this.discarded.add(cluster);
    try {
      await this.filter.snapshotDiscard(cluster * CLUSTER, CLUSTER);
    } catch (error) {
      expect(error).toMatchObject({ code: "EIO" });
    }
  }

  async act(): Promise<void> {
    const { random } = this.scheduler;
    await this.scheduler.turn("actor", random.below(60));
    const kind = random.below(16);
    if (kind < 8) return this.guest();
    if (kind < 12) return this.reader();
    if (kind === 12) return this.background();
    if (kind === 13 && random.below(4) === 0) return this.giveUp();
    if (kind === 14) this.filter.engine.setSpeed(random.below(3) * 40 * CLUSTER);
    for (const call of this.calls) {
      if (kind === 14) call.kick();
      else call.cancel();
    }
  }

  /** With disks that work again: the copy is completed, and everything equals the beginning. */
  async finish(): Promise<void> {
    const { engine } = this.filter;
    this.source.failures = 0;
    this.target.failures = 0;
    engine.setSpeed(0);
    const last = engine.start(0, CLUSTERS * CLUSTER, { maxWorkers: 3, maxChunk: 0 });
    await last.done;
    await engine.whenIdle();
    expect([last.succeeded, engine.remaining]).toEqual([true, 0]);
    for (let cluster = 0; cluster < CLUSTERS; cluster += 1) {
      const [start, end] = [cluster * CLUSTER, Math.min((cluster + 1) * CLUSTER, SIZE)];
      const buffer = new Uint8Array(end - start);
      const read = this.filter.snapshotRead(start, buffer);
      if (this.isBroken || this.discarded.has(cluster)) {
        await expect(read).rejects.toMatchObject({ code: "EACCES" });
        continue;
      }
      await read;
      const original = this.before.subarray(start, end);
      expect(isSame(buffer, original)).toBe(true);
      expect(isSame(this.target.bytes.subarray(start, end), original)).toBe(true);
    }
  }
}

async function play(seed: number, actors: number): Promise<World> {
  const world = new World(seed);
  const { scheduler, source, target } = world;
  await scheduler.run(async () => {
    source.failures = scheduler.random.below(4) === 0 ? 5 : 0;
    target.failures = scheduler.random.below(4) === 0 ? 10 : 0;
    await Promise.all(Array.from({ length: actors }, () => world.act()));
    await world.finish();
  });
  await scheduler.settle();
  expect([world.held, source.running, target.running]).toEqual([0, 0, 0]);
  expect(world.filter.writeDelay.snapshot().count).toBe(world.writes);
  return world;
}

it("a read of the snapshot gives the disk as it was, or fails", async () => {
  let reads = 0;
  let broken = 0;
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0 }), async (seed) => {
      const world = await play(seed, 24);
      reads += world.reads;
      broken += Number(world.isBroken);
    }),
    { numRuns: 200 },
  );
  // The scripts reach what they are about.
  expect(reads).toBeGreaterThan(100);
  expect(broken).toBeGreaterThan(5);
});

it("the same seed gives the same run", async () => {
  const [first, second] = [await play(11, 12), await play(11, 12)];
  expect(first.scheduler.trace).toEqual(second.scheduler.trace);
});
