import { type BlockStatus, completed, RequestFlag, Role, StatusFlag } from "@blocklayer/driver";
import {
  passThrough,
  ReferenceDisk,
  RequestGate,
  readAll,
  reference,
  releaseOrders,
  ScriptedDriver,
  TestHost,
  testChild,
} from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";

const file = Role.data | Role.primary;

describe("a host", () => {
  it("opens definitions below each other, and closes from the top", async () => {
    const disk = new ReferenceDisk({ size: 512 });
    const host = await TestHost.open(passThrough, {
      children: { file: { definition: passThrough, children: { file: disk } } },
    });
    await host.driver.pwrite?.(0, new Uint8Array([1]));
    expect(disk.bytes[0]).toBe(1);
    await host.close();
    await host.close();
    await expect(disk.pread(0, new Uint8Array(1))).rejects.toMatchObject({ code: "ESHUTDOWN" });
    await expect(host.driver.pread(0, new Uint8Array(1))).rejects.toMatchObject({
      code: "ESHUTDOWN",
      message: "pread after the child was closed",
      context: { node: "file", operation: "pread" },
    });
  });

  it("refuses options that do not fit the schema", async () => {
    await expect(TestHost.open(reference, { options: { size: "x" } })).rejects.toMatchObject({
      code: "EINVAL",
    });
  });

  it("refuses a child that nobody gave", async () => {
    await expect(TestHost.open(passThrough)).rejects.toMatchObject({
      code: "EINVAL",
      message: 'A block device must be specified for "file"',
      context: { node: "test", child: "file" },
    });
  });

  it("closes the children of a driver that can not be opened", async () => {
    const disk = new ReferenceDisk({ size: 512 });
    const failing = {
      ...passThrough,
      open: async (host: Parameters<typeof passThrough.open>[0]) => {
        await host.openChild("file", file);
        throw new BlockError("EIO", "broken");
      },
    };
    await expect(TestHost.open(failing, { children: { file: disk } })).rejects.toMatchObject({
      code: "EIO",
    });
    await expect(disk.flushToDisk()).rejects.toMatchObject({ code: "ESHUTDOWN" });
  });

  it("opens children from options that the driver gives", async () => {
    const host = new TestHost({
      openOptions: (name, options) => new ReferenceDisk({ size: name.length + Number(options) }),
    });
    expect((await host.openChild("data", file, 100)).size).toBe(104);
    await expect(host.openChild("other", file)).rejects.toMatchObject({ code: "EINVAL" });
  });

  it("tells a child that is none from one that is not mentioned", async () => {
    const host = new TestHost({
      children: { file: new ReferenceDisk({ size: 8 }), backing: null },
    });
    const states = ["file", "backing", "x"].map((name) => host.childOption(name));
    expect(states).toEqual(["given", "null", "absent"]);
    await expect(host.openChild("backing", Role.cow)).rejects.toMatchObject({
      code: "EINVAL",
      message: 'A block device must be specified for "backing"',
    });
  });

  it("attaches and detaches nodes by name", async () => {
    const host = new TestHost({ nodes: { base: new ReferenceDisk({ size: 8 }) } });
    expect((await host.attachChild("backing", Role.cow, "base")).nodeName).toBe("base");
    await expect(host.attachChild("x", Role.cow, "nobody")).rejects.toMatchObject({
      code: "ENOENT",
      message: "Cannot find device='' nor node-name='nobody'",
      context: { node: "nobody" },
    });
    await host.detachChild("backing");
    expect(host.children.size).toBe(0);
    expect(() => host.childDriver("backing")).toThrow("there is no child backing");
  });

  it("freezes a chain once at a time", () => {
    const host = new TestHost();
    const hold = host.freezeChain("base");
    expect(() => host.freezeChain("base")).toThrow(
      expect.objectContaining({ code: "EPERM", context: { node: "test" } }),
    );
    hold.release();
    host.freezeChain("base")[Symbol.dispose]();
  });

  it("keeps what the driver tells", async () => {
    const host = new TestHost({ autoReadOnly: true });
    host.warn("a");
    host.reportCorruption("b");
    host.resized();
    host.limitsChanged();
    await host.refreshPermissions();
    await host.contentReplaced(1, 2);
    host.becomeReadOnly("c");
    expect([host.warnings, host.corruptions, host.replaced]).toEqual([
      ["a"],
      ["b"],
      [{ offset: 1, length: 2 }],
    ]);
    expect([host.resizedCount, host.limitsChangedCount, host.permissionRefreshCount]).toEqual([
      1, 1, 1,
    ]);
    expect([host.options.readOnly, host.readOnlyReason]).toEqual([true, "c"]);
  });

  it("refuses read-only that nobody allowed", () => {
    expect(() => new TestHost().becomeReadOnly("why")).toThrow("without auto-read-only");
    expect(() => new TestHost().driver).toThrow("no driver was opened in this host");
  });

  it("waits at close for what is held in flight, and says when it stays", async () => {
    const host = await TestHost.open(reference, { options: { size: 512 } });
    const hold = host.holdInFlight();
    expect(host.inFlight).toBe(1);
    const closing = host.close();
    await settleTurn();
    hold[Symbol.dispose]();
    hold[Symbol.dispose]();
    await closing;
    expect(host.inFlight).toBe(0);
    const leaking = new TestHost();
    leaking.holdInFlight();
    await expect(leaking.close()).rejects.toThrow("1 requests are still held in flight at close");
  });

  it("leaves as a crash does", async () => {
    const disk = new ReferenceDisk({ size: 512 });
    const host = await TestHost.open(passThrough, { children: { file: disk } });
    host.abandon();
    await expect(host.driver.pread(0, new Uint8Array(1))).rejects.toMatchObject({
      code: "ESHUTDOWN",
    });
    await disk.flushToDisk();
  });
});

describe("a child", () => {
  it("reads zeroes beyond the end of its driver", async () => {
    const disk = new ReferenceDisk({ size: 4 });
    disk.bytes.fill(1);
    const buffer = new Uint8Array(4).fill(9);
    await testChild(disk).pread(2, buffer);
    expect([...buffer]).toEqual([1, 1, 0, 0]);
    await testChild(disk).pread(8, buffer);
    expect([...buffer]).toEqual([0, 0, 0, 0]);
  });

  it("gathers buffers for a driver without pwritev", async () => {
    const disk = new ReferenceDisk({ size: 4 });
    await testChild(disk).pwritev(1, [new Uint8Array([1]), new Uint8Array([2, 3])]);
    expect([...disk.bytes]).toEqual([0, 1, 2, 3]);
  });

  it.each([
    ["native", 0, ["pwriteZeroes"]],
    ["emulated", 0, ["pwrite"]],
  ] as const)("writes zeroes over zeroes %s by %j %j", async (zeroes, flags, operations) => {
    const disk = Object.assign(new ScriptedDriver({ size: 4 }), { zeroes });
    disk.bytes.fill(1);
    await testChild(disk).pwriteZeroes(1, 2, { flags });
    expect([...disk.bytes]).toEqual([1, 0, 0, 1]);
    expect(disk.log.map(({ operation }) => operation)).toEqual(operations);
  });

  it("writes zero bytes when the driver refuses to write zeroes, unless told not to", async () => {
    const disk = new ScriptedDriver({ size: 4 });
    disk.bytes.fill(1);
    disk.failNth("pwriteZeroes", 1, "ENOTSUP", { persistent: true });
    await testChild(disk).pwriteZeroes(1, 2);
    expect([...disk.bytes]).toEqual([1, 0, 0, 1]);
    const work = testChild(disk).pwriteZeroes(0, 4, { flags: RequestFlag.noFallback });
    await expect(work).rejects.toMatchObject({ code: "ENOTSUP" });
    const never = Object.assign(new ScriptedDriver({ size: 4 }), { zeroes: "none" as const });
    await expect(testChild(never).pwriteZeroes(0, 4)).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "x-blocklayer-scripted does not support pwriteZeroes",
      context: { node: "file", operation: "pwriteZeroes" },
    });
    disk.clearFailures();
    disk.failNth("pwriteZeroes", 1, "EIO");
    await expect(testChild(disk).pwriteZeroes(0, 4)).rejects.toMatchObject({ code: "EIO" });
  });

  it("flushes after a write in place of FUA that the driver lacks", async () => {
    const flags = { read: 0, write: 0, zeroes: 0, truncateZero: false };
    const disk = Object.assign(new ScriptedDriver({ size: 4 }), {});
    Object.defineProperty(disk, "flags", { value: flags });
    await testChild(disk).pwrite(0, new Uint8Array(1), { flags: RequestFlag.fua });
    expect(disk.log.map(({ operation, flags: seen }) => [operation, seen])).toEqual([
      ["pwrite", 0],
      ["flush", 0],
    ]);
    const work = testChild(disk).pwrite(0, new Uint8Array(1), { flags: RequestFlag.compressed });
    await expect(work).rejects.toMatchObject({ code: "ENOTSUP" });
  });

  it("ignores discards that are not supported, and no other error", async () => {
    const disk = new ScriptedDriver({ size: 4 });
    disk.failNth("pdiscard", 1, "ENOTSUP");
    disk.failNth("pdiscard", 2, "EIO");
    await testChild(disk).pdiscard(0, 4);
    await expect(testChild(disk).pdiscard(0, 4)).rejects.toMatchObject({ code: "EIO" });
    await testChild(Object.assign(disk, { pdiscard: undefined })).pdiscard(0, 4);
  });

  it("answers for what the driver does not have", async () => {
    const disk = new ReferenceDisk({ size: 4 });
    Object.assign(disk, {
      blockStatus: undefined,
      truncate: undefined,
      allocatedSize: undefined,
      flushToDisk: undefined,
    });
    const child = testChild(disk);
    expect(await child.blockStatus(0, 8)).toEqual({ flags: StatusFlag.data, length: 4 });
    expect(await child.blockStatus(4, 8)).toEqual({ flags: StatusFlag.eof, length: 0 });
    expect(await child.chainStatus(0, 4)).toMatchObject({ depth: 1 });
    expect(await child.allocatedSize()).toBeUndefined();
    await child.flush();
    const other = testChild(new ReferenceDisk({ size: 4 }));
    for (const work of [
      child.truncate(8),
      child.makeEmpty(),
      child.getInfo(),
      child.check(),
      child.copyRangeFrom(0, other, 0, 4),
      child.copyRangeTo(other.driver, 0, 0, 4),
    ]) {
      await expect(work).rejects.toMatchObject({ code: "ENOTSUP" });
    }
  });

  it("says depth 0 where its layer decides nothing", async () => {
    const disk = new ReferenceDisk({ size: 4 });
    disk.blockStatus = (): Promise<BlockStatus> => Promise.resolve({ flags: 0, length: 4 });
    expect(await testChild(disk).chainStatus(0, 4)).toEqual({ flags: 0, length: 4, depth: 0 });
  });

  it("passes on the promise of a request that is done", () => {
    const child = testChild(new ReferenceDisk({ size: 4 }));
    expect(child.pread(0, new Uint8Array(4))).toBe(completed);
    expect(child.pwrite(0, new Uint8Array(0))).toBe(completed);
    expect([child.name, child.nodeName, child.role]).toEqual(["file", "file", file]);
  });
});

describe("a gate", () => {
  const disk = (): ReferenceDisk => new ReferenceDisk({ size: 16 });

  it.each([
    [{ at: 2 }, ".x..", "1.34"],
    [{ at: 2, when: "after" as const }, ".x..", "1234"],
    [{ at: 3, persistent: true }, "..xx", "12.."],
  ])("with %j ends %s and writes %s", async (failure, expected, written) => {
    const below = disk();
    const gate = new RequestGate();
    const child = testChild(below, { gate });
    gate.failAt(failure);
    let text = "";
    for (let index = 0; index < 4; index += 1) {
      text += await child.pwrite(index, new Uint8Array([index + 1])).then(
        () => ".",
        () => "x",
      );
    }
    expect(text).toBe(expected);
    expect([...below.bytes.subarray(0, 4)].map((byte) => (byte === 0 ? "." : byte)).join("")).toBe(
      written,
    );
    expect(gate.hasFailed).toBe(true);
  });

  it("says which request failed", async () => {
    const child = testChild(disk());
    child.gate.failAt({ at: 1, code: "ENOSPC" });
    await expect(child.pwrite(4, new Uint8Array(2))).rejects.toMatchObject({
      code: "ENOSPC",
      message: "pwrite of file failed as told",
      context: { node: "file", operation: "pwrite", offset: 4, length: 2 },
    });
  });

  it.each([
    ["first", releaseOrders.first, 2],
    ["last", releaseOrders.last, 1],
  ] as const)("releases the %s one first", async (_title, order, expected) => {
    const below = disk();
    const child = testChild(below);
    child.gate.hold();
    const works = [child.pwrite(0, new Uint8Array([1])), child.pwrite(0, new Uint8Array([2]))];
    expect(child.gate.heldCount).toBe(2);
    await child.gate.releaseUntil(Promise.all(works), order);
    expect(below.bytes[0]).toBe(expected);
  });

  it("waits for a driver that asks no child as long as it takes", async () => {
    const { gate } = testChild(disk());
    let isDone = false;
    let answer: () => void = () => undefined;
    const work = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const released = gate.releaseUntil(work, releaseOrders.first).then(() => {
      isDone = true;
    });
    for (let turn = 0; turn < 1100; turn += 1) await settleTurn();
    expect(isDone).toBe(false);
    answer();
    await released;
  });

  it("notices that somebody waits for nothing", async () => {
    const { gate } = testChild(disk());
    await testChild(disk(), { gate }).flush();
    const never = new Promise(() => undefined);
    await expect(gate.releaseUntil(never, releaseOrders.first)).rejects.toThrow(
      "a request waits although its children answered everything",
    );
    expect(() => gate.release()).toThrow("no request is held at 0");
  });
});

describe("the reference disk", () => {
  const disk = (): ReferenceDisk =>
    new ReferenceDisk({
      size: 8192,
      limits: { requestAlignment: 512, maxTransfer: 1024, maxPwriteZeroes: 2048, maxPdiscard: 512 },
    });

  it.each<[string, (d: ReferenceDisk) => Promise<void>]>([
    ["is not aligned to 512", (d) => d.pread(1, new Uint8Array(512))],
    ["is not aligned to 512", (d) => d.pwrite(0, new Uint8Array(513))],
    ["is longer than 1024", (d) => d.pwrite(0, new Uint8Array(1536))],
    ["is longer than 2048", (d) => d.pwriteZeroes(0, 4096)],
    ["is longer than 512", (d) => d.pdiscard(0, 1024)],
    ["the length is zero", (d) => d.pread(0, new Uint8Array(0))],
    ["the offset is not valid", (d) => d.pread(-512, new Uint8Array(512))],
    ["goes beyond 8192", (d) => d.pread(8192, new Uint8Array(512))],
  ])("asserts when a request %s", async (message, work) => {
    await expect(work(disk())).rejects.toMatchObject({
      name: "AssertionError",
      message: expect.stringContaining(message),
    });
  });

  it("is full at its end, unless it grows", async () => {
    await expect(disk().pwrite(8192, new Uint8Array(512))).rejects.toMatchObject({
      code: "ENOSPC",
      message: "pwrite of 512 bytes at 8192 goes beyond 8192",
      context: { operation: "pwrite", offset: 8192, length: 512 },
    });
    const growing = new ReferenceDisk({ size: 4, growing: true });
    await growing.pwrite(6, new Uint8Array([1]));
    expect([...(await readAll(growing))]).toEqual([0, 0, 0, 0, 0, 0, 1]);
  });

  it("does not preallocate when it shrinks", async () => {
    await expect(disk().truncate(512, { preallocation: "full" })).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "preallocation is for growing only",
    });
  });

  it.each<[string, (d: ReferenceDisk) => Promise<unknown>]>([
    ["pread", (d) => d.pread(0, new Uint8Array(512))],
    ["flushToDisk", (d) => d.flushToDisk()],
    ["blockStatus", (d) => d.blockStatus(0, 512)],
    ["truncate", (d) => d.truncate(512)],
  ])("refuses %s after close", async (operation, work) => {
    const closed = disk();
    await closed[Symbol.asyncDispose]();
    await expect(work(closed)).rejects.toMatchObject({
      code: "ESHUTDOWN",
      message: `${operation} after the disk was closed`,
      context: { operation },
    });
  });
});
