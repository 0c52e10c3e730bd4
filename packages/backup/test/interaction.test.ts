import type { BackupOptions } from "@blocklayer/backup";
import { RequestFlag } from "@blocklayer/driver";
import { patternBytes } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER, dirtyClusters } from "./fixture.ts";

const ones = (length: number): Uint8Array => new Uint8Array(length).fill(0xee);
const single = { "x-perf": { "max-workers": 1, "max-chunk": CLUSTER } } as const;

describe("a snapshot that breaks before the job works", () => {
  it.each(["full", "none"] as const)("ends a backup of sync %s, paused or not", async (sync) => {
    const { fixture, env, target } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ sync, "on-cbw-error": "break-snapshot" });
    // The job has not come to its work yet, and does not while its user pauses it.
    job.job.pause();
    target.failNth("pwrite", 1, "ENOSPC");
    await guest.write(3 * CLUSTER, ones(10));
    await env.clock.advance(5);
    job.job.resume();
    await env.clock.advance(5);
    expect((await job.job.completed())?.code).toBe("ENOSPC");
  });
});

describe("a snapshot that breaks while the job works", () => {
  it.each(["full", "none"] as const)("ends a backup of sync %s at once", async (sync) => {
    const { fixture, env, target } = await backupFixture();
    const guest = await fixture.guest("disk");
    const options = { sync, speed: 1, "on-cbw-error": "break-snapshot", ...single } as const;
    const job = await fixture.start(options);
    await env.clock.advance(1);
    target.failNth("pwrite", 1, "EIO");
    await guest.write(3 * CLUSTER, ones(10));
    await env.clock.advance(1);
    expect(fixture.jobs.list()).toEqual([]);
    expect((await job.job.completed())?.code).toBe("EIO");
  });
});

describe("a target that can not be made stable", () => {
  it.each([
    ["bitmap", "on-success", [1, 3]],
    ["bitmap", "always", [1, 3]],
    ["full", "always", [0, 1, 2, 3]],
    ["top", "always", [0, 1, 2, 3]],
  ] as const)(
    "holds nothing for certain: sync %s and mode %s leave clusters %j marked",
    async (sync, mode, clusters) => {
      const { fixture, env, target } = await backupFixture();
      await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
      const guest = await fixture.guest("disk");
      await guest.write(CLUSTER, ones(1));
      await guest.write(3 * CLUSTER, ones(1));
      target.failNth("flush", 1, "EIO");
      const job = await fixture.start({ sync, bitmap: "bm", "bitmap-mode": mode });
      await env.clock.advance(5);
      expect((await job.job.completed())?.code).toBe("EIO");
      expect(dirtyClusters(fixture.bitmap("bm"))).toEqual(clusters);
    },
  );
});

describe("a drained section that begins when all is copied", () => {
  it("sees no flush, whenever it begins, and again after it has ended", async () => {
    let isSeenBefore = false;
    let isSeenAfter = false;
    for (let turns = 0; turns < 30; turns += 1) {
      const { fixture, env, target } = await backupFixture(CLUSTER);
      const node = fixture.node("disk");
      const flushes = (): number =>
        target.log.filter(({ operation }) => operation === "flush").length;
      target.hold("pwrite");
      const { job } = await fixture.start();
      await env.clock.advance(1);
      target.releaseAll();
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      for (let section = 0; section < 2; section += 1) {
        const hold = await node.drain();
        const before = flushes();
        await env.clock.advance(5);
        expect(flushes(), `${turns} turns`).toBe(before);
        if (before === 0) isSeenBefore = true;
        else isSeenAfter = true;
        hold.end();
      }
      await env.clock.advance(5);
      expect([flushes(), await job.completed()]).toEqual([1, undefined]);
    }
    expect([isSeenBefore, isSeenAfter]).toEqual([true, true]);
  });
});

describe("one target, or one bitmap, of two backups", () => {
  const full = { device: "disk", target: "target", sync: "full" } as const;

  it.each([
    ["target", [full, { ...full, device: "disk2" }]],
    [
      "bitmap",
      [
        { ...full, sync: "incremental", bitmap: "bm" },
        { ...full, sync: "incremental", bitmap: "bm", target: "target2" },
      ],
    ],
  ] as [string, BackupOptions[]][])("is refused: %s", async (_title, list) => {
    const { fixture } = await backupFixture();
    await fixture.disk("disk2", 4 * CLUSTER);
    await fixture.disk("target2", 4 * CLUSTER);
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
    const before = fixture.remains();
    const named = list.map((options, index) => ({ ...options, "job-id": `j${index}` }));
    await expect(fixture.backups.startAll(named)).rejects.toMatchObject({ code: "EBUSY" });
    expect(fixture.remains()).toEqual(before);
  });

  it("is refused also when both are started at the same time", async () => {
    const { fixture, env, target, before } = await backupFixture();
    await fixture.disk("disk2", 4 * CLUSTER);
    const first = fixture.start();
    const second = fixture.start({ "job-id": "second", device: "disk2" });
    await expect(second).rejects.toMatchObject({ code: "EBUSY" });
    await env.clock.advance(5);
    await (await first).completed();
    expect(target.bytes).toEqual(before);
  });
});

describe("a length that is no multiple of the cluster", () => {
  const SIZE = 3 * CLUSTER + 1000;

  it.each([
    ["full", 0, undefined],
    ["top", 0, undefined],
    ["bitmap", 3 * CLUSTER + 900, "always"],
    ["incremental", 3 * CLUSTER + 900, "on-success"],
    ["none", 3 * CLUSTER + 900, undefined],
  ] as const)("is copied to its last byte by sync %s", async (sync, at, mode) => {
    const { fixture, env, target, before } = await backupFixture(SIZE);
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: 4096 });
    const guest = await fixture.guest("disk");
    const byte = before.slice(at, at + 1);
    await guest.write(at, byte);
    const job = await fixture.start({
      sync,
      ...(mode === undefined ? {} : { bitmap: "bm", "bitmap-mode": mode }),
    });
    await guest.write(SIZE - 1, ones(1));
    await env.clock.advance(5);
    if (sync === "none") await job.job.cancelAndWait();
    else await job.completed();
    const from = at === 0 ? 0 : 3 * CLUSTER;
    expect(Buffer.from(target.bytes.subarray(from)).equals(before.subarray(from))).toBe(true);
    const { current, total } = job.job.progress.snapshot();
    if (sync !== "none") expect(current).toBe(total);
  });
});

describe("what a target can do", () => {
  it("compress writes clusters compressed, zeroes and all", async () => {
    const { fixture, env, target } = await backupFixture(2 * CLUSTER + 512);
    const { flags } = target;
    Object.defineProperty(target, "flags", {
      value: { ...flags, write: flags.write | RequestFlag.compressed },
    });
    const job = await fixture.start({ compress: true });
    await env.clock.advance(5);
    await job.completed();
    const writes = target.log.filter(({ operation }) => operation === "pwrite");
    expect(writes.map(({ offset, length, flags: bits }) => [offset, length, bits])).toEqual([
      [0, CLUSTER, RequestFlag.compressed],
      [CLUSTER, CLUSTER, RequestFlag.compressed],
      [2 * CLUSTER, 512, RequestFlag.compressed],
    ]);
  });

  it.each([
    ["report", "ENOSPC"],
    ["ignore", undefined],
    ["enospc", undefined],
    ["auto", undefined],
    ["stop", undefined],
  ] as const)("a full one ends policy %s with %s", async (policy, outcome) => {
    const { fixture, env, target, before } = await backupFixture();
    target.failNth("pwrite", 3, "ENOSPC");
    const job = await fixture.start({ "on-target-error": policy, ...single });
    await env.clock.advance(5);
    if (job.job.userPaused) {
      expect(job.blockJob.query()).toMatchObject({ ioStatus: "nospace", paused: true });
      job.job.resume();
      await env.clock.advance(5);
    }
    expect((await job.job.completed())?.code).toBe(outcome);
    if (outcome === undefined) expect(target.bytes).toEqual(before);
    expect(fixture.graph.nodes().length).toBe(2);
  });
});

describe("discard-source", () => {
  it("frees the source, clipped to its length, when it is copied and not before", async () => {
    const { fixture, env } = await backupFixture();
    const size = 2 * CLUSTER + 512;
    const before = patternBytes(size, 3);
    const source = await fixture.disk("scratch", size, before, { discard: "unmap" });
    const target = await fixture.disk("copy", size);
    const job = await fixture.start({
      device: "scratch",
      target: "copy",
      "discard-source": true,
      ...single,
    });
    await env.clock.advance(5);
    await job.completed();
    expect(Buffer.from(target.bytes).equals(before)).toBe(true);
    const discards = source.log.filter(({ operation }) => operation === "pdiscard");
    expect(discards.map(({ offset, length }) => [offset, length])).toEqual([
      [0, CLUSTER],
      [CLUSTER, CLUSTER],
      [2 * CLUSTER, 512],
    ]);
  });

  it("of a source that is read-only is refused", async () => {
    const { fixture } = await backupFixture();
    await fixture.disk("scratch", 4 * CLUSTER, undefined, { "read-only": true });
    const before = fixture.remains();
    const started = fixture.start({ device: "scratch", "discard-source": true });
    await expect(started).rejects.toMatchObject({ code: "EPERM" });
    expect(fixture.remains()).toEqual(before);
  });
});

describe("others while a backup runs", () => {
  it("do not resize the source, nor the target, and may write to the target", async () => {
    const { fixture } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ sync: "none" });
    const perm = ["consistent-read", "resize"] as const;
    for (const name of ["disk", "target"]) {
      const taken = fixture.graph.createBackend({ node: fixture.node(name), perm });
      await expect(taken).rejects.toMatchObject({ code: "EPERM" });
    }
    const writer = await fixture.guest("target");
    await writer.write(0, ones(1));
    await guest.write(CLUSTER, ones(1));
    await job.job.cancelAndWait();
  });

  it("start no other job on the disk of the guest", async () => {
    const { fixture } = await backupFixture();
    await fixture.graph.createBackend({
      node: fixture.node("disk"),
      perm: ["consistent-read", "write"],
      name: "drive0",
    });
    await fixture.disk("other", 4 * CLUSTER);
    const job = await fixture.start({ sync: "none" });
    for (const operation of ["mirror-source", "stream", "commit-source"] as const) {
      expect(() => job.filterNode.checkOperation(operation)).toThrow(/in use by block job: backup/);
    }
    await expect(
      fixture.start({ "job-id": "two", device: "drive0", target: "other" }),
    ).rejects.toMatchObject({ code: "EBUSY" });
    await job.job.cancelAndWait();
  });

  it("may close the guest's disk: the backup goes on", async () => {
    const { fixture, env, target, before } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ speed: CLUSTER, ...single });
    await guest.write(3 * CLUSTER, ones(1));
    await guest.close();
    job.job.setSpeed(0);
    await env.clock.advance(5);
    await job.completed();
    expect(target.bytes).toEqual(before);
    expect(fixture.graph.nodes().length).toBe(2);
  });

  it("do not close the graph under it, and do when it has ended", async () => {
    const { fixture, env } = await backupFixture();
    const job = await fixture.start({ sync: "none" });
    await expect(fixture.graph.close()).rejects.toMatchObject({ code: "EBUSY" });
    await expect(fixture.graph.remove("disk")).rejects.toMatchObject({ code: "EBUSY" });
    await expect(fixture.graph.remove("target")).rejects.toMatchObject({ code: "EBUSY" });
    await job.job.cancelAndWait();
    await env.clock.advance(1);
    await fixture.graph.close();
  });

  it("see len, offset and the type of the job, which ends with offset at len", async () => {
    const { fixture, env } = await backupFixture(3 * CLUSTER + 1000);
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ speed: 1, "auto-finalize": false, ...single });
    expect(job.blockJob.query()).toMatchObject({
      device: "job",
      type: "backup",
      len: 4 * CLUSTER,
      offset: 0,
      speed: 1,
      ioStatus: "ok",
    });
    await guest.write(3 * CLUSTER, ones(1));
    expect(job.blockJob.query()).toMatchObject({ len: 4 * CLUSTER, offset: 2 * CLUSTER });
    job.job.setSpeed(0);
    await env.clock.advance(5);
    expect(job.blockJob.query()).toMatchObject({ len: 4 * CLUSTER, offset: 4 * CLUSTER });
    expect(job.job.status).toBe("pending");
    await job.job.finalize();
    await job.completed();
  });
});

describe("a source inside the chain of its target", () => {
  it.each(["none", "full"] as const)(
    "(fleecing, sync %s) is copied by serialising writes, and readers of the target see the moment",
    async (sync) => {
      const { fixture, env, before } = await backupFixture();
      const overlay = { driver: "memory", "node-name": "fleece", backing: "disk" } as never;
      await fixture.graph.open(overlay);
      const guest = await fixture.guest("disk");
      const job = await fixture.start({ target: "fleece", sync, "auto-finalize": false });
      await guest.write(CLUSTER + 5, ones(CLUSTER));
      const reader = await fixture.graph.createBackend({
        node: fixture.node("fleece"),
        perm: ["consistent-read"],
      });
      const bytes = new Uint8Array(4 * CLUSTER);
      await reader.read(0, bytes);
      expect(Buffer.from(bytes).equals(before)).toBe(true);
      await env.clock.advance(5);
      await job.job.cancelAndWait();
    },
  );
});

describe("a cancelled backup", () => {
  it("does not wait for a target, below filters, that waits for its peer", async () => {
    const { fixture, env, target } = await backupFixture();
    await fixture.graph.open({
      driver: "x-blocklayer-pass-through",
      "node-name": "filtered",
      file: "target",
    });
    target.hold("pwrite");
    Object.defineProperty(target, "cancelInFlight", {
      value: () => {
        for (const { index } of target.held) target.fail(index, "ECANCELED");
      },
    });
    const job = await fixture.start({ target: "filtered", ...single });
    await env.clock.advance(1);
    expect(target.held.length).toBe(1);
    const ending = job.job.cancelAndWait();
    await env.clock.advance(1);
    expect((await ending)?.code).toBe("ECANCELED");
    expect(fixture.graph.nodes().length).toBe(3);
  });

  it("that has not come to its work leaves all its bits", async () => {
    const { fixture, env, target } = await backupFixture();
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
    const guest = await fixture.guest("disk");
    await guest.write(CLUSTER, ones(1));
    const options = { sync: "bitmap", bitmap: "bm", "bitmap-mode": "always" } as const;
    const job = await fixture.start(options);
    job.job.pause();
    await env.clock.advance(1);
    const writing = guest.write(3 * CLUSTER, ones(1));
    job.job.cancel({ force: true });
    await writing;
    await env.clock.advance(1);
    expect((await job.job.completed())?.code).toBe("ECANCELED");
    expect(dirtyClusters(fixture.bitmap("bm"))).toEqual([1, 3]);
    expect(target.log.filter(({ operation }) => operation === "pwrite")).toEqual([]);
    expect(fixture.graph.nodes().length).toBe(2);
  });
});

describe("a finished backup", () => {
  it("has no checkpoint any more", async () => {
    const { fixture } = await backupFixture();
    const job = await fixture.start({ sync: "none" });
    await job.job.cancelAndWait();
    await expect(job.checkpoint()).rejects.toMatchObject({ code: "ENOMEDIUM" });
    expect(fixture.node("disk").quiesceCount).toBe(0);
  });

  it("that was grouped waits for its sibling's end, and is finalized with it", async () => {
    const { fixture, env } = await backupFixture();
    await fixture.disk("disk2", 2 * CLUSTER, patternBytes(2 * CLUSTER, 2));
    await fixture.disk("target2", 2 * CLUSTER);
    const [first, second] = await fixture.backups.startAll(
      [
        { "job-id": "a", device: "disk", target: "target", sync: "full", "auto-finalize": false },
        { "job-id": "b", device: "disk2", target: "target2", sync: "full", speed: 1, ...single },
      ],
      { grouped: true },
    );
    await env.clock.advance(5);
    expect([first?.job.status, second?.job.status]).toEqual(["waiting", "running"]);
    second?.job.setSpeed(0);
    await env.clock.advance(5);
    expect([first?.job.status, second?.job.status]).toEqual(["pending", "pending"]);
    await second?.job.finalize();
    await Promise.all([first?.completed(), second?.completed()]);
    await env.clock.advance(1);
    expect(fixture.graph.nodes().length).toBe(4);
  });
});

describe("somebody who puts a node above the filter while the job ends", () => {
  it("keeps the job from nothing, whenever that is", async () => {
    const outcomes = new Set<string>();
    for (let turns = 0; turns < 120; turns += 1) {
      const { fixture, env } = await backupFixture(CLUSTER);
      const job = await fixture.start({ "filter-node-name": "cbw", "auto-finalize": false });
      await env.clock.advance(5);
      const ended = job.job.finalize();
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      const opened = fixture.graph
        .open({ driver: "x-blocklayer-pass-through", "node-name": "above", file: "cbw" })
        .then(
          () => "opened",
          () => "refused",
        );
      await env.clock.advance(5);
      await ended;
      const outcome = await opened;
      outcomes.add(outcome);
      expect(fixture.jobs.list()).toEqual([]);
      if (outcome === "opened") await fixture.graph.remove("above");
      expect(fixture.graph.findNode("cbw")).toBeUndefined();
      fixture.remains();
    }
    expect(outcomes).toEqual(new Set(["opened", "refused"]));
  });
});

describe("a backup that is cancelled in a drained section", () => {
  it.each(["full", "top", "none"] as const)("of sync %s sends nothing there", async (sync) => {
    const { fixture, env, source, target } = await backupFixture();
    const hold = await fixture.node("disk").drain();
    const job = await fixture.start({ sync });
    const requests = (): number => source.log.length + target.log.length;
    const before = requests();
    job.job.cancel({ force: true });
    await env.clock.advance(5);
    expect(requests()).toBe(before);
    hold.end();
    expect((await job.job.completed())?.code).toBe("ECANCELED");
  });
});
