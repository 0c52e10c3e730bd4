import type { BackupJob } from "@blocklayer/backup";
import type { WritableBackend } from "@blocklayer/block-graph";
import type { ScriptedDriver } from "@blocklayer/driver-tests";
import { SeededRandom, SeededScheduler } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import fc from "fast-check";
import { expect, it } from "vitest";
import { CLUSTER, Fixture } from "./fixture.ts";

const CLUSTERS = 5;
const SIZE = CLUSTERS * CLUSTER - 1000;

/** One run: a backup under a guest that writes, with pauses, drains, speed changes, errors and cancels. */
class World {
  readonly scheduler: SeededScheduler;
  readonly random: SeededRandom;
  readonly fixture: Fixture;
  source!: ScriptedDriver;
  target!: ScriptedDriver;
  guest!: WritableBackend;
  /** What the guest sees: every write that succeeded. */
  expected: Uint8Array = new Uint8Array(SIZE);
  job: BackupJob | undefined;

  constructor(seed: number) {
    this.scheduler = new SeededScheduler({ seed });
    this.random = new SeededRandom(seed + 1);
    this.fixture = new Fixture(this.scheduler.env);
  }

  async open(): Promise<void> {
    this.source = await this.fixture.disk("disk", SIZE, this.random.bytes(SIZE));
    this.target = await this.fixture.disk("target", SIZE);
    for (const disk of [this.source, this.target]) this.slow(disk);
    this.expected = this.source.bytes.slice();
    this.guest = await this.fixture.guest("disk");
    await this.fixture.bitmaps.add(this.fixture.node("disk"), { name: "bm", granularity: 4096 });
  }

  /** Lets the scheduler decide when held requests end, for half of the runs. */
  slow(disk: ScriptedDriver): void {
    if (this.random.below(2) === 0) return;
    disk.hold("pread", "pwrite", "pwriteZeroes", "flush");
    const pump = (): void => {
      const held = disk.held;
      const chosen = held[this.random.below(Math.max(1, held.length))];
      if (chosen !== undefined) disk.release(chosen.index);
      if (this.isOver) disk.releaseAll();
      else this.scheduler.post("disk", pump);
    };
    this.scheduler.post("disk", pump);
  }

  isOver: boolean = false;

  async write(): Promise<void> {
    const offset = this.random.below(SIZE - 1);
    const length =
      1 +
      this.random.below(Math.min(SIZE - offset, this.random.below(3) === 0 ? CLUSTER * 2 : 4096));
    const kind = this.random.below(4);
    const bytes = kind === 0 ? new Uint8Array(length) : this.random.bytes(length);
    if (kind === 0) await this.guest.writeZeroes(offset, length);
    else await this.guest.write(offset, bytes);
    this.expected.set(bytes, offset);
  }

  /** One thing that happens while the backup runs. */
  async disturb(): Promise<void> {
    const { job } = this;
    if (job === undefined) return;
    switch (this.random.below(6)) {
      case 0: {
        const hold = await this.fixture.node("disk").drain();
        await this.scheduler.turn("drained");
        hold.end();
        return;
      }
      case 1:
        attempt(() => job.job.pause());
        await this.scheduler.turn("paused");
        attempt(() => job.job.resume());
        return;
      case 2:
        attempt(() => job.job.setSpeed(this.random.below(2) * CLUSTER));
        return;
      default:
        await this.scheduler.turn("idle");
    }
  }
}

/** A verb that the job's state refuses is part of the game. */
function attempt(verb: () => void): void {
  try {
    verb();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

async function pointInTime(seed: number): Promise<void> {
  const world = new World(seed);
  await world.scheduler.run(() => live(world));
  await world.scheduler.settle();
}

/** Opens the disks, makes one backup under fire, and judges it. */
async function live(world: World): Promise<void> {
  const { random, fixture } = world;
  await world.open();
  for (let count = random.below(4); count > 0; count -= 1) await world.write();
  const isFull = random.below(2) === 0;
  const dirty = fixture.bitmap("bm").map.clone();
  const wanted = world.target.bytes.slice();
  world.job = await fixture.start({
    sync: isFull ? "full" : "bitmap",
    bitmap: "bm",
    "bitmap-mode": random.below(2) === 0 ? "on-success" : "always",
    "x-perf": { "max-workers": 1 + random.below(3), "max-chunk": CLUSTER * random.below(3) },
  });
  const frozen = world.expected.slice();
  const error = await underFire(world, world.job);
  if (error === undefined) {
    for (let at = 0; at < SIZE; at += CLUSTER) {
      const end = Math.min(at + CLUSTER, SIZE);
      if (isFull || dirty.nextDirty(at, end - at) >= 0) wanted.set(frozen.subarray(at, end), at);
    }
    expect(Buffer.from(world.target.bytes).equals(wanted)).toBe(true);
    expectSound(world, frozen);
  }
  expect(
    fixture.graph.nodes().map((node) => [node.name, node.io.inFlight, node.quiesceCount]),
  ).toEqual([
    ["disk", 0, 0],
    ["target", 0, 0],
  ]);
  expect(fixture.jobs.list()).toEqual([]);
}

/** Lets things happen until the job has ended; returns its error. */
async function underFire(world: World, { job }: BackupJob): Promise<BlockError | undefined> {
  const { random, scheduler } = world;
  if (random.below(4) === 0) world.target.failNth("pwrite", 1 + random.below(4), "EIO");
  const isCancelled = random.below(5) === 0;
  const work: Promise<void>[] = [];
  for (let count = random.below(8); count > 0; count -= 1) {
    work.push(guarded(world.write()), world.disturb());
    await scheduler.turn("guest");
  }
  if (isCancelled) await job.cancelAndWait();
  await Promise.all(work);
  attempt(() => job.resume());
  attempt(() => job.setSpeed(0));
  const error = await job.completed();
  world.isOver = true;
  for (const disk of [world.source, world.target]) disk.releaseAll();
  return error;
}

/** What differs from the backup's point in time is marked in the bitmap. */
function expectSound({ source, fixture }: World, frozen: Uint8Array): void {
  const { map } = fixture.bitmap("bm");
  const now = Buffer.from(source.bytes);
  for (let at = 0; at < SIZE; at += map.granularity) {
    const end = Math.min(at + map.granularity, SIZE);
    if (!now.subarray(at, end).equals(frozen.subarray(at, end))) expect(map.get(at)).toBe(true);
  }
}

/** A guest's write fails when its old data can not be saved; then nothing of it is on the disk. */
async function guarded(write: Promise<void>): Promise<void> {
  try {
    await write;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

it("a backup equals its source at the instant it began, under writes, pauses, drains, errors and cancels", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 31 }), (seed) => pointInTime(seed)),
    { numRuns: 150 },
  );
}, 60_000);
