import { describe, expect, it } from "vitest";
import { failure, KiB, MiB, Rig } from "./bitmap-rig.ts";

describe("adding a bitmap", () => {
  it.each([
    { name: "", code: "EINVAL", message: "Bitmap name cannot be empty" },
    {
      name: "x".repeat(1024),
      code: "EINVAL",
      message: `Bitmap name too long: ${"x".repeat(1024)}`,
    },
    {
      name: "é".repeat(512),
      code: "EINVAL",
      message: `Bitmap name too long: ${"é".repeat(512)}`,
    },
    { name: "taken", code: "EEXIST", message: "Bitmap already exists: taken" },
  ])("is refused with $code: $message", async ({ name, code, message }) => {
    const rig = new Rig();
    const node = await rig.disk();
    await rig.bitmaps.add(node, { name: "taken" });
    const error = await failure(() => rig.bitmaps.add(node, { name }));
    expect(error).toMatchObject({ code, message, context: { bitmap: name } });
    expect(rig.bitmaps.list(node).map((bitmap) => bitmap.name)).toEqual(["taken"]);
  });

  it("takes a name of 1023 bytes", async () => {
    const rig = new Rig();
    const bitmap = await rig.bitmaps.add(await rig.disk(), { name: "x".repeat(1023) });
    expect(bitmap.name?.length).toBe(1023);
  });

  it.each([0, 256, 513, 2 ** 32, 2 ** 32 - 1, -1, 512.5, Number.NaN])(
    "refuses granularity %d",
    async (granularity) => {
      const rig = new Rig();
      const node = await rig.disk();
      const error = await failure(() => rig.bitmaps.add(node, { name: "x", granularity }));
      expect(error).toMatchObject({
        code: "EINVAL",
        message: "Granularity must be power of 2 and at least 512",
        context: { granularity },
      });
    },
  );

  it.each([512, 4096, 2 ** 31])("takes granularity %d", async (granularity) => {
    const rig = new Rig();
    const bitmap = await rig.bitmaps.add(await rig.disk(), { name: "x", granularity });
    expect(bitmap.granularity).toBe(granularity);
  });

  it.each([
    { cluster: 512, expected: 4096 },
    { cluster: 4 * KiB, expected: 4096 },
    { cluster: 64 * KiB, expected: 65536 },
    { cluster: 2 * MiB, expected: 65536 },
  ])("takes granularity $expected for clusters of $cluster", async ({ cluster, expected }) => {
    const rig = new Rig();
    const node = await rig.disk("disk", { "cluster-size": cluster });
    expect((await rig.bitmaps.add(node, { name: "x" })).granularity).toBe(expected);
  });

  it("takes granularity 65536 where the format tells of no clusters", async () => {
    const rig = new Rig();
    const node = await rig.open({
      driver: "x-blocklayer-scripted",
      "node-name": "disk",
      size: MiB,
    });
    expect((await rig.bitmaps.add(node, { name: "x" })).granularity).toBe(65536);
  });

  it("refuses a granularity too fine for the disk", async () => {
    const rig = new Rig();
    const node = await rig.disk("huge", { size: 2 ** 46 });
    const error = await failure(() => rig.bitmaps.add(node, { name: "x", granularity: 512 }));
    expect(error).toMatchObject({ code: "EFBIG", context: { node: "huge", granularity: 512 } });
    const anonymous = await failure(() => rig.bitmaps.createAnonymous(node, { granularity: 512 }));
    expect(anonymous.code).toBe("EFBIG");
  });

  it("looks for the node by name, after a look at the bitmap's", async () => {
    const rig = new Rig();
    await rig.disk();
    expect((await rig.bitmaps.add("disk", { name: "x" })).node.name).toBe("disk");
    const error = await failure(() => rig.bitmaps.add("nope", { name: "x", granularity: 7 }));
    expect(error).toMatchObject({
      code: "ENOENT",
      message: "Cannot find device='nope' nor node-name='nope'",
      context: { node: "nope" },
    });
    expect((await failure(() => rig.bitmaps.add("nope", { name: "" }))).code).toBe("EINVAL");
  });

  it("is refused when the node is closed", async () => {
    const rig = new Rig();
    const node = await rig.disk();
    await rig.graph.remove("disk");
    const error = await failure(() => rig.bitmaps.add(node, { name: "x", granularity: 512 }));
    expect(error).toMatchObject({
      code: "ENOMEDIUM",
      message: "Node 'disk' is closed",
      context: { node: "disk" },
    });
    expect(
      (await failure(() => rig.bitmaps.createAnonymous(node, { granularity: 512 }))).code,
    ).toBe("ENOMEDIUM");
  });

  it("covers the length of the node and begins clean and recording", async () => {
    const rig = new Rig();
    const bitmap = await rig.bitmaps.add(await rig.disk(), { name: "x" });
    expect(bitmap).toMatchObject({ size: MiB, count: 0, enabled: true, recording: true });
    expect(bitmap).toMatchObject({ busy: false, persistent: false, inconsistent: false });
  });
});

describe("finding a bitmap", () => {
  it("names the node or the bitmap that is missing", async () => {
    const rig = new Rig();
    const node = await rig.disk();
    const bitmap = await rig.bitmaps.add(node, { name: "x" });
    expect(rig.bitmaps.lookup("disk", "x")).toBe(bitmap);
    expect(rig.bitmaps.find(node, "x")).toBe(bitmap);
    expect(rig.bitmaps.find(node, "y")).toBeUndefined();
    expect(await failure(() => rig.bitmaps.lookup("nope", "x"))).toMatchObject({
      code: "ENOENT",
      message: "Node 'nope' not found",
      context: { node: "nope" },
    });
    expect(await failure(() => rig.bitmaps.lookup("disk", "y"))).toMatchObject({
      code: "ENOENT",
      message: "Dirty bitmap 'y' not found",
      context: { node: "disk", bitmap: "y" },
    });
  });

  it("lists the newest first and shows what the query shows", async () => {
    const rig = new Rig();
    const node = await rig.disk();
    expect(rig.bitmaps.query(node)).toEqual([]);
    await rig.bitmaps.add(node, { name: "old", granularity: 4096 });
    await rig.bitmaps.add(node, { name: "new", disabled: true });
    rig.bitmaps.createAnonymous(node, { granularity: 512 });
    const plain = { persistent: false, busy: false, count: 0 };
    expect(rig.bitmaps.query(node)).toEqual([
      { ...plain, recording: true, granularity: 512 },
      { ...plain, name: "new", recording: false, granularity: 65536 },
      { ...plain, name: "old", recording: true, granularity: 4096 },
    ]);
  });

  it("keeps the bitmaps of a filter apart from those of its child", async () => {
    const rig = new Rig();
    const disk = await rig.disk();
    const filter = await rig.open({
      driver: "x-blocklayer-pass-through",
      "node-name": "filter",
      file: "disk",
    });
    const below = await rig.bitmaps.add(disk, { name: "x" });
    const above = await rig.bitmaps.add(filter, { name: "x" });
    const backend = await rig.backend(disk);
    await backend.write(0, new Uint8Array(1));
    expect([below.count, above.count]).toEqual([65536, 0]);
    await (await rig.backend(filter)).write(65536, new Uint8Array(1));
    expect([below.count, above.count]).toEqual([2 * 65536, 65536]);
  });
});

describe("removing a bitmap", () => {
  it("forgets it and lets the name be used again", async () => {
    const rig = new Rig();
    const node = await rig.disk();
    const bitmap = await rig.bitmaps.add(node, { name: "x" });
    await rig.bitmaps.remove("disk", "x");
    expect(bitmap.isReleased).toBe(true);
    expect(rig.bitmaps.list(node)).toEqual([]);
    expect(node.observers).toEqual([]);
    await rig.bitmaps.add(node, { name: "x" });
    await rig.bitmaps.remove(node, "x");
    expect(await failure(() => rig.bitmaps.remove(node, "x"))).toMatchObject({
      code: "ENOENT",
      message: "Dirty bitmap 'x' not found",
    });
    expect((await failure(() => rig.bitmaps.merge(bitmap, []))).code).toBe("ENOENT");
  });

  it("is what closing the node does, whatever uses the bitmap", async () => {
    const rig = new Rig();
    const bitmap = await rig.bitmaps.add(await rig.disk(), { name: "x" });
    bitmap.createSuccessor();
    await rig.graph.remove("disk");
    expect(bitmap.isReleased).toBe(true);
  });
});

describe("a bitmap for an export", () => {
  async function exported(): Promise<Rig> {
    const rig = new Rig();
    const base = await rig.disk("base");
    const top = await rig.disk("top", { backing: "base" });
    const filter = await rig.open({
      driver: "x-blocklayer-pass-through",
      "node-name": "filter",
      file: "top",
    });
    await rig.bitmaps.add(base, { name: "low" });
    await rig.bitmaps.add(top, { name: "off", disabled: true });
    await rig.bitmaps.add(filter, { name: "on" });
    return rig;
  }

  it.each([
    { reference: "on", writable: true, at: "filter" },
    { reference: "off", writable: false, at: "top" },
    { reference: "off", writable: true, at: "top" },
    { reference: { node: "base", name: "low" }, writable: false, at: "base" },
    { reference: { node: "filter", name: "on" }, writable: false, at: "filter" },
  ])("$reference is found at $at when writable is $writable", async (row) => {
    const rig = await exported();
    const { reference, writable, at } = row;
    const filter = rig.graph.node("filter");
    expect(rig.bitmaps.forExport(filter, reference, { writable }).node.name).toBe(at);
  });

  it.each([
    {
      reference: "on",
      code: "EINVAL",
      message: "Enabled bitmap 'on' incompatible with readonly export",
    },
    { reference: "nope", code: "ENOENT", message: "Bitmap 'nope' is not found" },
    { reference: { node: "n", name: "x" }, code: "ENOENT", message: "Node 'n' not found" },
    {
      reference: { node: "top", name: "x" },
      code: "ENOENT",
      message: "Dirty bitmap 'x' not found",
    },
  ])("$reference is refused by a readonly export: $message", async (row) => {
    const rig = await exported();
    const filter = rig.graph.node("filter");
    const call = (): unknown => rig.bitmaps.forExport(filter, row.reference, { writable: false });
    expect(await failure(call)).toMatchObject({ code: row.code, message: row.message });
  });

  it("may be enabled on a read-only node", async () => {
    const rig = new Rig();
    const node = await rig.disk("ro", { "read-only": true });
    const bitmap = await rig.bitmaps.add(node, { name: "x" });
    expect(rig.bitmaps.forExport(node, "x", { writable: false })).toBe(bitmap);
  });

  it("is refused while it is busy", async () => {
    const rig = new Rig();
    const node = await rig.disk();
    const bitmap = await rig.bitmaps.add(node, { name: "x" });
    bitmap.setBusy(true);
    const call = (): unknown => rig.bitmaps.forExport(node, "x", { writable: true });
    expect((await failure(call)).code).toBe("EBUSY");
    bitmap.setBusy(false);
    expect(call()).toBe(bitmap);
  });
});
