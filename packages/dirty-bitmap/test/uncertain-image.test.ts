import { BlockError } from "@blocklayer/errors";
import { runTransaction } from "@blocklayer/jobs";
import { describe, expect, it, vi } from "vitest";
import { bytes, failure, Rig } from "./bitmap-rig.ts";
import { GROUP, kept, open, refuse, start, stop, stored } from "./stored-rig.ts";

const busyText = (name: string): string =>
  `Bitmap '${name}' is currently in use by another operation and cannot be used`;

describe("an image whose operation failed", () => {
  it("is told again before the next write when a store may have had its effect", async () => {
    const { rig, node, image } = await open(new Rig((await stored()).shelf));
    const first = await rig.backend(node);
    await first.write(0, bytes(1));
    await first.close();
    image.fail.add("store");
    await failure(() => rig.graph.setReadOnly(node, true));
    image.fail.clear();
    image.log.length = 0;
    const disk = await rig.backend(node);
    await disk.write(GROUP, bytes(1));
    expect(image.log).toEqual(["markInUse off,x", "pwrite"]);
    await stop(rig, disk);
    expect(kept(image).map(({ inUse }) => inUse)).toEqual([false, false]);
  });

  it("stores in the end when a mark may have had its effect", async () => {
    const { rig, disk, image } = await start(await stored());
    image.onOperation = (operation) => {
      if (operation !== "markInUse") return;
      image.bitmaps = image.bitmaps.map((bitmap) => ({ ...bitmap, inUse: true }));
      throw new TypeError("too late");
    };
    await expect(disk.write(0, bytes(1))).rejects.toThrow("too late");
    image.onOperation = () => undefined;
    await stop(rig, disk);
    expect(kept(image)).toEqual([
      { name: "x", enabled: true, inUse: false },
      { name: "off", enabled: false, inUse: false },
    ]);
  });
});

describe("a crash before the first write", () => {
  it("does not bring back a bitmap switched off that was switched on", async () => {
    const crashed = await start(await stored());
    const { bitmaps } = crashed.rig;
    await runTransaction([bitmaps.enableStep({ node: "disk", name: "off" })]);
    expect(crashed.image.log).toContain("markInUse off");
    const { rig } = await start(crashed.rig);
    expect(rig.bitmaps.lookup("disk", "off").inconsistent).toBe(true);
  });

  it("brings back a bitmap that was to be enabled when the image refused", async () => {
    const { rig, image } = await start(await stored());
    const { bitmaps } = rig;
    image.fail.add("markInUse");
    const step = bitmaps.enableStep({ node: "disk", name: "off" });
    expect((await failure(() => runTransaction([step]))).code).toBe("ENOSPC");
    expect(bitmaps.lookup("disk", "off").enabled).toBe(false);
  });

  it("is no matter to a bitmap that somebody uses by the time it is marked", async () => {
    const { rig, image } = await start(await stored());
    const { bitmaps } = rig;
    const off = bitmaps.lookup("disk", "off");
    image.onOperation = (operation) => {
      if (operation === "markInUse") off.setBusy(true);
    };
    const step = bitmaps.enableStep(off);
    expect((await failure(() => runTransaction([step]))).code).toBe("EBUSY");
    expect(off.enabled).toBe(false);
    image.onOperation = () => undefined;
  });
});

describe("a bitmap that is another one by the time it is marked", () => {
  const off = { node: "disk", name: "off" };
  const x = { node: "disk", name: "x" };

  it.each([
    ["enabled", "removed", "ENOENT", "Dirty bitmap 'off' not found"],
    ["enabled", "replaced", "EBUSY", busyText("off")],
    ["merged into", "removed", "ENOENT", "Dirty bitmap 'off' not found"],
    ["merged into", "replaced", "EBUSY", busyText("off")],
  ])("is not %s: %s", async (use, change, code, message) => {
    const { rig, node, image } = await start(await stored());
    const { bitmaps } = rig;
    const old = bitmaps.lookup("disk", "off");
    const marked = Promise.withResolvers<void>();
    image.onOperation = (operation) => (operation === "markInUse" ? marked.promise : undefined);
    const step = use === "enabled" ? bitmaps.enableStep(off) : bitmaps.mergeStep(off, [x]);
    const outcome = failure(() => runTransaction([step]));
    await Promise.resolve();
    await bitmaps.remove("disk", "off");
    const added =
      change === "replaced" ? await bitmaps.add(node, { name: "off", disabled: true }) : undefined;
    marked.resolve();
    expect(await outcome).toMatchObject({
      code,
      message,
      context: { node: "disk", bitmap: "off" },
    });
    expect([old.isReleased, old.enabled]).toEqual([true, false]);
    expect([added?.enabled ?? false, added?.count ?? 0]).toEqual([false, 0]);
  });

  it("is not changed by its object either", async () => {
    const { rig, image } = await start(await stored());
    const { bitmaps } = rig;
    const old = bitmaps.lookup("disk", "off");
    image.onOperation = async (operation) => {
      if (operation === "markInUse") await bitmaps.remove("disk", "off");
    };
    const error = await failure(() => runTransaction([bitmaps.mergeStep(old, [x])]));
    expect(error).toMatchObject({ code: "ENOENT", context: { node: "disk", bitmap: "off" } });
  });

  it("leaves nothing that records when its step fails in the end", async () => {
    const { rig } = await start(await stored());
    const { bitmaps } = rig;
    let held = 0;
    const recordLike = bitmaps.recordLike.bind(bitmaps);
    vi.spyOn(bitmaps, "recordLike").mockImplementation((like, map) =>
      recordLike(like, map).map((hold) => {
        held += 1;
        return {
          [Symbol.dispose]: () => {
            held -= 1;
            hold[Symbol.dispose]();
          },
        };
      }),
    );
    let heldMost = 0;
    vi.spyOn(bitmaps, "homeOf").mockImplementation(() => {
      heldMost = held;
      throw new BlockError("EIO", "injected");
    });
    await expect(runTransaction([bitmaps.mergeStep(off, [x])])).rejects.toThrow("injected");
    expect([heldMost, held]).toEqual([1, 0]);
  });
});

describe("an inconsistent bitmap", () => {
  it("is not removed from a read-only image", async () => {
    const crashed = await start(await stored());
    await crashed.disk.write(0, bytes(1));
    const { rig, node, image } = await open(new Rig(crashed.rig.shelf), { "read-only": true });
    expect(await failure(() => rig.bitmaps.remove("disk", "x"))).toMatchObject({
      code: "EPERM",
      message: "Bitmap 'x' is readonly and cannot be modified",
    });
    await rig.graph.setReadOnly(node, false);
    await rig.bitmaps.remove("disk", "x");
    expect(kept(image).map(({ name }) => name)).toEqual(["off"]);
  });

  it("keeps its place in the image when its removal is taken back", async () => {
    const crashed = await start(await stored());
    await crashed.disk.write(0, bytes(1));
    const { rig, disk, image } = await start(crashed.rig);
    const steps = [rig.bitmaps.removeStep({ node: "disk", name: "x" }), refuse()];
    await expect(runTransaction(steps)).rejects.toThrow("refused");
    expect(kept(image).map(({ name }) => name)).toEqual(["off"]);
    await stop(rig, disk);
    expect(kept(image)).toEqual([
      { name: "x", enabled: false, inUse: true },
      { name: "off", enabled: false, inUse: false },
    ]);
  });
});
