import type { BlockNode } from "@blocklayer/block-graph";
import type { DirtyBitmap } from "@blocklayer/dirty-bitmap";
import type { ScriptedDriver } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { bytes, type Disk, failure, KiB, MiB, Rig } from "./bitmap-rig.ts";

interface Set {
  readonly rig: Rig;
  readonly node: BlockNode;
  readonly bitmap: DirtyBitmap;
  readonly disk: Disk;
}

async function set(granularity = 65536): Promise<Set> {
  const rig = new Rig();
  const node = await rig.disk();
  const bitmap = await rig.bitmaps.add(node, { name: "x", granularity });
  return { rig, node, bitmap, disk: await rig.backend(node) };
}

async function scripted(): Promise<Set & { readonly driver: ScriptedDriver }> {
  const rig = new Rig();
  const node = await rig.open({
    driver: "x-blocklayer-scripted",
    "node-name": "disk",
    size: MiB,
    discard: "unmap",
  });
  const bitmap = await rig.bitmaps.add(node, { name: "x", granularity: 4096 });
  const driver = rig.scripted.instance("disk");
  return { rig, node, bitmap, disk: await rig.backend(node), driver };
}

describe("recording", () => {
  it.each([
    { operation: "a write of one byte", granularity: 65536, dirty: [[0, 65536]] },
    { operation: "a write over two groups", granularity: 4096, dirty: [[4096, 8192]] },
    { operation: "write zeroes", granularity: 4096, dirty: [[8192, 4096]] },
    { operation: "a discard", granularity: 4096, dirty: [[16384, 4096]] },
    { operation: "an empty discard", granularity: 4096, dirty: [] },
    { operation: "an empty write", granularity: 4096, dirty: [] },
    { operation: "a read", granularity: 4096, dirty: [] },
  ])("marks what $operation changes", async ({ operation, granularity, dirty }) => {
    const { bitmap, disk } = await set(granularity);
    const work: Record<string, () => Promise<void>> = {
      "a write of one byte": () => disk.write(100, bytes(1)),
      "a write over two groups": () => disk.write(8191, bytes(2)),
      "write zeroes": () => disk.writeZeroes(8192, 10),
      "a discard": () => disk.discard(16384, 4096),
      "an empty discard": () => disk.discard(16384, 0),
      "an empty write": () => disk.write(16384, bytes(0)),
      "a read": () => disk.read(16384, bytes(10)),
    };
    await work[operation]?.();
    const areas: number[][] = [];
    for (let at = bitmap.map.nextDirtyArea(0); at !== undefined; ) {
      areas.push([at.offset, at.length]);
      at = bitmap.map.nextDirtyArea(at.offset + at.length);
    }
    expect(areas).toEqual(dirty);
  });

  it("does not mark a discard that the node keeps from its driver", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk", { discard: "ignore" });
    const bitmap = await rig.bitmaps.add(node, { name: "x" });
    await (await rig.backend(node)).discard(0, MiB);
    expect(bitmap.count).toBe(0);
  });

  it.each(["pwrite", "pwriteZeroes", "pdiscard"] as const)(
    "marks the range of a %s that failed",
    async (operation) => {
      const { bitmap, disk, driver } = await scripted();
      driver.failNth(operation, 1, "EIO");
      const work = {
        pwrite: () => disk.write(4096, bytes(4096)),
        pwriteZeroes: () => disk.writeZeroes(4096, 4096),
        pdiscard: () => disk.discard(4096, 4096),
      };
      expect((await failure(work[operation])).code).toBe("EIO");
      expect(bitmap.map.nextDirtyArea(0)).toEqual({ offset: 4096, length: 4096 });
    },
  );

  it("marks a write when it is done, and before its writer knows", async () => {
    const { bitmap, disk, driver } = await scripted();
    driver.hold("pwrite");
    let seen = -1;
    const write = disk.write(0, bytes(512)).then(() => {
      seen = bitmap.count;
    });
    await driver.waitFor();
    expect(bitmap.count).toBe(0);
    driver.release();
    await write;
    expect(seen).toBe(4096);
  });

  it("marks a range again that was cleared while a write to it was in flight", async () => {
    const { bitmap, disk, driver } = await scripted();
    await disk.write(0, bytes(4096));
    driver.hold("pwrite");
    const write = disk.write(0, bytes(4096));
    await driver.waitFor();
    bitmap.reset(0, 4096);
    driver.release();
    await write;
    expect(bitmap.count).toBe(4096);
  });

  it("marks a write that began before the bitmap was there", async () => {
    const { rig, node, disk, driver } = await scripted();
    driver.hold("pwrite");
    const write = disk.write(0, bytes(512));
    await driver.waitFor();
    const late = await rig.bitmaps.add(node, { name: "late" });
    driver.release();
    await write;
    expect(late.count).toBe(65536);
  });

  it("stops when the bitmap is disabled and goes on when it is enabled", async () => {
    const { bitmap, disk } = await set(4096);
    bitmap.disable();
    await disk.write(0, bytes(1));
    expect(bitmap).toMatchObject({ count: 0, recording: false });
    bitmap.enable();
    await disk.write(0, bytes(1));
    expect(bitmap).toMatchObject({ count: 4096, recording: true });
  });

  it("marks everything when content is replaced from outside", async () => {
    const { node, bitmap } = await set(4096);
    await node.io.contentReplaced(0, node.size);
    expect(bitmap.count).toBe(MiB);
  });
});

describe("a change of length", () => {
  it("by less than a group changes no count, and new bytes are clean", async () => {
    const { bitmap, disk } = await set();
    await disk.write(MiB - 1, bytes(1));
    await disk.truncate(MiB + 512);
    expect(bitmap).toMatchObject({ count: 65536, size: MiB + 512 });
    expect(bitmap.map.nextDirty(MiB)).toBe(-1);
    await disk.truncate(MiB + 1024);
    expect(bitmap).toMatchObject({ count: 65536, size: MiB + 1024 });
  });

  it("forgets what was cut off", async () => {
    const { bitmap, disk } = await set();
    await disk.write(MiB - 1, bytes(1));
    await disk.write(0, bytes(1));
    await disk.truncate(512 * KiB);
    expect(bitmap).toMatchObject({ count: 65536, size: 512 * KiB });
    await disk.truncate(MiB);
    expect(bitmap.count).toBe(65536);
  });

  it("reaches disabled and nameless bitmaps too", async () => {
    const { rig, node, disk } = await set();
    const disabled = await rig.bitmaps.add(node, { name: "off", disabled: true });
    const nameless = rig.bitmaps.createAnonymous(node, { granularity: 512 });
    await disk.truncate(2 * MiB);
    expect([disabled.size, nameless.size]).toEqual([2 * MiB, 2 * MiB]);
    rig.bitmaps.release(nameless);
    expect(rig.bitmaps.list(node)).not.toContain(nameless);
  });

  it.each(["busy", "frozen"])("is refused while a bitmap is %s", async (how) => {
    const { bitmap, disk, node } = await set();
    if (how === "busy") bitmap.setBusy(true);
    else bitmap.createSuccessor();
    expect(await failure(() => disk.truncate(2 * MiB))).toMatchObject({
      code: "EBUSY",
      message: "Bitmap 'x' is currently in use by another operation and cannot be used",
      context: { node: "disk", bitmap: "x" },
    });
    expect([node.size, bitmap.size]).toEqual([MiB, MiB]);
  });

  it("is refused when a bitmap would have too many bits", async () => {
    const { disk, bitmap } = await set(512);
    const error = await failure(() => disk.truncate(2 ** 46));
    expect(error).toMatchObject({ code: "EFBIG", context: { size: 2 ** 46, granularity: 512 } });
    expect(bitmap.size).toBe(MiB);
  });

  it("that was not announced is followed all the same", async () => {
    const { bitmap, node } = await set();
    const successor = bitmap.createSuccessor();
    node.setSize(2 * MiB);
    expect([bitmap.size, successor.size]).toEqual([2 * MiB, 2 * MiB]);
  });

  it("by a write beyond the end marks what was written", async () => {
    const { rig, node, bitmap } = await set();
    const backend = (await rig.graph.createBackend({
      node,
      perm: ["write", "resize"],
      allowBeyondEnd: true,
    })) as unknown as Disk;
    await backend.write(MiB, bytes(65536));
    await settleTurn();
    expect(bitmap.size).toBe(MiB + 65536);
    expect(bitmap.map.nextDirtyArea(0)).toEqual({ offset: MiB, length: 65536 });
  });

  it("by a write beyond the end that fails marks what is inside", async () => {
    const { rig, node, bitmap, driver } = await scripted();
    const backend = (await rig.graph.createBackend({
      node,
      perm: ["write", "resize"],
      allowBeyondEnd: true,
    })) as unknown as Disk;
    driver.failNth("pwrite", 1, "ENOSPC", { persistent: true });
    expect((await failure(() => backend.write(MiB - 512, bytes(65536)))).code).toBe("ENOSPC");
    expect((await failure(() => backend.write(MiB + 65536, bytes(512)))).code).toBe("ENOSPC");
    expect([bitmap.size, bitmap.count, bitmap.map.get(MiB - 1)]).toEqual([MiB, 4096, true]);
  });
});
