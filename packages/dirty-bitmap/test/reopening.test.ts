import { describe, expect, it } from "vitest";
import { bytes, failure, Rig } from "./bitmap-rig.ts";
import type { KeptBitmap } from "./keeping-disk.ts";
import { GROUP, kept, open, start, stop, stored } from "./stored-rig.ts";

describe("a read-only node", () => {
  it("has read-only bitmaps that may be switched but not changed", async () => {
    const { rig } = await start(await stored(), { "read-only": true });
    const bitmap = rig.bitmaps.lookup("disk", "x");
    expect(bitmap.readonly).toBe(true);
    bitmap.disable();
    bitmap.enable();
    expect((await failure(() => bitmap.clear())).code).toBe("EPERM");
    expect((await failure(() => rig.bitmaps.remove("disk", "x"))).code).toBe("EPERM");
  });

  it("loses new persistent bitmaps, and says so", async () => {
    const { rig, node, disk, image } = await start(await stored(), { "read-only": true });
    await rig.bitmaps.add(node, { name: "new", persistent: true });
    const failed: unknown[] = [];
    rig.graph.events.on("closeFailed", ({ error }) => failed.push(error));
    await expect(stop(rig, disk)).rejects.toMatchObject({
      code: "EACCES",
      message: "Lost persistent bitmaps during inactivation of node 'disk': No write access",
    });
    expect(failed.length).toBe(1);
    expect(kept(image).map(({ name }) => name)).toEqual(["x", "off"]);
  });

  it("becomes writable and read-only again with usable bitmaps", async () => {
    const { rig, node, image } = await open(new Rig((await stored()).shelf), { "read-only": true });
    const bitmap = rig.bitmaps.lookup("disk", "x");
    await rig.bitmaps.add(node, { name: "memory-only" });
    await rig.graph.setReadOnly(node, false);
    expect(bitmap.readonly).toBe(false);
    const disk = await rig.backend(node);
    await disk.write(GROUP, bytes(1));
    await disk.close();
    await rig.graph.setReadOnly(node, true);
    expect(bitmap).toMatchObject({ readonly: true, count: 2 * GROUP });
    expect(rig.bitmaps.lookup("disk", "memory-only").readonly).toBe(false);
    expect(kept(image)).toEqual([
      { name: "x", enabled: true, inUse: false },
      { name: "off", enabled: false, inUse: false },
    ]);
    expect([...(image.bitmaps[0]?.bytes ?? [])].slice(0, 2)).toEqual([3, 0]);
    await rig.graph.setReadOnly(node, false);
    const again = await rig.backend(node);
    image.log.length = 0;
    await again.write(0, bytes(1));
    expect(image.log).toEqual(["markInUse x", "pwrite"]);
  });

  it.each(["store", "reopen"])("is not reached when the %s fails", async (what) => {
    const { rig, node, image } = await open(new Rig((await stored()).shelf));
    const bitmap = rig.bitmaps.lookup("disk", "x");
    bitmap.set(GROUP, 1);
    image.fail.add(what);
    await failure(() => rig.graph.setReadOnly(node, true));
    image.fail.clear();
    expect([node.readOnly, bitmap.readonly]).toEqual([false, false]);
    const disk = await rig.backend(node);
    await disk.write(0, bytes(1));
    expect(kept(image)[0]).toMatchObject({ name: "x", inUse: true });
    await stop(rig, disk);
    expect(kept(image).every(({ inUse }) => !inUse)).toBe(true);
  });

  it("does not become writable when the image has other bitmaps by now", async () => {
    const { rig, node, image } = await open(new Rig((await stored()).shelf), { "read-only": true });
    const [x] = image.bitmaps as [KeptBitmap];
    image.bitmaps = [x, { ...x, name: "foreign" }];
    expect(await failure(() => rig.graph.setReadOnly(node, false))).toMatchObject({
      code: "EINVAL",
      message: "Bitmap 'foreign' of node 'disk' has changed in the image since it was loaded",
      context: { node: "disk", bitmap: "foreign" },
    });
    image.bitmaps = [{ ...x, inUse: true }];
    expect((await failure(() => rig.graph.setReadOnly(node, false))).code).toBe("EINVAL");
  });

  it("without bitmaps is reopened without ado", async () => {
    const rig = new Rig();
    const node = await rig.disk("plain", { "read-only": true });
    await rig.graph.setReadOnly(node, false);
    expect(node.readOnly).toBe(false);
  });
});

describe("a manager that was disposed", () => {
  it("takes no part in the nodes' life any more", async () => {
    const { rig, disk, image } = await start(await stored());
    await disk.write(0, bytes(1));
    rig.bitmaps[Symbol.dispose]();
    await stop(rig, disk);
    expect(image.log.some((line) => line.startsWith("store"))).toBe(false);
  });
});
