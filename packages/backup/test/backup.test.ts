import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER } from "./fixture.ts";

const ones = (length: number): Uint8Array => new Uint8Array(length).fill(0xee);

describe("a full backup", () => {
  it("equals the disk at the moment it began, whatever the guest does meanwhile", async () => {
    const { fixture, env, target, before } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start();
    await guest.write(CLUSTER + 100, ones(512));
    await guest.writeZeroes(2 * CLUSTER, 4096);
    await guest.discard(3 * CLUSTER, CLUSTER);
    await env.clock.advance(1);
    await job.completed();
    expect(target.bytes).toEqual(before);
  });

  it("is stable before its bits are given up: the target was flushed after its last write", async () => {
    const { fixture, env, target } = await backupFixture();
    const job = await fixture.start();
    await env.clock.advance(1);
    await job.completed();
    expect(target.log.at(-1)).toMatchObject({ operation: "flush", state: "done" });
  });

  it("fails when the target can not be made stable", async () => {
    const { fixture, env, target } = await backupFixture();
    target.failNth("flush", 1, "EIO");
    const job = await fixture.start();
    await env.clock.advance(1);
    await expect(job.completed()).rejects.toMatchObject({ code: "EIO" });
  });

  it.each([0, 1, CLUSTER - 1, CLUSTER, 3 * CLUSTER + 1000])(
    "of %i bytes ends with all of them and a full bar",
    async (size) => {
      const { fixture, env, target, before } = await backupFixture(size);
      const job = await fixture.start({ "auto-dismiss": false });
      await env.clock.advance(1);
      await job.completed();
      expect(target.bytes).toEqual(before);
      const { current, total } = job.job.progress.snapshot();
      expect(current).toBe(total);
    },
  );

  it("tells its life in the canonical order", async () => {
    const { fixture, env } = await backupFixture();
    const job = await fixture.start();
    await env.clock.advance(1);
    await job.completed();
    expect(fixture.events).toEqual([
      "S:created",
      "S:running",
      "S:paused",
      "S:running",
      "S:waiting",
      "S:pending",
      "completed",
      "S:concluded",
      "S:null",
    ]);
  });

  it("leaves nothing behind", async () => {
    const { fixture, env } = await backupFixture();
    const before = fixture.remains();
    const job = await fixture.start({ "filter-node-name": "filter" });
    expect(fixture.graph.findNode("filter")).toBeDefined();
    await env.clock.advance(1);
    await job.completed();
    expect(fixture.remains()).toEqual(before);
    expect(env.clock.sleeping).toBe(0);
  });

  it("keeps the filter until it is finalized, not until it is dismissed", async () => {
    const { fixture, env } = await backupFixture();
    const job = await fixture.start({
      "auto-finalize": false,
      "auto-dismiss": false,
      "filter-node-name": "filter",
    });
    await env.clock.advance(1);
    expect(job.job.status).toBe("pending");
    expect(fixture.graph.findNode("filter")).toBeDefined();
    job.job.finalize();
    await env.clock.advance(1);
    expect(job.job.status).toBe("concluded");
    expect(fixture.graph.findNode("filter")).toBeUndefined();
    job.job.dismiss();
  });

  it.each(["unmap", "ignore"] as const)(
    "lets discards pass as the disk does: %s",
    async (discard) => {
      const { fixture, env } = await backupFixture();
      const disk = { driver: "memory", "node-name": "m", size: 4 * CLUSTER, discard } as const;
      await fixture.graph.open(disk);
      const guest = await fixture.guest("m");
      const job = await fixture.start({ device: "m", sync: "none" });
      await guest.write(0, ones(CLUSTER));
      await guest.discard(0, CLUSTER);
      const bytes = new Uint8Array(CLUSTER);
      await guest.read(0, bytes);
      expect(bytes).toEqual(discard === "unmap" ? new Uint8Array(CLUSTER) : ones(CLUSTER));
      await env.clock.advance(1);
      await job.job.cancelAndWait();
    },
  );

  it("copies what a guest overwrites only once", async () => {
    const { fixture, env, source } = await backupFixture();
    const guest = await fixture.guest("disk");
    source.hold("pread");
    const job = await fixture.start({ "x-perf": { "max-chunk": CLUSTER, "max-workers": 1 } });
    await env.clock.advance(1);
    const write = guest.write(0, ones(512));
    await env.clock.advance(1);
    source.releaseAll();
    await env.clock.advance(1);
    await Promise.all([write, job.completed()]);
    expect(
      source.log.filter(({ operation, offset }) => operation === "pread" && offset === 0).length,
    ).toBe(1);
  });

  it("tells how long guest writes were delayed", async () => {
    const { fixture, env, target } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ sync: "none" });
    target.hold("pwrite");
    const slow = guest.write(0, ones(512));
    await env.clock.advance(40);
    target.releaseAll();
    await slow;
    await guest.write(0, ones(512));
    expect(job.guestWriteDelay()).toMatchObject({ count: 2, sumMs: 40, maxMs: 40 });
    await job.job.cancelAndWait();
  });
});

describe("sync modes", () => {
  it("top copies what the top layer holds", async () => {
    const { fixture, env } = await backupFixture();
    await fixture.graph.open({ driver: "memory", "node-name": "base", size: 4 * CLUSTER });
    await fixture.graph.open({
      driver: "memory",
      "node-name": "overlay",
      backing: "base",
      "cluster-size": CLUSTER,
    } as never);
    await fixture.graph.open({
      driver: "memory",
      "node-name": "copy",
      size: 4 * CLUSTER,
      "cluster-size": CLUSTER,
    } as never);
    const base = await fixture.graph.createBackend({
      node: fixture.node("overlay"),
      perm: ["consistent-read", "write"],
    });
    await base.write(CLUSTER + 10, ones(10));
    const job = await fixture.start({ device: "overlay", target: "copy", sync: "top" });
    await env.clock.advance(5);
    await job.completed();
    const reader = await fixture.graph.createBackend({
      node: fixture.node("copy"),
      perm: ["consistent-read"],
    });
    const status = await reader.blockStatus(0, 4 * CLUSTER);
    expect(status.length).toBe(CLUSTER);
    const bytes = new Uint8Array(10);
    await reader.read(CLUSTER + 10, bytes);
    expect(bytes).toEqual(ones(10));
  });

  it("incremental copies the marked clusters and marks the new writes", async () => {
    const { fixture, env, target, source } = await backupFixture();
    const guest = await fixture.guest("disk");
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: 4096 });
    await guest.write(CLUSTER + 5000, ones(10));
    const job = await fixture.start({ sync: "incremental", bitmap: "bm", "auto-finalize": false });
    const frozen = source.bytes.slice(CLUSTER, 2 * CLUSTER);
    await guest.write(3 * CLUSTER, ones(10));
    await env.clock.advance(1);
    job.job.finalize();
    await job.completed();
    const expected = new Uint8Array(4 * CLUSTER);
    expected.set(frozen, CLUSTER);
    expect(target.bytes).toEqual(expected);
    expect(fixture.bitmap("bm").map.nextDirtyArea(0)).toEqual({
      offset: 3 * CLUSTER,
      length: 4096,
    });
    expect(fixture.bitmap("bm").count).toBe(4096);
  });

  it("none saves what guests overwrite, once, until it is cancelled", async () => {
    const { fixture, target, before } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ sync: "none" });
    await guest.write(CLUSTER, ones(1));
    await guest.write(CLUSTER, ones(2));
    const expected = new Uint8Array(4 * CLUSTER);
    expected.set(before.subarray(CLUSTER, 2 * CLUSTER), CLUSTER);
    expect(target.bytes).toEqual(expected);
    await job.job.cancelAndWait();
    await expect(job.completed()).rejects.toMatchObject({ code: "ECANCELED" });
    expect(fixture.events.slice(-4)).toEqual(["S:aborting", "cancelled", "S:concluded", "S:null"]);
  });

  it("none begins a new point in time at a checkpoint, the others have none", async () => {
    const { fixture, env, target } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ sync: "none" });
    await guest.write(0, ones(CLUSTER));
    await job.checkpoint();
    await guest.write(0, new Uint8Array(CLUSTER).fill(1));
    expect(target.bytes.subarray(0, CLUSTER)).toEqual(ones(CLUSTER));
    await job.job.cancelAndWait();
    const full = await fixture.start({ "auto-finalize": false });
    await expect(full.checkpoint()).rejects.toMatchObject({
      code: "ENOTSUP",
      context: { sync: "full" },
    });
    await env.clock.advance(1);
    full.job.finalize();
    await full.completed();
  });
});

describe("several disks", () => {
  const two = async (grouped: boolean, targetFails: boolean) => {
    const made = await backupFixture();
    const { fixture, env, target } = made;
    const second = await fixture.disk("disk2", 2 * CLUSTER, new Uint8Array(2 * CLUSTER).fill(5));
    await fixture.disk("target2", 2 * CLUSTER);
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
    await fixture.bitmaps.add(fixture.node("disk2"), { name: "bm", granularity: CLUSTER });
    await (await fixture.guest("disk")).write(0, ones(1));
    await (await fixture.guest("disk2")).write(CLUSTER, ones(1));
    if (targetFails) target.failNth("pwrite", 1, "EIO");
    const list = [
      { "job-id": "a", device: "disk", target: "target", sync: "incremental", bitmap: "bm" },
      { "job-id": "b", device: "disk2", target: "target2", sync: "incremental", bitmap: "bm" },
    ] as const;
    const jobs = await fixture.backups.startAll(list, { grouped });
    await env.clock.advance(5);
    const errors = await Promise.all(jobs.map((job) => job.job.completed()));
    const counts = ["disk", "disk2"].map((name) => fixture.bitmaps.lookup(name, "bm").count);
    return { ...made, second, codes: errors.map((error) => error?.code), counts };
  };

  it("succeed together", async () => {
    expect(await two(true, false)).toMatchObject({ codes: [undefined, undefined], counts: [0, 0] });
  });

  it("fail together when grouped, and both bitmaps keep their bits", async () => {
    expect(await two(true, true)).toMatchObject({
      codes: ["EIO", "ECANCELED"],
      counts: [CLUSTER, CLUSTER],
    });
  });

  it("keep all bits when one that is pending is cancelled", async () => {
    const { fixture, env } = await backupFixture();
    await fixture.disk("disk2", 2 * CLUSTER, ones(2 * CLUSTER));
    await fixture.disk("target2", 2 * CLUSTER);
    for (const name of ["disk", "disk2"]) {
      await fixture.bitmaps.add(fixture.node(name), { name: "bm", granularity: CLUSTER });
      await (await fixture.guest(name)).write(0, ones(1));
    }
    const options = { sync: "incremental", bitmap: "bm", "auto-finalize": false } as const;
    const jobs = await fixture.backups.startAll(
      [
        { "job-id": "a", device: "disk", target: "target", ...options },
        { "job-id": "b", device: "disk2", target: "target2", ...options },
      ],
      { grouped: true },
    );
    await env.clock.advance(5);
    expect(jobs.map(({ job }) => job.status)).toEqual(["pending", "pending"]);
    jobs[1]?.job.cancel({ force: true });
    await env.clock.advance(5);
    const errors = await Promise.all(jobs.map(({ job }) => job.completed()));
    expect(errors.map((error) => error?.code)).toEqual(["ECANCELED", "ECANCELED"]);
    for (const name of ["disk", "disk2"]) {
      expect(fixture.bitmaps.lookup(name, "bm")).toMatchObject({ count: CLUSTER, busy: false });
    }
    expect(fixture.graph.nodes().length).toBe(4);
  });

  it("end each on its own otherwise", async () => {
    expect(await two(false, true)).toMatchObject({
      codes: ["EIO", undefined],
      counts: [CLUSTER, 0],
    });
  });

  it("share one instant, with the bitmap actions of the same change", async () => {
    const { fixture, env, target, before } = await backupFixture();
    await fixture.disk("disk2", CLUSTER, ones(CLUSTER));
    const copy = await fixture.disk("target2", CLUSTER);
    const guest = await fixture.guest("disk");
    const step = fixture.bitmaps.addStep(fixture.node("disk"), {
      name: "since",
      granularity: CLUSTER,
    });
    const jobs = await fixture.backups.startAll(
      [
        { "job-id": "a", device: "disk", target: "target", sync: "full" },
        { "job-id": "b", device: "disk2", target: "target2", sync: "full" },
      ],
      { steps: [step] },
    );
    await guest.write(0, ones(1));
    await env.clock.advance(5);
    await Promise.all(jobs.map((job) => job.completed()));
    expect(target.bytes).toEqual(before);
    expect(copy.bytes).toEqual(ones(CLUSTER));
    expect(fixture.bitmap("since").count).toBe(CLUSTER);
  });

  it("may be the same disk, to several targets, in one instant or one after the other", async () => {
    const { fixture, env, target, before } = await backupFixture();
    const copy = await fixture.disk("target2", 4 * CLUSTER);
    const late = await fixture.disk("target3", 4 * CLUSTER);
    const guest = await fixture.guest("disk");
    const slow = { sync: "full", speed: 1, "x-perf": { "max-chunk": CLUSTER } } as const;
    const jobs = await fixture.backups.startAll([
      { "job-id": "a", device: "disk", target: "target", ...slow },
      { "job-id": "b", device: "disk", target: "target2", ...slow },
    ]);
    await guest.write(CLUSTER, ones(CLUSTER));
    const starting = fixture.start({ "job-id": "c", target: "target3", ...slow });
    await env.clock.advance(1);
    jobs.push(await starting);
    const later = before.slice();
    later.set(ones(CLUSTER), CLUSTER);
    await guest.write(0, ones(CLUSTER));
    for (const { job } of jobs) job.setSpeed(0);
    await env.clock.advance(5);
    await Promise.all(jobs.map((job) => job.completed()));
    expect(target.bytes).toEqual(before);
    expect(copy.bytes).toEqual(before);
    expect(late.bytes).toEqual(later);
    expect(fixture.graph.nodes().length).toBe(4);
  });

  it("are not started at all when one is refused", async () => {
    const { fixture } = await backupFixture();
    await fixture.disk("disk2", CLUSTER);
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
    const before = fixture.remains();
    await expect(
      fixture.backups.startAll([
        { "job-id": "a", device: "disk", target: "target", sync: "incremental", bitmap: "bm" },
        { "job-id": "b", device: "disk2", target: "nowhere", sync: "full" },
      ]),
    ).rejects.toMatchObject({ code: "ENOENT" });
    expect(fixture.remains()).toEqual(before);
  });
});
