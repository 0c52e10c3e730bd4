import { SnapshotAccessDriver, snapshotAccess } from "@blocklayer/backup-top";
import { ALL_PERMISSIONS, RequestFlag, StatusFlag } from "@blocklayer/driver";
import { ScriptedDriver, TestHost, testChild } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { bytes, CLUSTER, type Fixture, fixture, isSame, snapshotOf } from "./fixture.ts";

async function readSnapshot({ filter }: Fixture, offset: number, length: number) {
  const buffer = new Uint8Array(length);
  await filter.snapshotRead(offset, buffer);
  return buffer;
}

describe("a read of the snapshot", () => {
  it("that spans copied and other clusters takes each part from where it is", async () => {
    const made = await fixture();
    await made.filter.pwrite(0, bytes(CLUSTER, 9));
    const seen = await readSnapshot(made, 0, 2 * CLUSTER);
    expect(isSame(seen, made.before.subarray(0, 2 * CLUSTER))).toBe(true);
  });

  it("equals the disk as it was, for every pattern of overwritten clusters and every range", async () => {
    for (let pattern = 0; pattern < 16; pattern += 1) {
      const made = await fixture();
      for (let cluster = 0; cluster < 4; cluster += 1) {
        const isHit = Math.floor(pattern / 2 ** cluster) % 2 === 1;
        if (isHit) await made.filter.pwrite(cluster * CLUSTER + 7, bytes(100, 9));
      }
      for (const [offset, length] of [
        [0, 4 * CLUSTER],
        [CLUSTER - 5, 2 * CLUSTER],
        [5, 3 * CLUSTER - 3],
        [3 * CLUSTER, CLUSTER],
      ] as const) {
        const seen = await readSnapshot(made, offset, length);
        expect([pattern, isSame(seen, made.before.subarray(offset, offset + length))]).toEqual([
          pattern,
          true,
        ]);
      }
    }
  });

  it("from the source holds writers of that part back, and no others", async () => {
    const made = await fixture();
    const { filter, source } = made;
    await filter.pwrite(2 * CLUSTER, bytes(1, 9));
    source.hold("pread");
    const read = readSnapshot(made, 0, 3 * CLUSTER);
    source.unhold();
    const inPart = filter.pwrite(CLUSTER, bytes(1, 9));
    const sameCluster = filter.pwrite(2 * CLUSTER, bytes(1, 8));
    await sameCluster;
    await filter.pwrite(3 * CLUSTER, bytes(1, 9));
    await made.env.clock.advance(5);
    expect(source.bytes[CLUSTER]).toBe(made.before[CLUSTER]);
    source.releaseAll();
    const seen = await read;
    await inPart;
    expect(source.bytes[CLUSTER]).toBe(9);
    expect(isSame(seen, made.before.subarray(0, 3 * CLUSTER))).toBe(true);
    expect(filter.writeDelay.snapshot()).toMatchObject({ count: 4, maxMs: 5 });
  });

  it("that is under way when the snapshot breaks still sees the disk as it was", async () => {
    const made = await fixture({ options: { "on-cbw-error": "break-snapshot" } });
    const { filter, source, target } = made;
    source.hold("pread");
    const read = readSnapshot(made, 0, CLUSTER);
    source.unhold();
    target.failNth("pwrite", 1, "EIO", { persistent: true });
    const broken = filter.pwrite(0, bytes(1, 9));
    const after = settleTurn().then(() => filter.pwrite(1, bytes(1, 9)));
    await settleTurn();
    await settleTurn();
    expect([filter.snapshotError !== undefined, source.bytes[0]]).toEqual([true, made.before[0]]);
    source.releaseAll();
    expect(isSame(await read, made.before.subarray(0, CLUSTER))).toBe(true);
    await Promise.all([broken, after]);
    expect(Array.from(source.bytes.subarray(0, 2))).toEqual([9, 9]);
  });

  it("that fails frees the writers that wait, and is the source's error", async () => {
    const made = await fixture();
    const { filter, source } = made;
    source.hold("pread");
    const read = readSnapshot(made, 0, 10);
    source.unhold();
    const write = filter.pwrite(0, bytes(1, 9));
    source.fail(0, "EIO");
    await expect(read).rejects.toMatchObject({ code: "EIO" });
    await write;
    expect(source.bytes[0]).toBe(9);
  });

  it("gives a waiting writer up when its signal is aborted", async () => {
    const made = await fixture();
    const { filter, source } = made;
    source.hold("pread");
    const read = readSnapshot(made, 0, 10);
    source.unhold();
    const controller = new AbortController();
    const write = filter.pwrite(0, bytes(1, 9), { signal: controller.signal });
    await settleTurn();
    controller.abort(new Error("enough"));
    await expect(write).rejects.toThrow("enough");
    source.releaseAll();
    await read;
    expect(source.bytes[0]).toBe(made.before[0]);
  });
});

describe("a discard of the snapshot", () => {
  it.each([
    ["whole clusters", CLUSTER, 2 * CLUSTER, [1, 2], [[CLUSTER, 2 * CLUSTER]]],
    ["parts of clusters shrink it", CLUSTER - 1, CLUSTER + 2, [1], [[CLUSTER, CLUSTER]]],
    ["less than a cluster is nothing", 5, CLUSTER, [], []],
    ["the end of the disk is a boundary", 4 * CLUSTER, 100, [4], [[4 * CLUSTER, 100]]],
    ["a part of the last cluster is nothing", 4 * CLUSTER + 1, 99, [], []],
  ] as const)("of %s", async (_title, offset, length, gone, discards) => {
    const made = await fixture({ size: 4 * CLUSTER + 100 });
    const { filter, target } = made;
    await filter.snapshotDiscard(offset, length);
    const sent = target.log.map((request) => [request.offset, request.length]);
    expect(sent).toEqual(discards);
    for (let cluster = 0; cluster < 5; cluster += 1) {
      const outcome = await readSnapshot(made, cluster * CLUSTER, 100).then(
        () => "read",
        (error: { code: string }) => error.code,
      );
      const isGone = (gone as readonly number[]).includes(cluster);
      expect([cluster, outcome]).toEqual([cluster, isGone ? "EACCES" : "read"]);
    }
    for (const cluster of gone) await filter.pwrite(cluster * CLUSTER, bytes(1, 9));
    expect(target.log.some(({ operation }) => operation === "pwrite")).toBe(false);
  });
});

describe("a read of what is discarded meanwhile", () => {
  it("fails, since it may have come too late", async () => {
    const made = await fixture();
    const { filter, target } = made;
    await filter.pwrite(0, bytes(1, 9));
    target.hold("pread");
    const read = readSnapshot(made, 0, 10);
    await filter.snapshotDiscard(0, CLUSTER);
    target.releaseAll();
    await expect(read).rejects.toMatchObject({
      code: "EACCES",
      context: { operation: "snapshotRead", offset: 0, length: 10 },
    });
  });
});

describe("a snapshot whose source is discarded as it is copied", () => {
  const discarding = { options: { "x-blocklayer-discard-source": true } };

  it("is read from the target while the source is discarded", async () => {
    const made = await fixture(discarding);
    const { filter, source, env } = made;
    source.hold("pdiscard");
    const call = filter.engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: CLUSTER });
    await env.clock.advance(1);
    expect(source.held).toMatchObject([{ operation: "pdiscard" }]);
    source.hold("pread");
    const read = readSnapshot(made, 0, 2 * CLUSTER);
    source.releaseAll();
    source.unhold();
    expect(isSame(await read, made.before.subarray(0, 2 * CLUSTER))).toBe(true);
    await env.clock.advance(1);
    await call.done;
    expect(isSame(await readSnapshot(made, 0, CLUSTER), made.before.subarray(0, CLUSTER))).toBe(
      true,
    );
  });

  it("is not discarded before reads of it from there have ended, and writes wait for the discard", async () => {
    const made = await fixture(discarding);
    const { filter, source, env } = made;
    source.hold("pread");
    const read = readSnapshot(made, 0, CLUSTER);
    source.unhold();
    const call = filter.engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: CLUSTER });
    const write = filter.pwrite(0, bytes(10, 9));
    await env.clock.advance(1);
    expect(source.log.filter(({ operation }) => operation !== "pread")).toEqual([
      expect.objectContaining({ operation: "blockStatus" }),
    ]);
    source.releaseAll();
    expect(isSame(await read, made.before.subarray(0, CLUSTER))).toBe(true);
    await env.clock.advance(1);
    await call.done;
    await write;
    expect(
      source.log.map(({ operation }) => operation).filter((name) => name !== "blockStatus"),
    ).toEqual(["pread", "pread", "pdiscard", "pwrite"]);
    expect(source.bytes[0]).toBe(9);
  });
});

describe("clusters that a job leaves out", () => {
  it("are still shown where a write has saved them before", async () => {
    const made = await fixture();
    await made.filter.pdiscard(CLUSTER, CLUSTER);
    made.filter.engine.reset(0, 3 * CLUSTER);
    const seen = await readSnapshot(made, CLUSTER, CLUSTER);
    expect(isSame(seen, made.before.subarray(CLUSTER, 2 * CLUSTER))).toBe(true);
    for (const cluster of [0, 2]) {
      await expect(readSnapshot(made, cluster * CLUSTER, 1)).rejects.toMatchObject({
        code: "EACCES",
      });
    }
  });

  it("are not shown, since the target does not hold them", async () => {
    const made = await fixture();
    made.filter.engine.reset(CLUSTER, CLUSTER);
    await expect(readSnapshot(made, CLUSTER, 1)).rejects.toMatchObject({ code: "EACCES" });
    expect(isSame(await readSnapshot(made, 0, 10), made.before.subarray(0, 10))).toBe(true);
  });
});

describe("the status of the snapshot", () => {
  it("is that of the child that holds the run; what the target holds is data there", async () => {
    const made = await fixture();
    const { filter, target } = made;
    await filter.pwrite(CLUSTER, bytes(1, 9));
    const at = async (offset: number) => {
      const { flags, length } = await filter.snapshotStatus(offset, 4 * CLUSTER - offset);
      return [flags, length];
    };
    const { data } = StatusFlag;
    expect([await at(0), await at(CLUSTER), await at(2 * CLUSTER)]).toEqual([
      [data, CLUSTER],
      [data, CLUSTER],
      [data, 2 * CLUSTER],
    ]);
    const edge = made.host.children.get("target");
    if (edge === undefined) throw new Error("no target");
    for (const [told, seen] of [
      [0, data],
      [StatusFlag.zero, StatusFlag.zero],
      [StatusFlag.zero | StatusFlag.allocated | StatusFlag.eof, StatusFlag.zero],
    ] as const) {
      Object.assign(edge, { blockStatus: () => Promise.resolve({ flags: told, length: 5 }) });
      expect(await at(CLUSTER)).toEqual([seen, 5]);
    }
    expect(target.log.filter(({ operation }) => operation === "blockStatus").length).toBe(1);
  });

  it("freezes the source while it is asked", async () => {
    const made = await fixture();
    made.source.hold("blockStatus");
    const status = made.filter.snapshotStatus(0, CLUSTER);
    made.source.unhold();
    const write = made.filter.pwrite(0, bytes(1, 9));
    await made.env.clock.advance(1);
    expect(made.source.bytes[0]).toBe(made.before[0]);
    made.source.releaseAll();
    await Promise.all([status, write]);
    expect(made.source.bytes[0]).toBe(9);
  });
});

describe("snapshot-access", () => {
  const over = async (): Promise<{ made: Fixture; access: SnapshotAccessDriver }> => {
    const made = await fixture();
    const child = testChild(made.filter, { nodeName: "cbw" });
    return { made, access: new SnapshotAccessDriver({ nodeName: "access" }, child) };
  };

  it("reads, tells the status of, and discards the snapshot", async () => {
    const { made, access } = await over();
    await made.filter.pwrite(0, bytes(1, 9));
    const buffer = new Uint8Array(access.size);
    await access.pread(0, buffer, { flags: 0, signal: new AbortController().signal });
    expect(isSame(buffer, made.before)).toBe(true);
    expect(await access.blockStatus(0, 10)).toEqual({ flags: StatusFlag.data, length: 10 });
    await access.pdiscard(0, CLUSTER);
    await expect(access.pread(0, buffer)).rejects.toMatchObject({ code: "EACCES" });
    expect(
      isSame(await readSnapshot(made, CLUSTER, 3 * CLUSTER), made.before.subarray(CLUSTER)),
    ).toBe(true);
  });

  it("refuses a read with a flag", async () => {
    const { access } = await over();
    const flags = RequestFlag.prefetch;
    await expect(access.pread(3, new Uint8Array(7), { flags })).rejects.toMatchObject({
      code: "ENOTSUP",
      context: { node: "access", operation: "pread", offset: 3, length: 7, flags },
    });
  });

  it("does not write", async () => {
    const { access } = await over();
    expect(["pwrite" in access, "pwriteZeroes" in access, access.zeroes]).toEqual([
      false,
      false,
      "none",
    ]);
  });

  it("takes nothing and shares everything", async () => {
    const { access } = await over();
    expect(access.childPermissions()).toEqual({ perm: 0, shared: ALL_PERMISSIONS });
  });

  it("over a node without a snapshot opens, and answers every request ENOTSUP", async () => {
    const file = new ScriptedDriver({ size: CLUSTER });
    const host = await TestHost.open(snapshotAccess, { nodeName: "access", children: { file } });
    const { driver } = host;
    for (const work of [
      driver.pread(0, new Uint8Array(5)),
      driver.blockStatus?.(0, 5),
      driver.pdiscard?.(0, 5),
    ]) {
      await expect(work).rejects.toMatchObject({
        code: "ENOTSUP",
        message: "Driver 'snapshot-access' does not support node 'file', which keeps no snapshot",
        context: { node: "access", child: "file", offset: 0, length: 5 },
      });
    }
    await host.close();
  });

  it("is not kept from closing by a snapshot that was read", async () => {
    const { made } = await over();
    expect(isSame(await snapshotOf(made.filter), made.before)).toBe(true);
    await made.host.close();
    expect(made.host.inFlight).toBe(0);
  });
});
