import { ReferenceDisk } from "@blocklayer/driver-tests";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { check, Gallery, readable } from "./check-rig.ts";
import { RECIPES, type RecipeName } from "./damages.ts";
import { ImageBytes } from "./image-bytes.ts";
import { hasPeer } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const NAMES = Object.keys(RECIPES) as RecipeName[];
const images = new Map<RecipeName, Uint8Array>();
const gallery = new Gallery();

beforeAll(() => {
  if (!has) return;
  for (const name of NAMES)
    images.set(name, ImageBytes.load(gallery.file(gallery.made(name))).bytes);
});
afterAll(() => gallery[Symbol.dispose]());

/** Something written to an image: 8 bytes at one of the fields that matter. */
interface Wound {
  readonly place: number;
  readonly value: bigint;
}

const offsets = fc
  .tuple(
    fc.integer({ min: 0, max: 700 }),
    fc.constantFrom(0n, 1n, 2n, 3n),
    fc.constantFrom(0n, 0n, 1n, 512n),
  )
  .map(([cluster, flags, low]) => (flags << 62n) + BigInt(cluster) * 512n + low);

const wound: fc.Arbitrary<Wound> = fc.record({
  place: fc.nat({ max: 2 ** 30 }),
  value: fc.oneof(
    offsets,
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.constantFrom(0n, 2n ** 64n - 1n),
  ),
});

/** Places of 8 bytes in the metadata of an image: fields of the header, entries of tables, of blocks. */
function places(image: ImageBytes): number[] {
  const { clusterSize, l1, refcountTable } = image;
  const starts = [l1, refcountTable, image.offsetAt(refcountTable), image.snapshotTable];
  for (let index = 0; index < 4; index += 1) starts.push(image.offsetAt(l1 + index * 8));
  const found: number[] = [];
  for (let at = 8; at < 112; at += 4) found.push(at);
  for (const start of starts) {
    if (start === 0) continue;
    for (let at = start; at < start + Math.min(clusterSize, 256); at += 8) found.push(at);
  }
  return found.filter((at) => at + 8 <= image.bytes.length);
}

/** Places of 8 bytes that only say how often clusters are referenced. */
function countPlaces(image: ImageBytes): number[] {
  const { clusterSize, refcountTable } = image;
  const found = [48];
  for (let at = refcountTable; at < refcountTable + 64; at += 8) found.push(at);
  for (let at = refcountTable; at < refcountTable + clusterSize; at += 8) {
    const block = image.offsetAt(at);
    if (block === 0) break;
    for (let offset = block; offset < block + Math.min(clusterSize, 64); offset += 8)
      found.push(offset);
  }
  return found;
}

function wounded(
  name: RecipeName,
  wounds: readonly Wound[],
  where: (image: ImageBytes) => number[],
): ReferenceDisk {
  const bytes = (images.get(name) ?? new Uint8Array(0)).slice();
  const image = new ImageBytes(bytes);
  const all = where(image);
  for (const { place, value } of wounds) image.set64(all[place % all.length] ?? 0, value);
  const disk = new ReferenceDisk({ size: bytes.length, growing: true });
  disk.bytes.set(bytes);
  return disk;
}

/** Another disk of the same content: one is closed with the image that it was opened for. */
function copyOf(disk: ReferenceDisk): ReferenceDisk {
  const copy = new ReferenceDisk({ size: disk.size, growing: true });
  copy.bytes.set(disk.bytes);
  return copy;
}

/** Compares fast: the images are long. */
function isSame(one: Uint8Array | undefined, two: Uint8Array | undefined): boolean {
  return one !== undefined && two !== undefined && Buffer.compare(one, two) === 0;
}

const arbitrary = [
  fc.constantFrom(...NAMES),
  fc.array(wound, { minLength: 1, maxLength: 4 }),
] as const;

describe.skipIf(!has)("whatever is wrong with an image", () => {
  it("a check ends with a result or a BlockError, and a repair with what a check then finds", {
    timeout: 30_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(...arbitrary, async (name, wounds) => {
        const disk = wounded(name, wounds, places);
        await check(copyOf(disk), { repair: "leaks" });
        const mended = copyOf(disk);
        const result = await check(mended, { repair: "all" });
        if (typeof result === "string") return;
        const { corruptions, leaks, checkErrors } = result;
        if (corruptions + leaks + checkErrors > 0) return;
        expect(await check(copyOf(mended))).toMatchObject({ corruptions, leaks, checkErrors });
      }),
      { numRuns: 200 },
    );
  });

  it("counting in small windows finds the same as counting all at once", {
    timeout: 30_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(wound, { minLength: 0, maxLength: 4 }), async (wounds) => {
        const disk = wounded("blocks", wounds, places);
        for (const repair of ["none", "all"] as const) {
          const whole = copyOf(disk);
          const inWindows = copyOf(disk);
          const expected = await check(whole, { repair });
          // What cannot be read or written is met again in every window.
          if (typeof expected !== "string" && expected.checkErrors > 0) return;
          expect(await check(inWindows, { repair, windowClusters: 64 })).toEqual(expected);
          expect(isSame(inWindows.bytes, whole.bytes)).toBe(true);
        }
      }),
      { numRuns: 100 },
    );
  });

  it("wrong counts are mended, and the content stays as it was", { timeout: 30_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(...arbitrary, async (name, wounds) => {
        const disk = wounded(name, wounds, countPlaces);
        const content = await readable(copyOf(disk));
        // A refcount table at no cluster: such an image cannot be opened at all.
        if (content === undefined) return;
        const mended = copyOf(disk);
        expect(await check(mended, { repair: "all" })).toMatchObject({
          corruptions: 0,
          leaks: 0,
          checkErrors: 0,
        });
        expect(await check(copyOf(mended))).toMatchObject({
          corruptions: 0,
          leaks: 0,
          checkErrors: 0,
        });
        expect(isSame(await readable(copyOf(mended)), content)).toBe(true);
      }),
      { numRuns: 100 },
    );
  });
});
