import { RequestFlag } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import {
  autoclearOf,
  bitmap,
  bitmapsOf,
  directoryOffsetOf,
  failure,
  fileOf,
  heldBy,
  MIB,
  tableOffsetOf,
} from "./bitmap-rig.ts";
import { openImageFile } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");

/** A shop with an image that has a bitmap that records, one that does not, and one that is in use. */
async function shopWithBitmaps(options = "cluster_size=4k"): Promise<Workshop> {
  const shop = new Workshop();
  const host = await openImageFile(shop.create("a.qcow2", MIB, options));
  await bitmapsOf(host.driver).store([
    bitmap("on", [1]),
    bitmap("off", [2], { enabled: false }),
    bitmap("lost", [3], { inUse: true }),
  ]);
  await host.close();
  return shop;
}

function expectClean(shop: Workshop): void {
  const found = shop.check("a.qcow2");
  expect(found).not.toHaveProperty("corruptions");
  expect(found).not.toHaveProperty("leaks");
}

describe.skipIf(!has)("a change of the disk", () => {
  it.each<
    readonly [string, (disk: Awaited<ReturnType<typeof openImageFile>>["driver"]) => unknown]
  >([
    ["a write", (disk) => disk.pwrite?.(0, new Uint8Array(512))],
    ["a write of zeroes", (disk) => disk.pwriteZeroes?.(0, 512)],
    ["a discard", (disk) => disk.pdiscard?.(0, 4096)],
    ["dropping everything", (disk) => disk.makeEmpty?.()],
  ])("%s makes bitmaps inconsistent that record and that nobody keeps", async (_title, change) => {
    using shop = await shopWithBitmaps();
    const host = await openImageFile(shop.file("a.qcow2"));
    await change(host.driver);
    expect(await heldBy(host.driver)).toEqual({ on: "in use", off: [2], lost: "in use" });
    await host.close();
    expectClean(shop);
  });

  it("that is none leaves them alone", async () => {
    using shop = await shopWithBitmaps();
    shop.io("a.qcow2", "write 64k 4k");
    const host = await openImageFile(shop.file("a.qcow2"));
    const { driver } = host;
    const content = new Uint8Array(4096);
    await driver.pread(65536, content);
    await driver.pwrite?.(65536, content, { flags: RequestFlag.writeUnchanged });
    await driver.snapshots?.create({
      name: "s",
      vmStateSize: 0,
      dateMs: 0,
      vmClockNs: 0,
      diskSize: MIB,
    });
    await driver.check?.({ repair: "all" });
    expect(await heldBy(driver)).toEqual({ on: [1], off: [2], lost: "in use" });
    expect(await failure(driver.snapshots?.apply("s") ?? Promise.resolve())).toEqual([
      "ENOTSUP",
      "Device has active dirty bitmaps",
    ]);
    await host.close();
    expectClean(shop);
  });

  it("writes no mark when they are marked already, and looks again after they were stored", async () => {
    using shop = await shopWithBitmaps();
    const host = await openImageFile(shop.file("a.qcow2"));
    const storage = bitmapsOf(host.driver);
    await storage.markInUse(["on", "nobody"]);
    await storage.markInUse(["on"]);
    await host.driver.pwrite?.(0, new Uint8Array(512).fill(1));
    expect(await heldBy(host.driver)).toEqual({ on: "in use", off: [2], lost: "in use" });
    await storage.store([bitmap("on", [0]), bitmap("lost", [], { inUse: true })]);
    expect(await heldBy(host.driver)).toEqual({ on: [0], lost: "in use" });
    await host.driver.pwrite?.(0, new Uint8Array(512).fill(2));
    expect(await heldBy(host.driver)).toEqual({ on: "in use", lost: "in use" });
    await host.close();
    expectClean(shop);
  });

  it("drops all of them when their directory cannot be understood", async () => {
    using shop = await shopWithBitmaps();
    const path = shop.file("a.qcow2");
    const host = await openImageFile(path);
    const file = fileOf(host);
    await file.pwrite((await directoryOffsetOf(file)) + 16, Uint8Array.of(9));
    expect((await failure(bitmapsOf(host.driver).list()))[0]).toBe("EINVAL");
    await host.driver.pwrite?.(0, new Uint8Array(512));
    expect(await bitmapsOf(host.driver).list()).toEqual([]);
    expect(host.warnings).toEqual([
      expect.stringContaining("the bitmaps of the image are dropped"),
    ]);
    expect(await autoclearOf(file)).toBe(0);
    await bitmapsOf(host.driver).store([bitmap("new", [4])]);
    expect(await heldBy(host.driver)).toEqual({ new: [4] });
    await host.close();
    expect(shop.check("a.qcow2")).not.toHaveProperty("corruptions");
  });
});

describe.skipIf(!has)("an image that a program without bitmaps has written", () => {
  it("has none, says so, and takes new ones", async () => {
    using shop = await shopWithBitmaps();
    const path = shop.file("a.qcow2");
    const first = await openImageFile(path);
    await fileOf(first).pwrite(88, new Uint8Array(8));
    await first.close();
    const host = await openImageFile(path);
    expect(host.warnings).toEqual([
      "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent",
    ]);
    expect(await bitmapsOf(host.driver).list()).toEqual([]);
    await host.driver.truncate?.(2 * MIB);
    await bitmapsOf(host.driver).store([bitmap("new", [20], { size: 2 * MIB })]);
    await host.driver.check?.({ repair: "leaks" });
    expect(await heldBy(host.driver)).toEqual({ new: [20] });
    await host.close();
    expectClean(shop);
  });
});

describe.skipIf(!has)("a resize", () => {
  it("is done when all bitmaps are kept, and the next store has the new size", async () => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB, "cluster_size=512"));
    const { driver } = host;
    const storage = bitmapsOf(driver);
    await storage.store([bitmap("x", [1], { granularity: 512 })]);
    await storage.markInUse(["x"]);
    await driver.truncate?.(8 * MIB);
    expect(await heldBy(driver)).toEqual({ x: "in use" });
    await storage.store([bitmap("x", [1, 16383], { granularity: 512, size: 8 * MIB })]);
    expect(await heldBy(driver)).toEqual({ x: [1, 16383] });
    await host.close();
    expectClean(shop);
  });

  it.each<readonly [string, readonly string[], string]>([
    [
      "is not loaded",
      [],
      "Bitmap 'on' is stored in the image and not loaded: the image cannot be resized",
    ],
    ["is inconsistent", ["on", "off"], "Bitmap 'lost' is inconsistent and cannot be used"],
  ])("is refused while a bitmap %s", async (_title, marked, message) => {
    using shop = await shopWithBitmaps();
    const host = await openImageFile(shop.file("a.qcow2"));
    const { driver } = host;
    await bitmapsOf(driver).markInUse(marked);
    const held = await heldBy(driver);
    expect(await failure(driver.truncate?.(2 * MIB) ?? Promise.resolve())).toEqual([
      "ENOTSUP",
      message,
    ]);
    expect(await failure(driver.amend?.({ size: 2 * MIB }) ?? Promise.resolve())).toEqual([
      "ENOTSUP",
      message,
    ]);
    expect([driver.size, await heldBy(driver)]).toEqual([MIB, held]);
    await host.close();
    expectClean(shop);
  });
});

describe.skipIf(!has)("an image that was given up", () => {
  it("has other bitmaps when it comes back, and none is kept", async () => {
    using shop = await shopWithBitmaps();
    const host = await openImageFile(shop.file("a.qcow2"));
    const { driver } = host;
    const storage = bitmapsOf(driver);
    await storage.markInUse(["on"]);
    await storage.remove("lost");
    await driver.inactivate?.();
    expect((await failure(storage.store([])))[0]).toBe("EPERM");
    shop.run("qemu-img", "bitmap", "--remove", "a.qcow2", "off");
    shop.run("qemu-img", "bitmap", "--add", "-g", "65536", "a.qcow2", "theirs");
    await driver.activate?.();
    expect(await heldBy(driver)).toEqual({ on: "in use", theirs: [] });
    expect((await failure(driver.truncate?.(2 * MIB) ?? Promise.resolve()))[1]).toContain("'on'");
    await host.close();
    expectClean(shop);
  });
});

describe.skipIf(!has)("a damaged table", () => {
  it.each<readonly [string, readonly number[]]>([
    ["a reserved bit", [0, 0, 0, 0, 0, 0, 0, 2]],
    ["a reserved bit at the top", [1, 0, 0, 0, 0, 0, 0, 0]],
    ["a place between clusters", [0, 0, 0, 0, 0, 0, 0x12, 0]],
    ["a place beyond the file", [0, 0, 0xff, 0, 0, 0, 0, 0]],
    ["a place and all ones", [0, 0, 0, 0, 0, 0, 0x10, 1]],
  ])("with %s fails the load; what it refers to is leaked, not freed", async (_title, entry) => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB, "cluster_size=4k"));
    const storage = bitmapsOf(host.driver);
    await storage.store([bitmap("x", [1])]);
    const table = await tableOffsetOf(fileOf(host));
    await fileOf(host).pwrite(table, Uint8Array.from(entry));
    const content = await storage.load("x");
    expect(await failure(Promise.resolve(content.read(0, 8)))).toEqual([
      "EIO",
      "entry 0 of the table of bitmap 'x' is damaged",
    ]);
    await storage.remove("x");
    expect(host.warnings).toEqual([expect.stringContaining("clusters of bitmap 'x' are leaked")]);
    await host.close();
    const { corruptions, leaks } = shop.check("a.qcow2");
    expect([corruptions, leaks]).toEqual([undefined, 2]);
  });

  it("that refers to other metadata frees nothing of it", async () => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB, "cluster_size=4k"));
    const storage = bitmapsOf(host.driver);
    await storage.store([bitmap("x", [1])]);
    const file = fileOf(host);
    const table = await tableOffsetOf(file);
    const l1 = new Uint8Array(8);
    await file.pread(40, l1);
    await file.pwrite(table, l1);
    await storage.store([bitmap("y", [2])]);
    await host.driver.pwrite?.(0, new Uint8Array(MIB).fill(1));
    await host.close();
    expect(shop.check("a.qcow2")).not.toHaveProperty("corruptions");
  });
});

describe.skipIf(!has)("a store that fails", () => {
  it("leaves the old bitmaps, and gives back what it took", async () => {
    using shop = await shopWithBitmaps();
    const host = await openImageFile(shop.file("a.qcow2"));
    const storage = bitmapsOf(host.driver);
    const before = shop.check("a.qcow2")["allocated-clusters"];
    const broken = bitmap("new", [1], { granularity: 512 });
    const read = (): never => {
      throw new Error("no content");
    };
    const given = [bitmap("on", [5]), { ...broken, content: { ...broken.content, read } }];
    await expect(storage.store(given)).rejects.toThrow("no content");
    expect(await heldBy(host.driver)).toEqual({ on: [1], off: [2], lost: "in use" });
    await host.driver.flush?.();
    await host.close();
    expectClean(shop);
    expect(shop.check("a.qcow2")["allocated-clusters"]).toBe(before);
  });
});
