import { createHash } from "node:crypto";
import type { BitmapUse, DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { bytes, type Disk, failure, MiB, Rig } from "./bitmap-rig.ts";
import { imageOf } from "./keeping-disk.ts";

type State = "busy" | "readonly" | "inconsistent" | "busy and inconsistent" | "free";

const TEXT = {
  EBUSY: "Bitmap 'x' is currently in use by another operation and cannot be used",
  EPERM: "Bitmap 'x' is readonly and cannot be modified",
  EINVAL: "Bitmap 'x' is inconsistent and cannot be used",
} as const;

async function inState(state: State): Promise<{ rig: Rig; bitmap: DirtyBitmap }> {
  const rig = new Rig();
  imageOf(rig.shelf, "img").bitmaps = [
    {
      name: "x",
      granularity: 65536,
      size: MiB,
      enabled: true,
      inUse: state.includes("inconsistent"),
      bytes: new Uint8Array(8),
    },
  ];
  const readOnly = state === "readonly";
  await rig.open({ driver: "keeper", "node-name": "disk", image: "img", "read-only": readOnly });
  const bitmap = rig.bitmaps.lookup("disk", "x");
  if (state.includes("busy")) bitmap.setBusy(true);
  return { rig, bitmap };
}

describe("using a bitmap", () => {
  const rows: { state: State; use: BitmapUse; code: keyof typeof TEXT | undefined }[] = [
    { state: "free", use: "default", code: undefined },
    { state: "free", use: "allow-readonly", code: undefined },
    { state: "free", use: "remove", code: undefined },
    { state: "busy", use: "default", code: "EBUSY" },
    { state: "busy", use: "allow-readonly", code: "EBUSY" },
    { state: "busy", use: "remove", code: "EBUSY" },
    { state: "readonly", use: "default", code: "EPERM" },
    { state: "readonly", use: "allow-readonly", code: undefined },
    { state: "readonly", use: "remove", code: "EPERM" },
    { state: "inconsistent", use: "default", code: "EINVAL" },
    { state: "inconsistent", use: "allow-readonly", code: "EINVAL" },
    { state: "inconsistent", use: "remove", code: undefined },
    { state: "busy and inconsistent", use: "default", code: "EBUSY" },
  ];
  it.each(rows)("for $use is answered with $code while it is $state", async (row) => {
    const { bitmap } = await inState(row.state);
    if (row.code === undefined) {
      bitmap.check(row.use);
      return;
    }
    const error = await failure(() => bitmap.check(row.use));
    expect(error).toMatchObject({
      code: row.code,
      message: TEXT[row.code],
      context: { node: "disk", bitmap: "x" },
    });
    const hint = "Try block-dirty-bitmap-remove to delete this bitmap from disk";
    expect(error.hint).toBe(row.code === "EINVAL" ? hint : undefined);
  });

  type Verb = "clear" | "enable" | "disable" | "remove" | "merge into" | "merge from" | "freeze";
  const verbs: { verb: Verb; busy: string; readonly?: string; inconsistent?: string }[] = [
    { verb: "clear", busy: "EBUSY", readonly: "EPERM", inconsistent: "EINVAL" },
    { verb: "enable", busy: "EBUSY", inconsistent: "EINVAL" },
    { verb: "disable", busy: "EBUSY", inconsistent: "EINVAL" },
    { verb: "remove", busy: "EBUSY", readonly: "EPERM" },
    { verb: "merge into", busy: "EBUSY", readonly: "EPERM", inconsistent: "EINVAL" },
    { verb: "merge from", busy: "EBUSY", inconsistent: "EINVAL" },
    { verb: "freeze", busy: "EBUSY", inconsistent: "EINVAL" },
  ];
  const cases = verbs.flatMap(({ verb, ...codes }) =>
    (["busy", "readonly", "inconsistent"] as const).map((state) => ({
      verb,
      state,
      code: codes[state],
    })),
  );
  it.each(cases)("$verb of a $state one is answered with $code", async ({ verb, state, code }) => {
    const { rig, bitmap } = await inState(state);
    const other = await rig.bitmaps.add("disk", { name: "other", granularity: 65536 });
    const work: Record<Verb, () => unknown> = {
      clear: () => bitmap.clear(),
      enable: () => bitmap.enable(),
      disable: () => bitmap.disable(),
      remove: () => rig.bitmaps.remove("disk", "x"),
      "merge into": () => rig.bitmaps.merge(bitmap, [other]),
      "merge from": () => rig.bitmaps.merge(other, [bitmap]),
      freeze: () => bitmap.createSuccessor(),
    };
    if (code === undefined) await work[verb]();
    else expect((await failure(work[verb])).code).toBe(code);
  });
});

describe("a read-only bitmap", () => {
  it("keeps every write away from its node", async () => {
    const { rig, bitmap } = await inState("free");
    const node = rig.graph.node("disk");
    const disk = await rig.backend(node);
    bitmap.setReadonly(true);
    for (const work of [
      () => disk.write(0, bytes(512)),
      () => disk.writeZeroes(0, 512),
      () => disk.truncate(2 * MiB),
    ]) {
      expect(await failure(work)).toMatchObject({ code: "EPERM", message: TEXT.EPERM });
    }
    expect(node.io.inFlight).toBe(0);
    bitmap.setReadonly(false);
    await disk.write(0, bytes(512));
    expect(bitmap.count).toBe(65536);
  });

  it("is changed by no job", async () => {
    const { bitmap } = await inState("readonly");
    for (const change of [
      () => bitmap.set(0, 1),
      () => bitmap.reset(0, 65536),
      () => bitmap.include(new HBitmap(MiB, 512)),
    ]) {
      expect(change).toThrow("a readonly bitmap is not changed");
    }
  });
});

describe("a frozen bitmap", () => {
  async function frozen(disabled = false): Promise<{
    rig: Rig;
    disk: Disk;
    bitmap: DirtyBitmap;
    successor: DirtyBitmap;
  }> {
    const rig = new Rig();
    const node = await rig.disk();
    const bitmap = await rig.bitmaps.add(node, { name: "x", granularity: 65536 });
    const disk = await rig.backend(node);
    await disk.write(0, bytes(1));
    if (disabled) bitmap.disable();
    return { rig, disk, bitmap, successor: bitmap.createSuccessor() };
  }

  it("keeps its content while its successor records", async () => {
    const { rig, disk, bitmap, successor } = await frozen();
    await disk.write(65536, bytes(1));
    expect([bitmap.count, successor.count]).toEqual([65536, 65536]);
    expect(bitmap).toMatchObject({ enabled: false, recording: true, busy: true });
    expect(bitmap).toMatchObject({ hasSuccessor: true, successor });
    const plain = { persistent: false, granularity: 65536, count: 65536 };
    expect(rig.bitmaps.query(bitmap.node)).toEqual([
      { ...plain, recording: true, busy: false },
      { ...plain, name: "x", recording: true, busy: true },
    ]);
  });

  it("leaves its place to the successor", async () => {
    const { rig, disk, bitmap, successor } = await frozen();
    await disk.write(65536, bytes(1));
    expect(bitmap.abdicate()).toBe(successor);
    expect(bitmap.isReleased).toBe(true);
    expect(rig.bitmaps.list(bitmap.node)).toEqual([successor]);
    expect(rig.bitmaps.lookup("disk", "x")).toBe(successor);
    expect(successor).toMatchObject({ count: 65536, recording: true, busy: false });
    await disk.write(2 * 65536, bytes(1));
    expect(successor.count).toBe(2 * 65536);
  });

  it("takes back what the successor recorded", async () => {
    const { rig, disk, bitmap, successor } = await frozen();
    await disk.write(65536, bytes(1));
    bitmap.reclaim();
    expect(successor.isReleased).toBe(true);
    expect(rig.bitmaps.list(bitmap.node)).toEqual([bitmap]);
    expect(bitmap).toMatchObject({ count: 2 * 65536, enabled: true, busy: false });
    await disk.write(2 * 65536, bytes(1));
    expect(bitmap.count).toBe(3 * 65536);
  });

  it("that was disabled is empty and disabled when it has abdicated", async () => {
    const { disk, bitmap, successor } = await frozen(true);
    await disk.write(65536, bytes(1));
    expect(bitmap.recording).toBe(false);
    expect(bitmap.abdicate()).toMatchObject({ count: 0, enabled: false, name: "x" });
    expect(successor.recording).toBe(false);
  });

  it("that was disabled is disabled when it has reclaimed", async () => {
    const { bitmap } = await frozen(true);
    bitmap.reclaim();
    expect(bitmap).toMatchObject({ count: 65536, enabled: false });
  });

  it("is enabled by its successor when that was enabled meanwhile", async () => {
    const { disk, bitmap, successor } = await frozen(true);
    successor.enable();
    await disk.write(65536, bytes(1));
    bitmap.reclaim();
    expect(bitmap).toMatchObject({ count: 2 * 65536, enabled: true });
  });

  it("is not released, claimed, or frozen twice", async () => {
    const { rig, bitmap, successor } = await frozen();
    expect(() => rig.bitmaps.release(bitmap)).toThrow("released when nobody uses it");
    expect(() => bitmap.setBusy(true)).toThrow("once");
    expect(() => bitmap.setBusy(false)).toThrow("successor");
    expect(() => bitmap.createSuccessor()).toThrow(TEXT.EBUSY);
    expect(() => successor.abdicate()).toThrow("only a frozen bitmap");
    expect(() => successor.reclaim()).toThrow("only a frozen bitmap");
    bitmap.reclaim();
    rig.bitmaps.release(bitmap);
    expect(() => rig.bitmaps.release(bitmap)).toThrow("this manager's");
  });
});

describe("the content of a bitmap", () => {
  it("is changed by the job that uses it", async () => {
    const { bitmap } = await inState("busy");
    bitmap.set(1, 65536);
    expect(bitmap.count).toBe(2 * 65536);
    bitmap.reset(0, 65536);
    expect(bitmap.count).toBe(65536);
    const map = new HBitmap(MiB, 512);
    map.set(MiB - 1, 1);
    bitmap.include(map);
    expect(bitmap.count).toBe(2 * 65536);
    expect(() => bitmap.reset(1, 65536)).toThrow(RangeError);
    expect(() => bitmap.set(MiB, 1)).toThrow(RangeError);
  });

  it.each([
    {
      writes: [],
      hash: "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925",
    },
    {
      writes: [
        [100, 10],
        [99_900, 100],
        [20_000, 1000],
      ],
      hash: "ddc0c105b17bb840daa0003d3a0dbffc25fb1cfde0bb5c9caeb578fe8c9fcc20",
    },
  ])("hashes as observed from the reference after $writes", async ({ writes, hash }) => {
    const rig = new Rig();
    const node = await rig.disk("disk", { size: 100_352 });
    const bitmap = await rig.bitmaps.add(node, { name: "x", granularity: 512 });
    const disk = await rig.backend(node);
    for (const [offset = 0, length = 0] of writes) await disk.write(offset, bytes(length));
    expect(createHash("sha256").update(bitmap.bottomBytes()).digest("hex")).toBe(hash);
  });

  it("is given as the bytes that the reference hashes", async () => {
    const { bitmap } = await inState("free");
    bitmap.set(0, 1);
    bitmap.set(9 * 65536, 1);
    expect([...bitmap.bottomBytes()]).toEqual([1, 2, 0, 0, 0, 0, 0, 0]);
  });
});
