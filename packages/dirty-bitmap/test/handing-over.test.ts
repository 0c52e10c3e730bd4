import { ALL_PERMISSIONS } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import { bytes, failure } from "./bitmap-rig.ts";
import type { KeptBitmap } from "./keeping-disk.ts";
import { GROUP, kept, start, stop, stored } from "./stored-rig.ts";

describe("a node that is given up", () => {
  it("stores its bitmaps, has none, and loads what it finds when it comes back", async () => {
    const { rig, node, disk, image } = await start(await stored());
    await disk.write(GROUP, bytes(1));
    const before = rig.bitmaps.lookup("disk", "x");
    await rig.bitmaps.add(node, { name: "passing" });
    await rig.graph.inactivate();
    expect(before.isReleased).toBe(true);
    expect(rig.bitmaps.list(node).map(({ name }) => name)).toEqual(["passing"]);
    expect(kept(image)).toEqual([
      { name: "x", enabled: true, inUse: false },
      { name: "off", enabled: false, inUse: false },
    ]);
    const [x] = image.bitmaps as [KeptBitmap];
    image.bitmaps = [{ ...x, bytes: Uint8Array.of(0x81, 0, 0, 0, 0, 0, 0, 0) }];
    await rig.graph.activate();
    const names = rig.bitmaps.list(node).map(({ name }) => name);
    expect(names).toEqual(["x", "passing"]);
    expect(rig.bitmaps.lookup("disk", "x")).toMatchObject({ count: 2 * GROUP, readonly: false });
    image.log.length = 0;
    await disk.write(GROUP, bytes(1));
    expect(image.log).toEqual(["markInUse x", "pwrite"]);
    await stop(rig, disk);
    expect([...(image.bitmaps[0]?.bytes ?? [])][0]).toBe(0x83);
  });

  it("is given up when storing fails: the bitmaps come back inconsistent", async () => {
    const { rig, disk, image } = await start(await stored());
    await disk.write(GROUP, bytes(1));
    image.fail.add("store");
    await rig.graph.inactivate();
    expect(rig.log).toEqual([
      expect.stringContaining("dirty-bitmap of node 'disk' at its inactivation"),
    ]);
    image.fail.clear();
    await rig.graph.activate();
    expect(rig.bitmaps.lookup("disk", "x").inconsistent).toBe(true);
    expect(rig.bitmaps.lookup("disk", "off").inconsistent).toBe(false);
    await stop(rig, disk);
  });

  it("keeps bitmaps that are being used, which are inconsistent when it comes back", async () => {
    const { rig, disk, image } = await start(await stored());
    await disk.write(GROUP, bytes(1));
    const bitmap = rig.bitmaps.lookup("disk", "x");
    const successor = bitmap.createSuccessor();
    await rig.graph.inactivate();
    expect(bitmap.isReleased).toBe(false);
    await rig.graph.activate();
    expect([bitmap.inconsistent, successor.inconsistent]).toEqual([true, true]);
    bitmap.reclaim();
    await disk.write(0, bytes(1));
    await stop(rig, disk);
    expect(kept(image).map(({ name, inUse }) => [name, inUse])).toContainEqual(["x", true]);
  });

  it("has its bitmaps again, also those in use, when giving it up was refused", async () => {
    const { rig, node, disk, image } = await start(await stored());
    await disk.write(GROUP, bytes(1));
    const bitmap = rig.bitmaps.lookup("disk", "x");
    bitmap.setBusy(true);
    const unwilling = {
      kind: "other",
      describe: () => "export 'e'",
      inactivate: () => {
        throw new Error("not now");
      },
    } as const;
    const root = { name: "root", perm: 0, shared: ALL_PERMISSIONS };
    const edge = await rig.graph.attachRoot(unwilling, node, root);
    await expect(rig.graph.inactivate()).rejects.toThrow("not now");
    await rig.graph.detachRoot(edge);
    expect([bitmap.isReleased, bitmap.inconsistent]).toEqual([false, false]);
    expect(rig.bitmaps.lookup("disk", "off").inconsistent).toBe(false);
    bitmap.setBusy(false);
    image.log.length = 0;
    await disk.write(0, bytes(1));
    expect(image.log).toEqual(["markInUse x", "pwrite"]);
    await stop(rig, disk);
    expect(kept(image).every(({ inUse }) => !inUse)).toBe(true);
  });

  it("is not taken back when the image has a bitmap of a name that is taken", async () => {
    const { rig, node, disk, image } = await start(await stored());
    await rig.bitmaps.add(node, { name: "mine" });
    await rig.graph.inactivate();
    const [x] = image.bitmaps as [KeptBitmap];
    image.bitmaps = [x, { ...x, name: "mine" }];
    const error = await failure(() => rig.graph.activate());
    expect([error.code, error.message]).toEqual(["EEXIST", "Bitmap already exists: mine"]);
    expect(node.active).toBe(false);
    expect(rig.bitmaps.list(node).map(({ name }) => name)).toEqual(["mine"]);
    await rig.bitmaps.remove(node, "mine");
    await rig.graph.activate();
    expect(rig.bitmaps.lookup("disk", "mine").persistent).toBe(true);
    await stop(rig, disk);
  });
});
