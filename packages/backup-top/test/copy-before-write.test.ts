import { copyBeforeWrite, isCopyBeforeWrite, isSnapshotSource } from "@blocklayer/backup-top";
import { ALL_PERMISSIONS, completed, Permissions, RequestFlag } from "@blocklayer/driver";
import { ReferenceDisk, ScriptedDriver, TestHost } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { bytes, CLUSTER, type Fixture, fixture, isSame, snapshotOf } from "./fixture.ts";

type Change = (made: Fixture, offset: number, length: number, flags?: number) => Promise<void>;

const write: Change = ({ filter }, offset, length, flags = 0) =>
  filter.pwrite(offset, bytes(length, 9), flags === 0 ? undefined : { flags });
const zeroes: Change = ({ filter }, offset, length, flags = 0) =>
  filter.pwriteZeroes(offset, length, { flags });
const discard: Change = ({ filter }, offset, length, flags = 0) =>
  filter.pdiscard(offset, length, { flags });
const writev: Change = ({ filter }, offset, length, flags = 0) =>
  filter.pwritev(offset, [bytes(1, 8), bytes(length - 1, 9)], { flags });
const copyTo: Change = ({ filter }, offset, length) =>
  filter
    .copyRangeTo(new ReferenceDisk({ size: length }), 0, offset, length)
    .catch((error: unknown) => expect(error).toMatchObject({ code: "ENOTSUP" }));

const savedClusters = ({ target }: Fixture): number[] =>
  target.log
    .filter(({ operation }) => operation === "pwrite")
    .map(({ offset }) => offset / CLUSTER);

describe("what is saved before a request goes on to the source", () => {
  it.each([
    ["a write of one byte saves its cluster", write, CLUSTER + 5, 1, 0, [1]],
    ["a write across clusters saves them all", write, CLUSTER - 1, 2, 0, [0]],
    ["a vectored write saves", writev, 2 * CLUSTER, 10, 0, [2]],
    ["write-zeroes saves", zeroes, 10, 10, RequestFlag.mayUnmap, [0]],
    ["a discard saves", discard, 3 * CLUSTER, CLUSTER, 0, [3]],
    ["an offloaded copy to here saves", copyTo, CLUSTER, CLUSTER, 0, [1]],
    ["the last bytes save the clipped cluster", write, 4 * CLUSTER + 50, 50, 0, [4]],
    ["write-unchanged saves nothing", write, 0, 10, RequestFlag.writeUnchanged, []],
    ["write-zeroes unchanged saves nothing", zeroes, 0, 10, RequestFlag.writeUnchanged, []],
    ["a vectored write-unchanged saves nothing", writev, 0, 9, RequestFlag.writeUnchanged, []],
    ["a discard is never exempt", discard, 0, 10, RequestFlag.writeUnchanged, [0]],
  ] as const)("%s", async (_title, change, offset, length, flags, saved) => {
    const made = await fixture({ size: 4 * CLUSTER + 100 });
    await change(made, offset, length, flags);
    expect(savedClusters(made)).toEqual(saved);
    if (saved.length > 0) expect(isSame(await snapshotOf(made.filter), made.before)).toBe(true);
    await made.host.close();
  });

  it("a read saves nothing and is the source's own", async () => {
    const made = await fixture();
    const buffer = new Uint8Array(100);
    expect(made.filter.pread(5, buffer)).toBe(completed);
    expect(isSame(buffer, made.before.subarray(5, 105))).toBe(true);
    expect(made.target.log).toEqual([]);
  });

  it("the old data is in the target before the write reaches the source", async () => {
    const made = await fixture();
    made.target.hold("pwrite");
    const work = write(made, 0, 10);
    await made.target.waitFor();
    expect(made.source.log.some(({ operation }) => operation === "pwrite")).toBe(false);
    expect(made.host.inFlight).toBe(1);
    made.target.releaseAll();
    await work;
    expect([made.source.bytes[0], made.host.inFlight]).toEqual([9, 0]);
    expect(isSame(made.target.bytes.subarray(0, CLUSTER), made.before.subarray(0, CLUSTER))).toBe(
      true,
    );
  });

  it("a write that spans copied and other clusters copies the others", async () => {
    const made = await fixture();
    await write(made, CLUSTER, 1);
    await write(made, 0, 3 * CLUSTER);
    const lengths = made.target.log.map(({ offset, length }) => [offset / CLUSTER, length]);
    expect(lengths).toEqual([
      [1, CLUSTER],
      [0, CLUSTER],
      [2, CLUSTER],
    ]);
  });

  it("two writes into one cluster copy it once, and the second waits", async () => {
    const made = await fixture();
    made.target.hold("pwrite");
    const first = write(made, 0, 1);
    const second = write(made, 100, 1);
    await made.target.waitFor();
    await settleTurn();
    expect([savedClusters(made), made.host.inFlight]).toEqual([[0], 2]);
    made.target.releaseAll();
    await Promise.all([first, second]);
    expect(savedClusters(made)).toEqual([0]);
  });

  it("a write whose clusters are clean is the source's own promise", async () => {
    const made = await fixture();
    await write(made, 0, 1);
    expect(write(made, 5, 10)).toBe(completed);
    expect(writev(made, 5, 10)).toBe(completed);
    await made.filter.pwriteZeroes(0, 4);
    expect(made.filter.writeDelay.snapshot()).toMatchObject({ count: 4, sumMs: 0 });
  });

  it("what was not there at the point in time is not saved", async () => {
    const made = await fixture({ size: CLUSTER });
    await made.source.truncate(3 * CLUSTER);
    await write(made, CLUSTER - 1, 10);
    await write(made, 2 * CLUSTER, 10);
    expect(savedClusters(made)).toEqual([0]);
    await expect(made.filter.snapshotRead(CLUSTER - 1, new Uint8Array(2))).rejects.toMatchObject({
      code: "EACCES",
    });
  });
});

describe("a copy that fails", () => {
  const rows = [
    ["break-guest-write", "an error", {}],
    ["break-guest-write", "a time-out", { "cbw-timeout": 2 }],
    ["break-snapshot", "an error", {}],
    ["break-snapshot", "a time-out", { "cbw-timeout": 2 }],
  ] as const;
  it.each(rows)("with %s, by %s", async (policy, cause, more) => {
    const made = await fixture({ options: { "on-cbw-error": policy, ...more } });
    const { filter, source, target, env, host, before } = made;
    const isTimeout = cause === "a time-out";
    if (isTimeout) target.hold("pwrite");
    else target.failNth("pwrite", 1, "ENOSPC");
    const broken: BlockError[] = [];
    filter.onSnapshotBroken = (error) => broken.push(error);
    const work = write(made, 0, 10);
    const outcome = work.then(
      () => "written",
      (error: BlockError) => error.code,
    );
    await env.clock.advance(2000);
    const code = isTimeout ? "ETIMEDOUT" : "ENOSPC";
    const isBorneByGuest = policy === "break-guest-write";
    expect(await outcome).toBe(isBorneByGuest ? code : "written");
    expect(source.bytes[0]).toBe(isBorneByGuest ? before[0] : 9);
    expect(host.inFlight).toBe(isTimeout ? 1 : 0);
    target.releaseAll();
    await env.clock.advance(0);
    expect([host.inFlight, env.clock.sleeping]).toEqual([0, 0]);
    if (isBorneByGuest) {
      expect([filter.snapshotError, broken]).toEqual([undefined, []]);
      expect(isSame(await snapshotOf(filter), before)).toBe(true);
      await write(made, 0, 10);
      expect(source.bytes[0]).toBe(9);
      expect(isSame(await snapshotOf(filter), before)).toBe(true);
      return;
    }
    expect(filter.snapshotError).toMatchObject({ code });
    expect(broken).toEqual([filter.snapshotError]);
    await expect(snapshotOf(filter)).rejects.toMatchObject({
      code: "EACCES",
      message: "the snapshot is broken: a copy before a write failed",
      context: { node: "cbw", operation: "snapshotRead", offset: 0 },
      cause: { code },
    });
    await expect(filter.snapshotStatus(0, 1)).rejects.toMatchObject({ code: "EACCES" });
    const requests = target.log.length;
    expect(write(made, 2 * CLUSTER, 10)).toBe(completed);
    expect(target.log.length).toBe(requests);
  });

  it("of a write that was given up does not break the snapshot", async () => {
    const made = await fixture({ options: { "on-cbw-error": "break-snapshot" } });
    made.target.hold("pwrite");
    const controller = new AbortController();
    const work = made.filter.pwrite(0, bytes(1, 9), { signal: controller.signal });
    const { index } = await made.target.waitFor();
    controller.abort(new BlockError("ECANCELED", "given up"));
    await expect(work).rejects.toMatchObject({ code: "ECANCELED" });
    expect(made.host.inFlight).toBe(1);
    made.target.fail(index);
    await settleTurn();
    expect([made.host.inFlight, made.filter.snapshotError]).toEqual([0, undefined]);
    expect(made.source.bytes[0]).toBe(made.before[0]);
  });

  it("keeps a write whose signal was aborted before from the source", async () => {
    const made = await fixture();
    const signal = AbortSignal.abort(new BlockError("ECANCELED", "given up"));
    await expect(made.filter.pwrite(0, bytes(1, 9), { signal })).rejects.toMatchObject({
      code: "ECANCELED",
    });
    await settleTurn();
    expect([made.source.bytes[0], made.host.inFlight]).toEqual([made.before[0], 0]);
  });
});

describe("the delay of guest writes", () => {
  it("is the time that their copies took, failed ones too", async () => {
    const made = await fixture();
    made.target.hold("pwrite");
    const first = write(made, 0, 1);
    await made.env.clock.advance(40);
    made.target.releaseAll();
    await first;
    made.target.hold("pwrite");
    const second = write(made, CLUSTER, 1);
    await made.env.clock.advance(8);
    made.target.fail(made.target.held[0]?.index ?? -1);
    await expect(second).rejects.toMatchObject({ code: "EIO" });
    await write(made, 0, 1);
    expect(made.filter.writeDelay.snapshot()).toMatchObject({ count: 3, sumMs: 48, maxMs: 40 });
  });
});

describe("the point in time", () => {
  it("is the moment of begin, whatever happened before", async () => {
    const made = await fixture({ options: { "on-cbw-error": "break-snapshot" } });
    made.target.failNth("pwrite", 1);
    await write(made, 0, 1);
    expect(made.filter.snapshotError).toBeDefined();
    const now = made.source.bytes.slice();
    made.filter.begin();
    expect(made.filter.writeDelay.snapshot().count).toBe(0);
    await write(made, 5, 1);
    expect(isSame(await snapshotOf(made.filter), now)).toBe(true);
  });

  it("of a part shows and copies that part alone", async () => {
    const made = await fixture();
    const initial = new HBitmap(4 * CLUSTER, 512);
    initial.set(CLUSTER + 512, 1);
    made.filter.begin({ initial });
    await write(made, 0, 4 * CLUSTER);
    expect(savedClusters(made)).toEqual([1]);
    const buffer = new Uint8Array(CLUSTER);
    await made.filter.snapshotRead(CLUSTER, buffer);
    expect(isSame(buffer, made.before.subarray(CLUSTER, 2 * CLUSTER))).toBe(true);
    await expect(made.filter.snapshotRead(CLUSTER - 1, new Uint8Array(2))).rejects.toMatchObject({
      code: "EACCES",
      message: "2 bytes at 65535 are not all part of the snapshot",
      context: { node: "cbw", offset: CLUSTER - 1, length: 2 },
    });
  });
});

describe("the filter", () => {
  it("over a disk of no length has nothing to save", async () => {
    const { filter, host, env } = await fixture({ size: 0 });
    const call = filter.engine.start(0, 0, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    expect([call.succeeded, filter.size, filter.engine.remaining]).toEqual([true, 0, 0]);
    await host.close();
  });

  it("flushes the source alone", async () => {
    const { filter, source, target } = await fixture();
    await filter.flush();
    expect([source.log.length, target.log.length]).toEqual([1, 0]);
  });

  it("leaves block status and image information to the source", async () => {
    const { filter, host } = await fixture();
    expect(await filter.blockStatus(5, 10)).toMatchObject({
      offset: 5,
      length: 10,
      child: host.children.get("file"),
    });
    expect(await filter.allocatedSize()).toBeUndefined();
    await expect(filter.getInfo()).rejects.toMatchObject({ code: "ENOTSUP" });
    await expect(filter.check()).rejects.toMatchObject({ code: "ENOTSUP" });
    const { children } = host;
    const target = children.get("target");
    if (target === undefined) throw new Error("no target");
    await expect(filter.copyRangeFrom(0, target, 0, 512)).rejects.toMatchObject({
      code: "ENOTSUP",
    });
  });

  it("is not resized", async () => {
    const { filter } = await fixture();
    await expect(filter.truncate(512)).rejects.toMatchObject({
      code: "ENOTSUP",
      context: { node: "cbw", operation: "truncate", size: 512 },
    });
  });

  it.each([
    ["fua, write-unchanged", "write", ["fua", "writeUnchanged"]],
    ["fua, write-unchanged, may-unmap", "zeroes", ["fua", "writeUnchanged", "mayUnmap"]],
    ["nothing", "read", []],
  ] as const)("understands %s in a %s over a disk that does", async (_title, kind, names) => {
    const { filter } = await fixture();
    const mask = names.reduce((sum, name) => sum | RequestFlag[name], 0);
    expect(filter.flags[kind]).toBe(mask);
    expect(filter.flags).toBe(filter.flags);
  });

  it("understands write-unchanged over a disk that knows no flags", async () => {
    const plain = Object.assign(new ScriptedDriver({ size: CLUSTER }), {});
    Object.defineProperty(plain, "flags", {
      value: { read: 0, write: 0, zeroes: 0, truncateZero: false },
    });
    const host = await TestHost.open(copyBeforeWrite(), {
      children: { file: plain, target: new ScriptedDriver({ size: CLUSTER }) },
    });
    const { writeUnchanged } = RequestFlag;
    expect(host.driver.flags).toMatchObject({ write: writeUnchanged, zeroes: writeUnchanged });
  });

  it("is known as such, and as a source of snapshots", async () => {
    const { filter, source } = await fixture();
    expect([filter, source].map((driver) => isCopyBeforeWrite(driver))).toEqual([true, false]);
    expect([filter, source, 5].map((driver) => isSnapshotSource(driver))).toEqual([
      true,
      false,
      false,
    ]);
  });
});

describe("permissions", () => {
  const { consistentRead, write: writing, writeUnchanged, resize } = Permissions;
  const quiet = {
    perm: 0,
    shared: ALL_PERMISSIONS,
    hasParents: false,
    writable: true,
    active: true,
  };
  const guest = { ...quiet, perm: writing, hasParents: true };
  it.each([
    ["target", "without parents", quiet, writing, ALL_PERMISSIONS & ~resize],
    ["target", "with a guest", guest, writing, ALL_PERMISSIONS & ~resize],
    [
      "target",
      "of a read-only filter",
      { ...quiet, writable: false },
      0,
      ALL_PERMISSIONS & ~resize,
    ],
    ["target", "of an inactive filter", { ...guest, active: false }, 0, ALL_PERMISSIONS],
    ["file", "without parents", quiet, 0, ALL_PERMISSIONS],
    ["file", "with a guest", guest, writing | consistentRead, consistentRead | writeUnchanged],
    [
      "file",
      "with a parent that takes nothing",
      { ...guest, perm: 0 },
      consistentRead,
      consistentRead | writeUnchanged,
    ],
    ["file", "of an inactive filter", { ...guest, perm: 0, active: false }, 0, ALL_PERMISSIONS],
  ] as const)("on the %s, %s", async (name, _title, input, perm, shared) => {
    const { filter, host } = await fixture();
    const child = host.children.get(name);
    if (child === undefined) throw new Error(`no child ${name}`);
    expect(filter.childPermissions(child, input)).toEqual({ perm, shared });
  });

  it("on a source that is discarded include writing", async () => {
    const { filter, host } = await fixture({ options: { "x-blocklayer-discard-source": true } });
    const child = host.children.get("file");
    if (child === undefined) throw new Error("no child file");
    const { perm } = filter.childPermissions(child, { ...guest, perm: 0 });
    expect(perm).toBe(writing | consistentRead);
  });
});

describe("options", () => {
  it("discarding the source frees what was copied", async () => {
    const { filter, source, env } = await fixture({
      options: { "x-blocklayer-discard-source": true },
    });
    const call = filter.engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk: CLUSTER });
    await env.clock.advance(1);
    await call.done;
    expect(source.log.filter(({ operation }) => operation === "pdiscard").length).toBe(4);
  });

  it.each([
    [0, CLUSTER],
    [2 * CLUSTER, 2 * CLUSTER],
    [512, CLUSTER],
  ])("min-cluster-size %i makes clusters of %i", async (size, clusterSize) => {
    const { filter, host } = await fixture({ options: { "min-cluster-size": size } });
    expect(filter.engine.clusterSize).toBe(clusterSize);
    expect(host.warnings).toEqual([
      expect.stringContaining("The default block size of 65536 bytes is used"),
    ]);
  });

  it.each([
    [
      { "min-cluster-size": 5000 },
      "Cannot create block-copy-state: min-cluster-size needs to be a power of 2",
    ],
    [{ "cbw-timeout": -1 }, "cbw-timeout"],
    [{ "cbw-timeout": 2 ** 32 }, "cbw-timeout"],
    [{ "on-cbw-error": "ignore" }, "on-cbw-error"],
    [{ bitmap: { node: "n" } }, "bitmap.name"],
  ])("%j are refused", async (options, message) => {
    await expect(fixture({ options })).rejects.toMatchObject({
      code: "EINVAL",
      message: expect.stringContaining(message),
    });
  });

  it("a target that is shorter than the source is refused", async () => {
    const children = {
      file: new ReferenceDisk({ size: 2 * CLUSTER }),
      target: new ReferenceDisk({ size: CLUSTER }),
    };
    await expect(TestHost.open(copyBeforeWrite(), { children })).rejects.toMatchObject({
      code: "EINVAL",
      message: "target of 65536 bytes is shorter than the source of 131072 bytes",
      context: { source: "file", target: "target" },
    });
  });

  it.each(["file", "target"])("a filter without %s is refused", async (name) => {
    const disk = new ReferenceDisk({ size: CLUSTER });
    const children = name === "file" ? { target: disk } : { file: disk };
    await expect(TestHost.open(copyBeforeWrite(), { children })).rejects.toMatchObject({
      code: "EINVAL",
      context: { child: name },
    });
  });

  it("are the same after a reopen, or it is refused", async () => {
    const { filter, host } = await fixture({ options: { "cbw-timeout": 3 } });
    const options = host.driverOptions as Readonly<Record<string, unknown>>;
    const prepared = await filter.prepareReopen({ options, readOnly: false });
    prepared.commit();
    prepared.abort();
    const changed = { ...options, "cbw-timeout": 4 };
    await expect(filter.prepareReopen({ options: changed, readOnly: false })).rejects.toMatchObject(
      {
        code: "EINVAL",
        message: "Cannot change the option 'cbw-timeout'",
        context: { node: "cbw", parameter: "cbw-timeout" },
      },
    );
  });
});

describe("the option bitmap", () => {
  const options = { bitmap: { node: "disk", name: "b" } };
  const map = new HBitmap(4 * CLUSTER, 4096);
  map.set(2 * CLUSTER, 1);

  it("restricts what is copied and shown to what was dirty at open", async () => {
    const asked: string[][] = [];
    const settings = {
      bitmaps: {
        lookup: (...names: string[]) => {
          asked.push(names);
          return { map, check: (use: string) => void asked.push([use]) };
        },
      },
    };
    const made = await fixture({ options, settings });
    expect(asked).toEqual([["disk", "b"], ["allow-readonly"]]);
    await write(made, 0, 4 * CLUSTER);
    expect(savedClusters(made)).toEqual([2]);
    await expect(snapshotOf(made.filter)).rejects.toMatchObject({ code: "EACCES" });
  });

  it("of another size is refused", async () => {
    const settings = { bitmaps: { lookup: () => ({ map: new HBitmap(512, 512) }) } };
    await expect(fixture({ options, settings })).rejects.toMatchObject({
      code: "EINVAL",
      message:
        "Cannot create block-copy-state: Failed to merge bitmap 'b' to internal copy-bitmap: Bitmaps are of different sizes (destination size is 262144, source size is 512) and can't be merged",
      context: { node: "cbw", bitmap: "b" },
    });
  });

  it("that is not there, or counts for nothing, is refused with the reason", async () => {
    const refuse = (): never => {
      throw new BlockError("EINVAL", "Bitmap 'b' is inconsistent and cannot be used");
    };
    for (const bitmaps of [{ lookup: refuse }, { lookup: () => ({ map, check: refuse }) }]) {
      await expect(fixture({ options, settings: { bitmaps } })).rejects.toMatchObject({
        message: "Bitmap 'b' is inconsistent and cannot be used",
      });
    }
  });

  it("needs dirty bitmaps to be set up", async () => {
    await expect(fixture({ options })).rejects.toMatchObject({
      code: "ENOTSUP",
      context: { node: "cbw", bitmap: "b" },
    });
  });
});
