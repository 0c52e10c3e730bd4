import type { RepairMode } from "@blocklayer/driver";
import { expectBytes } from "@blocklayer/driver-tests";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { type Counts, check, countsOf, Gallery, readable } from "./check-rig.ts";
import { DAMAGES, type Found, RECIPES, type RecipeName } from "./damages.ts";
import { COMPRESSED, COPIED, ImageBytes } from "./image-bytes.ts";
import { onDisk } from "./image-rig.ts";
import { hasPeer } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const gallery = new Gallery();
afterAll(() => gallery[Symbol.dispose]());

async function checked(name: string, repair: RepairMode): Promise<Counts | string> {
  const result = await check(onDisk(gallery.file(name)), { repair });
  return typeof result === "string" ? result : countsOf(result);
}

/** Images of all kinds; what is done to them is the same. */
const FAMILY: readonly string[] = [
  ...["512", "4k", "64k", "2M"].flatMap((size) =>
    ["1", "8", "64"].map((bits) => `cluster_size=${size},refcount_bits=${bits}`),
  ),
  ...["512", "64k"].map((size) => `cluster_size=${size},compat=0.10`),
  ...["16k", "64k"].map((size) => `cluster_size=${size},extended_l2=on,refcount_bits=32`),
  "lazy_refcounts=on",
  "compression_type=zstd,refcount_bits=4",
  "cluster_size=4k,preallocation=metadata",
];

const GENERAL: readonly (readonly [string, (image: ImageBytes) => void])[] = [
  ["no counts", (image) => image.set64(image.refcountTable, 0n)],
  ["a leak", (image) => image.set64(image.l1, 0n)],
  ["a table twice", (image) => image.set64(image.l1, image.u64(image.l1) & ~COPIED)],
];

describe.skipIf(!has)("an image of", () => {
  it.each(FAMILY)(
    "%s is clean, and mended where it is not",
    { timeout: 30_000 },
    async (options) => {
      gallery.create("f.qcow2", "8M", options);
      const length = options.startsWith("cluster_size=2M") ? "2M" : "256k";
      const compressed = options.includes("preallocation") ? [] : [`write -c -P 9 4M ${length}`];
      gallery.io(
        "f.qcow2",
        "write -P 1 0 2100k",
        ...compressed,
        "write -z 1M 100k",
        "discard 2M 64k",
      );
      // Narrower counts have no room for the sharing of compressed clusters.
      if (!/refcount_bits=(1|4|8)$/.test(options)) {
        gallery.run("qemu-img", "snapshot", "-c", "s", "f.qcow2");
        gallery.io("f.qcow2", "write -P 2 100k 70k");
      }
      expect([options, await checked("f.qcow2", "none")]).toEqual([
        options,
        gallery.theirs("f.qcow2", "none"),
      ]);
      const image = ImageBytes.load(gallery.file("f.qcow2"));
      for (const [what, make] of GENERAL) {
        const damaged = new ImageBytes(image.bytes.slice());
        make(damaged);
        for (const repair of ["none", "all"] as const) {
          damaged.save(gallery.file("a.qcow2"));
          damaged.save(gallery.file("b.qcow2"));
          const title = `${options}: ${what}, ${repair}`;
          expectSame(title, await checked("a.qcow2", repair), gallery.theirs("b.qcow2", repair));
        }
        const content = await readable(onDisk(gallery.file("b.qcow2")));
        const mended = await readable(onDisk(gallery.file("a.qcow2")));
        if (content === undefined || mended === undefined) throw new Error("it cannot be read");
        expectBytes(mended, content, what);
        expect(gallery.theirs("a.qcow2", "none")).toMatchObject({ corruptions: 0, leaks: 0 });
      }
    },
  );
});

describe.skipIf(!has)("an image with a data file and", () => {
  it.each([
    ["nothing wrong", (): void => undefined],
    ["a compressed cluster", (i: ImageBytes) => i.set64(i.entry(0), COMPRESSED | 0x50000n)],
    ["a flag that is missing", (i: ImageBytes) => i.set64(i.entry(1), 0x10000n)],
    ["data elsewhere", (i: ImageBytes) => i.set64(i.entry(1), COPIED | 0x50000n)],
    ["data at no cluster", (i: ImageBytes) => i.set64(i.entry(1), COPIED | 0x50200n)],
    ["data behind the file", (i: ImageBytes) => i.set64(i.entry(1), COPIED | (1n << 44n))],
    ["no counts", (i: ImageBytes) => i.set64(i.refcountTable, 0n)],
  ] as const)("%s is found and mended as qemu-img does", async (_title, make) => {
    gallery.create("d.qcow2", "8M", `data_file=${gallery.file("d.data")}`);
    gallery.io("d.qcow2", "write -P 1 0 140k");
    const image = ImageBytes.load(gallery.file("d.qcow2"));
    make(image);
    for (const repair of ["none", "leaks", "all"] as const) {
      image.save(gallery.file("a.qcow2"));
      image.save(gallery.file("b.qcow2"));
      const data = onDisk(gallery.file("d.data"));
      const result = await check(onDisk(gallery.file("a.qcow2")), { repair }, data);
      const found = typeof result === "string" ? result : countsOf(result);
      expectSame(repair, found, gallery.theirs("b.qcow2", repair));
    }
  });
});

describe.skipIf(!has)("an image with", () => {
  it.each(DAMAGES)(
    "$title is found and mended as qemu-img does",
    async ({ recipe, make, differs }) => {
      const image = ImageBytes.load(gallery.file(gallery.made(recipe)));
      make(image);
      image.save(gallery.file("a.qcow2"));
      const content = await readable(onDisk(gallery.file("a.qcow2")));
      for (const repair of ["none", "leaks", "all"] as const) {
        image.save(gallery.file("a.qcow2"));
        image.save(gallery.file("b.qcow2"));
        const found = await checked("a.qcow2", repair);
        if (differs === undefined) expectSame(repair, found, gallery.theirs("b.qcow2", repair));
        else expectOwn(repair, found, differs[repair]);
        if (typeof found === "string" || differs !== undefined) continue;
        expectSame(`after ${repair}`, found, gallery.theirs("a.qcow2", "none"));
      }
      const after = await readable(onDisk(gallery.file("a.qcow2")));
      if (content === undefined) return;
      expect(after).toBeDefined();
      if (after !== undefined) expectBytes(after, content, "what was mended");
    },
  );
});

/** A place that is free is found in another way where counts are rebuilt: the end of the image is not compared. */
function expectSame(repair: string, found: Counts | string, expected: Counts | string): void {
  if (typeof expected === "string" || typeof found === "string") {
    expect([repair, found, typeof expected]).toEqual([repair, "EIO", "string"]);
    return;
  }
  const end = repair.endsWith("all") ? { "image-end-offset": found["image-end-offset"] } : {};
  expect([repair, found]).toEqual([repair, { ...expected, ...end }]);
}

function expectOwn(repair: string, found: Counts | string, expected: Found | string): void {
  if (typeof found === "string" || typeof expected === "string") {
    expect([repair, found]).toEqual([repair, expected]);
    return;
  }
  const { corruptions, leaks, "check-errors": errors } = found;
  const wanted = { corruptions: 0, leaks: 0, errors: 0, ...expected };
  expect([repair, { corruptions, leaks, errors }]).toEqual([repair, wanted]);
}

describe.skipIf(!has)("counts that are wrong in any way", () => {
  it("are mended so that qemu-img finds nothing, and reads the same", {
    timeout: 60_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...(Object.keys(RECIPES) as RecipeName[])),
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 8 }),
        async (recipe, wounds) => {
          const image = ImageBytes.load(gallery.file(gallery.made(recipe)));
          gallery.run("qemu-img", "convert", "-O", "raw", gallery.made(recipe), "before.raw");
          const block = image.offsetAt(image.refcountTable);
          for (const [place, value] of wounds) hurtCounts(image, block, place, value);
          image.save(gallery.file("a.qcow2"));
          const result = await checked("a.qcow2", "all");
          expect(result).toMatchObject({ corruptions: 0, leaks: 0, "check-errors": 0 });
          const found = { corruptions: 0, leaks: 0, "check-errors": 0 };
          expect(gallery.theirs("a.qcow2", "none")).toMatchObject(found);
          gallery.run("qemu-img", "convert", "-O", "raw", "a.qcow2", "after.raw");
          gallery.run("cmp", "before.raw", "after.raw");
        },
      ),
      { numRuns: 40 },
    );
  });
});

/** Changes a byte of a refcount block, or of the first entries of the refcount table. */
function hurtCounts(image: ImageBytes, block: number, place: number, value: number): void {
  const { bytes, refcountTable, clusterSize } = image;
  const inBlock = block + (place % Math.min(clusterSize, 100));
  bytes[place % 5 > 0 ? inBlock : refcountTable + (place % 32)] = value;
}
