import { runTransaction } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { bytes, failure, MiB, Rig } from "./bitmap-rig.ts";
import { imageOf, type KeptBitmap } from "./keeping-disk.ts";
import { GROUP, kept, open, refuse, start, stop, stored } from "./stored-rig.ts";

describe("a persistent bitmap", () => {
  it("is refused where the image keeps none", async () => {
    const rig = new Rig();
    const node = await rig.disk();
    const call = (): unknown => rig.bitmaps.add(node, { name: "x", persistent: true });
    expect(await failure(call)).toMatchObject({
      code: "ENOTSUP",
      message: "Can't store persistent bitmaps to disk: Operation not supported",
      context: { node: "disk", bitmap: "x" },
    });
    expect(rig.bitmaps.list(node)).toEqual([]);
  });

  it("is refused with what the image has against it", async () => {
    const { rig, node, image } = await start();
    image.fail.add("canStore");
    const call = (): unknown => rig.bitmaps.add(node, { name: "x", persistent: true });
    expect(await failure(call)).toMatchObject({
      code: "ENOSPC",
      message: "Can't make bitmap 'x' persistent in 'disk': canStore failed",
      context: { node: "disk", bitmap: "x" },
    });
    image.fail.clear();
    image.onOperation = () => {
      throw new TypeError("a defect");
    };
    await expect(rig.bitmaps.add(node, { name: "x", persistent: true })).rejects.toThrow(TypeError);
  });

  it("is added once when two ask for its name at a time", async () => {
    const { rig, node } = await start();
    const options = { name: "x", persistent: true, granularity: 4096 };
    const both = [rig.bitmaps.add(node, options), rig.bitmaps.add(node, options)];
    const outcomes = await Promise.allSettled(both);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect(rig.bitmaps.list(node).length).toBe(1);
  });

  it("comes back with content and state after a clean end", async () => {
    const before = await stored();
    const { rig, node } = await start(before);
    const plain = { persistent: true, busy: false };
    expect(rig.bitmaps.query(node)).toEqual([
      { ...plain, name: "off", recording: false, granularity: 512, count: 512 },
      { ...plain, name: "x", recording: true, granularity: GROUP, count: GROUP },
    ]);
    expect(rig.bitmaps.lookup("disk", "off").map.get(1024)).toBe(true);
  });

  it("is not stored again when nothing has changed", async () => {
    const { rig, disk, image } = await start(await stored());
    await disk.read(0, bytes(1));
    await stop(rig, disk);
    expect(image.log).toEqual(["list", "load x", "load off"]);
  });

  it.each([
    { change: "enable", of: "off" },
    { change: "disable", of: "x" },
    { change: "clear", of: "x" },
    { change: "set", of: "x" },
    { change: "freeze and thaw", of: "x" },
  ])("is stored again after a $change", async ({ change, of }) => {
    const { rig, disk, image } = await start(await stored());
    const bitmap = rig.bitmaps.lookup("disk", of);
    if (change === "enable") bitmap.enable();
    if (change === "disable") bitmap.disable();
    if (change === "clear") bitmap.clear();
    if (change === "set") bitmap.set(MiB - 1, 1);
    if (change === "freeze and thaw") {
      bitmap.createSuccessor();
      bitmap.abdicate();
    }
    const expected = rig.bitmaps.query(bitmap.node).toReversed();
    await stop(rig, disk);
    expect(image.log.at(-1)).toMatch(/^store/);
    const again = await start(rig);
    const found = again.rig.bitmaps.query(again.node).toReversed();
    const byName = (list: typeof found): unknown => new Map(list.map((row) => [row.name, row]));
    expect(byName(found)).toEqual(byName(expected));
  });

  it("goes to the image in parts and comes back from it", async () => {
    const { rig, node, disk } = await start(undefined, { size: 2 ** 30 });
    const bitmap = await rig.bitmaps.add(node, { name: "x", persistent: true, granularity: 512 });
    const marks = [0, 2 ** 28 - 1, 2 ** 28, 2 ** 29 + 12345, 2 ** 30 - 1];
    for (const mark of marks) bitmap.set(mark, 1);
    const expected = bitmap.bottomBytes();
    await stop(rig, disk);
    const again = await start(rig, { size: 2 ** 30 });
    expect(again.rig.bitmaps.lookup("disk", "x").bottomBytes()).toEqual(expected);
  });

  it("is stored with what was written since it was frozen", async () => {
    const { rig, node, disk, image } = await start();
    const bitmap = await rig.bitmaps.add(node, { name: "x", persistent: true });
    await disk.write(0, bytes(1));
    bitmap.createSuccessor();
    await disk.write(GROUP, bytes(1));
    await stop(rig, disk);
    expect(image.bitmaps[0]).toMatchObject({ name: "x", enabled: true, inUse: false });
    expect([...(image.bitmaps[0]?.bytes ?? [])]).toEqual([3, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe("the image", () => {
  it("is told before the first write, once, that its copies are in use", async () => {
    const { disk, image } = await start(await stored());
    image.log.length = 0;
    await Promise.all([disk.write(0, bytes(1)), disk.write(GROUP, bytes(1))]);
    await disk.write(2 * GROUP, bytes(1));
    expect(image.log).toEqual(["markInUse x", "pwrite", "pwrite", "pwrite"]);
    expect(kept(image).map(({ inUse }) => inUse)).toEqual([true, false]);
  });

  it.each([
    { change: "nothing", marks: "markInUse x" },
    { change: "enable", marks: "markInUse off,x" },
    { change: "set", marks: "markInUse off,x" },
    { change: "freeze", marks: "markInUse x" },
  ])("is told that a disabled bitmap is in use after $change: $marks", async (row) => {
    const { rig, disk, image } = await start(await stored());
    const off = rig.bitmaps.lookup("disk", "off");
    if (row.change === "enable") off.enable();
    if (row.change === "set") off.set(0, 1);
    if (row.change === "freeze") rig.bitmaps.lookup("disk", "x").createSuccessor();
    await disk.write(0, bytes(1));
    expect(image.log.filter((line) => line.startsWith("mark"))).toEqual([row.marks]);
  });

  it("is told again when a bitmap is enabled while the mark is on its way", async () => {
    const { rig, disk, image } = await start(await stored());
    const off = rig.bitmaps.lookup("disk", "off");
    image.onOperation = (operation) => {
      if (operation === "markInUse") off.enable();
    };
    await disk.write(0, bytes(1));
    expect(image.log.slice(-3)).toEqual(["markInUse x", "markInUse off", "pwrite"]);
  });

  it("refuses writes while it cannot take the mark", async () => {
    const { rig, disk, image } = await start(await stored());
    image.fail.add("markInUse");
    const writes = await Promise.allSettled([disk.write(GROUP, bytes(1)), disk.write(0, bytes(1))]);
    expect(writes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(image.log).not.toContain("pwrite");
    image.onOperation = () => {
      throw new TypeError("at once");
    };
    await expect(disk.write(GROUP, bytes(1))).rejects.toThrow("at once");
    image.onOperation = () => undefined;
    image.fail.clear();
    await disk.write(GROUP, bytes(1));
    expect(rig.bitmaps.lookup("disk", "x").count).toBe(2 * GROUP);
  });

  it.each(["resize", "merge", "invalidate"])("is told before a %s", async (what) => {
    const { rig, disk, image } = await start(await stored());
    const bitmap = rig.bitmaps.lookup("disk", "x");
    if (what === "resize") await disk.truncate(2 * MiB);
    else if (what === "merge") await rig.bitmaps.merge(bitmap, []);
    else await bitmap.invalidateStored();
    expect(image.log).toContain(what === "resize" ? "markInUse off,x" : "markInUse x");
    await bitmap.invalidateStored();
    expect(image.log.filter((line) => line.startsWith("markInUse")).length).toBe(1);
  });

  it("brings back an inconsistent bitmap after a crash, and a disabled one as it was", async () => {
    const crashed = await start(await stored());
    await crashed.disk.write(GROUP, bytes(1));
    const { rig, node, disk, image } = await start(crashed.rig);
    const plain = { persistent: true, busy: false, recording: false };
    expect(rig.bitmaps.query(node)).toEqual([
      { ...plain, name: "off", granularity: 512, count: 512 },
      { ...plain, name: "x", granularity: GROUP, count: 0, inconsistent: true },
    ]);
    await disk.write(0, bytes(1));
    expect(rig.bitmaps.lookup("disk", "x").count).toBe(0);
    expect((await failure(() => disk.truncate(2 * MiB))).code).toBe("EINVAL");
    await rig.bitmaps.remove("disk", "x");
    expect(kept(image).map(({ name }) => name)).toEqual(["off"]);
    await stop(rig, disk);
    expect(image.log).not.toContain("store off");
  });

  it("brings back a good bitmap after a crash before the first write", async () => {
    const crashed = await start(await stored());
    crashed.rig.bitmaps.lookup("disk", "x").clear();
    const { rig } = await start(crashed.rig);
    expect(rig.bitmaps.lookup("disk", "x")).toMatchObject({ count: GROUP, inconsistent: false });
  });

  it("keeps inconsistent bitmaps as they are beside new ones", async () => {
    const crashed = await start(await stored());
    await crashed.disk.write(GROUP, bytes(1));
    const { rig, node, disk, image } = await start(crashed.rig);
    await rig.bitmaps.add(node, { name: "new", persistent: true });
    await stop(rig, disk);
    expect(kept(image)).toEqual([
      { name: "x", enabled: false, inUse: true },
      { name: "off", enabled: false, inUse: false },
      { name: "new", enabled: true, inUse: false },
    ]);
  });

  it("that fails to store leaves its copies in use, and the node closes", async () => {
    const { rig, disk, image } = await start(await stored());
    await disk.write(GROUP, bytes(1));
    image.fail.add("store");
    await expect(stop(rig, disk)).rejects.toMatchObject({ code: "ENOSPC" });
    expect(rig.graph.nodes()).toEqual([]);
    expect(kept(image).map(({ inUse }) => inUse)).toEqual([true, false]);
  });

  it.each([
    { fault: "the list", code: "ENOSPC", message: "list failed" },
    { fault: "a content", code: "ENOSPC", message: "load failed" },
    {
      fault: "a size",
      code: "EIO",
      message: "stored bitmap 'off' covers 4096 bytes, the node has 1048576",
    },
    {
      fault: "a short content",
      code: "EIO",
      message: "stored bitmap 'off' has 8 bytes instead of 256",
    },
  ])("with a fault in $fault is not opened", async ({ fault, code, message }) => {
    const rig = new Rig((await stored()).shelf);
    const image = imageOf(rig.shelf, "i");
    const [x, off] = image.bitmaps as [KeptBitmap, KeptBitmap];
    if (fault === "the list") image.fail.add("list");
    if (fault === "a content") image.fail.add("load");
    if (fault === "a size") image.bitmaps = [x, { ...off, size: 4096 }];
    if (fault === "a short content") image.bitmaps = [x, { ...off, bytes: new Uint8Array(8) }];
    expect(await failure(() => open(rig))).toMatchObject({ code, message });
    expect(rig.graph.nodes()).toEqual([]);
  });

  it("with a bitmap in use under a name that is there already keeps the one that is there", async () => {
    const rig = await stored();
    const image = imageOf(rig.shelf, "i");
    const [x] = image.bitmaps as [KeptBitmap];
    image.bitmaps = [x, { ...x, inUse: true }];
    const opened = await start(rig);
    expect(opened.rig.bitmaps.query(opened.node).map(({ name }) => name)).toEqual(["x"]);
  });
});

describe("removing a persistent bitmap", () => {
  it("removes it from the image", async () => {
    const { rig, disk, image } = await start(await stored());
    await rig.bitmaps.remove("disk", "x");
    expect(kept(image).map(({ name }) => name)).toEqual(["off"]);
    await disk.write(0, bytes(1));
    expect(image.log.filter((line) => line.startsWith("mark"))).toEqual([]);
  });

  it("leaves it when the image fails", async () => {
    const { rig, image } = await start(await stored());
    image.fail.add("remove");
    expect((await failure(() => rig.bitmaps.remove("disk", "x"))).code).toBe("ENOSPC");
    expect(rig.bitmaps.lookup("disk", "x")).toMatchObject({ busy: false, isStored: true });
  });

  it("keeps others away while the image is changed", async () => {
    const { rig, image } = await start(await stored());
    const seen: string[] = [];
    image.onOperation = async (operation) => {
      if (operation !== "remove") return;
      seen.push((await failure(() => rig.bitmaps.lookup("disk", "x").clear())).code);
    };
    await rig.bitmaps.remove("disk", "x");
    expect(seen).toEqual(["EBUSY"]);
  });

  it("that was taken back is followed by storing it again", async () => {
    const { rig, disk, image } = await start(await stored());
    const step = rig.bitmaps.removeStep({ node: "disk", name: "x" });
    await expect(runTransaction([step, refuse()])).rejects.toThrow("refused");
    expect(kept(image).map(({ name }) => name)).toEqual(["off"]);
    await stop(rig, disk);
    expect(image.bitmaps.map(({ name, inUse }) => [name, inUse])).toEqual([
      ["x", false],
      ["off", false],
    ]);
  });

  it("is not undone by a store while it is under way", async () => {
    const { rig, node, disk, image } = await start(await stored());
    await disk.write(0, bytes(1));
    await disk.close();
    const step = rig.bitmaps.removeStep({ node: "disk", name: "x" });
    await runTransaction([step, { prepare: () => rig.graph.setReadOnly(node, true) }]);
    expect(kept(image).map(({ name }) => name)).toEqual(["off"]);
  });
});
