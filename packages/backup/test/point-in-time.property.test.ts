import type { BackupJob, BackupOptions } from "@blocklayer/backup";
import type { WritableBackend } from "@blocklayer/block-graph";
import type { ScriptedDriver } from "@blocklayer/driver-tests";
import { SeededRandom, SeededScheduler } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import type { TransactionStep } from "@blocklayer/jobs";
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
  /** The disk in the turn in which the filter was inserted. */
  frozen: Uint8Array = new Uint8Array(SIZE);
  /** The bitmap in that turn. */
  dirty!: HBitmap;
  job: BackupJob | undefined;

  constructor(seed: number) {
    this.scheduler = new SeededScheduler({ seed });
    this.random = new SeededRandom(seed + 1);
    this.fixture = new Fixture(this.scheduler.env);
  }

  async open(): Promise<void> {
    const content = this.random.bytes(SIZE);
    this.source = await this.fixture.disk("disk", SIZE, content, { discard: "unmap" });
    this.target = await this.fixture.disk("target", SIZE);
    for (const disk of [this.source, this.target]) this.slow(disk);
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
    const kind = this.random.below(5);
    if (kind === 0) await this.guest.writeZeroes(offset, length);
    else if (kind === 1) await this.guest.discard(offset, length);
    else await this.guest.write(offset, this.random.bytes(length));
  }

  /** Notes in the very turn what the backup has to be. */
  remember(): TransactionStep {
    return {
      name: "remember",
      prepare: () => undefined,
      commit: () => {
        this.frozen = this.source.bytes.slice();
        this.dirty = this.fixture.bitmap("bm").map.clone();
      },
    };
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

const modes = [
  ["full", "on-success"],
  ["full", "always"],
  ["bitmap", "on-success"],
  ["bitmap", "always"],
  ["bitmap", "never"],
  ["none", undefined],
] as const;

/** Opens the disks, makes one backup under fire, and judges it. */
async function live(world: World): Promise<void> {
  const { random, fixture } = world;
  await world.open();
  for (let count = random.below(4); count > 0; count -= 1) await world.write();
  const [sync, mode] = modes[random.below(modes.length)] ?? modes[0];
  const before = world.target.bytes.slice();
  const options: BackupOptions = {
    "job-id": "job",
    device: "disk",
    target: "target",
    sync,
    ...(mode === undefined ? {} : { bitmap: "bm", "bitmap-mode": mode }),
    "on-cbw-error": random.below(2) === 0 ? "break-guest-write" : "break-snapshot",
    "on-target-error": random.below(3) === 0 ? "ignore" : "report",
    "x-perf": { "max-workers": 1 + random.below(3), "max-chunk": CLUSTER * random.below(3) },
  };
  // Writes that are under way when it starts are before or after its moment, as a whole.
  const early = [guarded(world.write()), guarded(world.write())];
  const [job] = await fixture.backups.startAll([options], { steps: [world.remember()] });
  if (job === undefined) throw new Error("no job was started");
  world.job = job;
  const error = await underFire(world, job, sync === "none");
  await Promise.all(early);
  if (sync === "none") expect(error?.code).not.toBe(undefined);
  else judge(world, options, { error, before });
  expectSound(world);
  expect(
    fixture.graph.nodes().map((node) => [node.name, node.io.inFlight, node.quiesceCount]),
  ).toEqual([
    ["disk", 0, 0],
    ["target", 0, 0],
  ]);
  expect(fixture.jobs.list()).toEqual([]);
}

/** What the target holds and what the bitmap says that it lacks are the disk of the moment. */
function judge(
  { target, frozen, dirty, fixture }: World,
  { sync, "bitmap-mode": mode }: BackupOptions,
  { error, before }: { readonly error: BlockError | undefined; readonly before: Uint8Array },
): void {
  const { map } = fixture.bitmap("bm");
  for (let at = 0; at < SIZE; at += CLUSTER) {
    const end = Math.min(at + CLUSTER, SIZE);
    const isWanted = sync === "full" || dirty.nextDirty(at, end - at) >= 0;
    const holds = (content: Uint8Array): boolean =>
      Buffer.from(target.bytes.subarray(at, end)).equals(content.subarray(at, end));
    if (!isWanted) expect(holds(before)).toBe(true);
    else if (error === undefined) expect(holds(frozen)).toBe(true);
    else if (mode === "always" && !holds(frozen)) expect(map.nextDirty(at, end - at)).not.toBe(-1);
  }
  const isKept = mode === "never" || (mode === "on-success" && error !== undefined);
  if (isKept) expectKept(dirty, map);
}

function expectKept(before: HBitmap, after: HBitmap): void {
  for (let at = 0; at < SIZE; at += before.granularity) {
    if (before.get(at)) expect(after.get(at)).toBe(true);
  }
}

/** Lets things happen until the job has ended; returns its error. */
async function underFire(
  world: World,
  { job }: BackupJob,
  mustCancel: boolean,
): Promise<BlockError | undefined> {
  const { random, scheduler } = world;
  if (random.below(4) === 0) world.target.failNth("pwrite", 1 + random.below(4), "EIO");
  const isCancelled = mustCancel || random.below(5) === 0;
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
function expectSound({ source, fixture, frozen }: World): void {
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
