import type { CheckResult } from "@blocklayer/driver";
import { expectBytes, ReferenceDisk, type TestHost } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import type { CheckFinding, Qcow2Driver } from "@blocklayer/qcow2";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { check, Gallery, openForCheck } from "./check-rig.ts";
import { RECIPES, type RecipeName } from "./damages.ts";
import { ImageBytes } from "./image-bytes.ts";
import { contentOf, onDisk, openImageFile } from "./image-rig.ts";
import { hasPeer } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const gallery = new Gallery();
const images = new Map<RecipeName, Uint8Array>();

beforeAll(() => {
  if (!has) return;
  for (const name of Object.keys(RECIPES) as RecipeName[]) {
    images.set(name, ImageBytes.load(gallery.file(gallery.made(name))).bytes);
  }
});
afterAll(() => gallery[Symbol.dispose]());

/** The image of a recipe in memory, changed. */
function disk(
  name: RecipeName,
  change: (image: ImageBytes) => void = () => undefined,
): ReferenceDisk {
  const bytes = (images.get(name) ?? new Uint8Array(0)).slice();
  change(new ImageBytes(bytes));
  return diskOf(bytes);
}

function diskOf(bytes: Uint8Array): ReferenceDisk {
  const made = new ReferenceDisk({ size: bytes.length, growing: true });
  made.bytes.set(bytes);
  return made;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "nothing";
  } catch (error) {
    if (error instanceof BlockError) return error.code;
    throw error;
  }
}

const CLEAN: Partial<CheckResult> = { corruptions: 0, leaks: 0, checkErrors: 0 };
const DIRTY = 1;
const CORRUPT = 2;
const setFeature =
  (bit: number) =>
  (image: ImageBytes): void =>
    image.or64(72, BigInt(bit));

describe.skipIf(!has)("an image that was not closed", () => {
  const hurt = (image: ImageBytes): void => {
    setFeature(DIRTY)(image);
    image.setCount(image.clusterAt(image.entry(0)), 0);
    image.setCount(image.clusterAt(image.entry(1)), 7);
  };

  it("is repaired when it is opened for writing, and is no longer marked then", async () => {
    const path = gallery.file("dirty.qcow2");
    const image = new ImageBytes((images.get("plain") ?? new Uint8Array(0)).slice());
    hurt(image);
    image.save(path);
    const host = await openImageFile(path);
    expect(await host.driver.getInfo?.()).toMatchObject({ isDirty: false });
    await host.driver.pwrite?.(300_000, new Uint8Array(9000).fill(9));
    await host.close();
    expect(gallery.check("dirty.qcow2")).not.toHaveProperty("corruptions");
    expect(gallery.check("dirty.qcow2")).not.toHaveProperty("leaks");
  });

  it("by qemu-io opens here, and one that was not closed here opens there", async () => {
    const path = gallery.create("killed.qcow2", "8M", "lazy_refcounts=on");
    gallery.try("qemu-io", "-c", "write -P 5 0 300k", "-c", "flush", "-c", "abort", path);
    expect(ImageBytes.load(path).u64(72)).toBe(1n);
    const host = await openImageFile(path);
    expect(ImageBytes.load(path).u64(72)).toBe(0n);
    const content = await contentOf(host.driver);
    expect([content[0], content[307_199], content[307_200]]).toEqual([5, 5, 0]);
    content.fill(6, 2_000_000, 3_000_000);
    await host.driver.pwrite?.(2_000_000, content.subarray(2_000_000, 3_000_000));
    await host.driver.flush?.();
    // What a killed process leaves behind.
    ImageBytes.load(path).save(gallery.file("left.qcow2"));
    await host.close();
    expect(ImageBytes.load(gallery.file("left.qcow2")).u64(72)).toBe(1n);
    gallery.run("qemu-img", "check", "-q", "-r", "all", "left.qcow2");
    gallery.run("qemu-img", "compare", "left.qcow2", "killed.qcow2");
    gallery.run("qemu-img", "check", "killed.qcow2");
  });

  it("is left as it is when it is opened read-only", async () => {
    const path = gallery.file("dirty-read-only.qcow2");
    const image = new ImageBytes((images.get("plain") ?? new Uint8Array(0)).slice());
    hurt(image);
    image.save(path);
    const host = await openImageFile(path, { generic: { readOnly: true } });
    expect(await host.driver.getInfo?.()).toMatchObject({ isDirty: true });
    await host.close();
    expect(Buffer.compare(ImageBytes.load(path).bytes, image.bytes)).toBe(0);
  });

  it("cannot be opened for writing if something remains, and says what can be done", async () => {
    const path = gallery.file("dirty-broken.qcow2");
    const image = new ImageBytes((images.get("plain") ?? new Uint8Array(0)).slice());
    hurt(image);
    image.or64(image.l1, 1n << 58n);
    image.save(path);
    const failure = await openImageFile(path).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({
      code: "EIO",
      message: "Could not repair dirty image",
      context: { corruptions: 1, leaks: 0, checkErrors: 0 },
      hint: "open the image read-only, or check it to see what is wrong",
    });
  });
});

describe.skipIf(!has)("an image that is marked as damaged", () => {
  it("is opened for writing only for a check, which takes the mark away when nothing is wrong", async () => {
    const path = gallery.file("corrupt.qcow2");
    const image = new ImageBytes((images.get("plain") ?? new Uint8Array(0)).slice());
    setFeature(CORRUPT)(image);
    image.save(path);
    expect(await codeOf(openImageFile(path))).toBe("EACCES");
    expect(await check(onDisk(path), { repair: "none" })).toMatchObject(CLEAN);
    expect(ImageBytes.load(path).u64(72)).toBe(2n);
    expect(await check(onDisk(path), { repair: "leaks" })).toMatchObject(CLEAN);
    expect(ImageBytes.load(path).u64(72)).toBe(0n);
    await (await openImageFile(path)).close();
  });

  it("stays marked when something remains", async () => {
    const damaged = disk("plain", (image) => {
      setFeature(CORRUPT | DIRTY)(image);
      image.or64(image.l1, 1n << 58n);
    });
    expect(await check(damaged, { repair: "all" })).toMatchObject({ corruptions: 1 });
    expect(new ImageBytes(damaged.bytes).u64(72)).toBe(3n);
  });
});

describe.skipIf(!has)("an image that is open for a check", () => {
  it.each([
    ["pwrite", (host: TestHost) => host.driver.pwrite?.(0, new Uint8Array(512))],
    ["pwriteZeroes", (host: TestHost) => host.driver.pwriteZeroes?.(0, 4096)],
    ["pdiscard", (host: TestHost) => host.driver.pdiscard?.(0, 4096)],
  ] as const)("refuses %s with EPERM", async (_name, write) => {
    const host = await openForCheck(disk("plain"));
    expect(await codeOf(write(host) ?? Promise.resolve())).toBe("EPERM");
    await host.driver.flush?.();
    await host.close();
  });

  it("is not changed by closing it, marked as not closed as it may be", async () => {
    const before = disk("plain", setFeature(DIRTY));
    const bytes = before.bytes.slice();
    await (await openForCheck(before)).close();
    expect(Buffer.compare(before.bytes, bytes)).toBe(0);
  });
});

describe.skipIf(!has)("a check", () => {
  it("of an image in use finds what was written, but not yet flushed, in order", async () => {
    const path = gallery.file("live.qcow2");
    for (const recipe of ["plain", "lazy", "snapshot", "extended", "compressed"] as const) {
      new ImageBytes((images.get(recipe) ?? new Uint8Array(0)).slice()).save(path);
      const host = await openImageFile(path);
      const content = await contentOf(host.driver);
      content.fill(5, 3000, 200_000);
      await host.driver.pwrite?.(3000, content.subarray(3000, 200_000));
      expect(await host.driver.check?.({ repair: "all" })).toMatchObject({
        ...CLEAN,
        leaksFixed: 0,
        corruptionsFixed: 0,
      });
      content.fill(6, 150_000, 400_000);
      await host.driver.pwrite?.(150_000, content.subarray(150_000, 400_000));
      expect(await host.driver.check?.()).toMatchObject(CLEAN);
      expectBytes(await contentOf(host.driver), content, recipe);
      await host.close();
      expect(gallery.check("live.qcow2")).not.toHaveProperty("corruptions");
      expect(gallery.check("live.qcow2")).not.toHaveProperty("leaks");
    }
  });

  it("waits for requests, and requests wait for it", async () => {
    const path = gallery.file("busy.qcow2");
    new ImageBytes((images.get("plain") ?? new Uint8Array(0)).slice()).save(path);
    const host = await openImageFile(path);
    const { driver } = host;
    const content = await contentOf(driver);
    const work: Promise<unknown>[] = [];
    for (let round = 0; round < 8; round += 1) {
      const start = round * 100_000;
      content.fill(round + 1, start, start + 90_000);
      work.push(
        driver.pwrite?.(start, content.subarray(start, start + 90_000)) ?? Promise.resolve(),
      );
      if (round % 3 === 0) work.push(driver.check?.({ repair: "all" }) ?? Promise.resolve());
    }
    const results = await Promise.all(work);
    for (const result of results) {
      if (result !== undefined) expect(result).toMatchObject({ ...CLEAN, leaksFixed: 0 });
    }
    expectBytes(await contentOf(driver), content, "what was written");
    await host.close();
    expect(gallery.check("busy.qcow2")).not.toHaveProperty("corruptions");
    expect(gallery.check("busy.qcow2")).not.toHaveProperty("leaks");
  });

  it("gives space back that nobody uses", async () => {
    const leaking = disk("plain", (image) => image.set64(image.entry(0), 0n));
    const mended = diskOf(leaking.bytes.slice());
    expect(await check(mended, { repair: "leaks" })).toMatchObject({ leaks: 0, leaksFixed: 1 });
    expect(await check(diskOf(mended.bytes))).toMatchObject(CLEAN);
  });

  it.each([
    ["a repair of a read-only image", "EROFS", "plain", () => undefined, true],
    [
      "a repair of leaks where counts are to be rebuilt",
      "EIO",
      "plain",
      (i: ImageBytes) => i.set64(i.refcountTable, 0n),
      false,
    ],
    [
      "a snapshot table at no cluster",
      "EINVAL",
      "snapshot",
      (i: ImageBytes) => i.or64(64, 8n),
      false,
    ],
    [
      "a snapshot table beyond the file",
      "EINVAL",
      "snapshot",
      (i: ImageBytes) => i.set64(64, 1n << 40n),
      false,
    ],
    ["too many snapshots", "EFBIG", "snapshot", (i: ImageBytes) => i.set32(60, 65537), false],
    [
      "too much extra data of a snapshot",
      "EFBIG",
      "snapshot",
      (i: ImageBytes) => i.set32(i.snapshotTable + 36, 1400),
      false,
    ],
  ] as const)("of %s fails with %s", async (_title, code, recipe, change, readOnly) => {
    const host = await openForCheck(disk(recipe, change), readOnly);
    expect(await codeOf(host.driver.check?.({ repair: "leaks" }) ?? Promise.resolve())).toBe(code);
    await host.close();
  });

  it.each([
    ["a snapshot table beyond the file", (i: ImageBytes) => i.set64(64, 1n << 40n), 0],
    ["too many snapshots", (i: ImageBytes) => i.set32(60, 65537), 1],
    [
      "too much extra data of a snapshot",
      (i: ImageBytes) => i.set32(i.snapshotTable + 36, 1400),
      1,
    ],
    ["too little extra data of a snapshot", (i: ImageBytes) => i.set32(i.snapshotTable + 36, 0), 1],
  ] as const)("mends %s", async (_title, change, snapshots) => {
    const damaged = disk("snapshot", change);
    const mended = diskOf(damaged.bytes.slice());
    expect(await check(mended, { repair: "all" })).toMatchObject(CLEAN);
    const image = new ImageBytes(mended.bytes.slice());
    expect(image.u32(60)).toBe(snapshots);
    expect(await check(diskOf(image.bytes))).toMatchObject(CLEAN);
    image.save(gallery.file("mended.qcow2"));
    expect(gallery.check("mended.qcow2")).not.toHaveProperty("corruptions");
    expect(gallery.check("mended.qcow2")).not.toHaveProperty("leaks");
  });

  it("of an image whose bitmap directory cannot be frees nothing", async () => {
    const damaged = disk("bitmap", (image) => {
      image.set64(image.entry(1), 0n);
      const directory = Number(image.u64(image.extension(0x23852875) + 16));
      image.set32(directory + 12, 0x80);
    });
    const found = await check(damaged, { repair: "all" });
    expect(found).toMatchObject({ corruptions: 1, corruptionsFixed: 0, leaksFixed: 0 });
    expect((found as CheckResult).leaks).toBeGreaterThan(1);
  });

  it("of a huge file takes no longer than what is in it", async () => {
    class HugeDisk extends ReferenceDisk {
      override get size(): number {
        return 2 ** 50;
      }
    }
    const { bytes } = disk("blocks");
    const huge = new HugeDisk({ size: bytes.length });
    huge.bytes.set(bytes);
    const expected = await check(diskOf(bytes));
    expect(expected).toMatchObject(CLEAN);
    expect(await check(huge, { windowClusters: 64 })).toEqual(expected);
  });

  it("does not write flags where other metadata is, and tells so", async () => {
    const messages: string[] = [];
    const damaged = disk("small", (image) =>
      image.set64(image.l1 + 8, (1n << 63n) | BigInt(image.l1)),
    );
    const { l1 } = new ImageBytes(damaged.bytes);
    const before = damaged.bytes.slice(l1, l1 + 512);
    const mended = diskOf(damaged.bytes.slice());
    const onFinding = ({ message }: CheckFinding): unknown => messages.push(message);
    const result = (await check(mended, { repair: "all", onFinding })) as CheckResult;
    expect(result.checkErrors).toBeGreaterThan(0);
    expect(result.corruptions).toBeGreaterThan(0);
    expect(messages).toContain(
      "ERROR: writing the L1 table failed: a repair would write over the active-l2",
    );
    expect(Buffer.compare(mended.bytes.subarray(l1, l1 + 512), before)).toBe(0);
  });

  it("tells each finding in the words of qemu-img", async () => {
    const findings: CheckFinding[] = [];
    const damaged = disk("small", (image) => {
      image.setCount(image.clusterAt(image.entry(0)), 2);
      image.or64(image.entry(1), 1n << 58n);
    });
    const host = await openForCheck(damaged, true);
    const driver = host.driver as Qcow2Driver;
    await driver.check({ onFinding: (finding) => findings.push(finding) });
    await host.close();
    expect(findings).toEqual([
      {
        kind: "corruption",
        isFixed: false,
        message: "ERROR found l2 entry with reserved bits set: 8400000000000c00",
      },
      { kind: "leak", isFixed: false, message: "Leaked cluster 5 refcount=2 reference=1" },
      {
        kind: "corruption",
        isFixed: false,
        message: "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00",
      },
    ]);
  });

  it("that is cancelled rejects with the reason, and the image goes on", async () => {
    const host = await openForCheck(disk("plain"), true);
    const reason = new Error("enough");
    const work = host.driver.check?.({ signal: AbortSignal.abort(reason) });
    await expect(work).rejects.toBe(reason);
    expect(await host.driver.check?.()).toMatchObject(CLEAN);
    await host.close();
  });
});
