import { ReferenceDisk } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { check, Gallery, readable } from "./check-rig.ts";
import type { RecipeName } from "./damages.ts";
import { ImageBytes } from "./image-bytes.ts";
import { hasPeer } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const gallery = new Gallery();
const images = new Map<RecipeName, Uint8Array>();

beforeAll(() => {
  if (!has) return;
  for (const name of ["small", "blocks", "snapshot"] as const) {
    images.set(name, ImageBytes.load(gallery.file(gallery.made(name))).bytes);
  }
});
afterAll(() => gallery[Symbol.dispose]());

/** A disk of which request number `fault` fails, and perhaps all that follow. */
class FaultyDisk extends ReferenceDisk {
  requests = 0;
  readonly #fault: number;
  readonly #dies: boolean;

  constructor(bytes: Uint8Array, fault = Number.POSITIVE_INFINITY, dies = false) {
    super({ size: bytes.length, growing: true });
    this.bytes.set(bytes);
    this.#fault = fault;
    this.#dies = dies;
  }

  override pread(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#fails() ?? super.pread(offset, buffer);
  }

  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#fails() ?? super.pwrite(offset, buffer);
  }

  override flushToDisk(): Promise<void> {
    return this.#fails() ?? super.flushToDisk();
  }

  #fails(): Promise<void> | undefined {
    this.requests += 1;
    const fails = this.requests === this.#fault || (this.#dies && this.requests > this.#fault);
    return fails
      ? Promise.reject(new BlockError("EIO", `request ${this.requests} fails`))
      : undefined;
  }
}

const CASES: readonly (readonly [string, RecipeName, (image: ImageBytes) => void])[] = [
  ["leaks and missing flags", "blocks", (i) => i.set64(i.l1, i.u64(i.l1) & ~(1n << 63n))],
  [
    "counts that are too low",
    "snapshot",
    (i) => {
      i.setCount(i.clusterAt(i.entry(1)), 1);
      i.setCount(i.clusterAt(i.entry(2)), 9);
    },
  ],
  ["no counts", "small", (i) => i.set64(i.refcountTable, 0n)],
  ["no counts of a part", "blocks", (i) => i.set64(i.refcountTable + 8, 0n)],
  ["a snapshot that is not complete", "snapshot", (i) => i.set32(i.snapshotTable + 36, 0)],
];

function damaged(recipe: RecipeName, make: (image: ImageBytes) => void): Uint8Array {
  const image = new ImageBytes((images.get(recipe) ?? new Uint8Array(0)).slice());
  make(image);
  return image.bytes;
}

describe.skipIf(!has)("a repair of", () => {
  it.each(CASES)(
    "%s that dies at any request can be done again",
    { timeout: 30_000 },
    async (_title, recipe, make) => {
      await sweep(damaged(recipe, make), true);
    },
  );

  it.each(CASES)(
    "%s that meets one error loses nothing",
    { timeout: 30_000 },
    async (_title, recipe, make) => {
      await sweep(damaged(recipe, make), false);
    },
  );
});

/** Lets request 1, 2, 3 fail until nothing fails any more; each time the next repair makes everything right. */
async function sweep(bytes: Uint8Array, dies: boolean): Promise<void> {
  const content = await readable(new FaultyDisk(bytes));
  expect(content).toBeDefined();
  for (let fault = 1; ; fault += 1) {
    const disk = new FaultyDisk(bytes, fault, dies);
    await check(disk, { repair: "all" });
    if (disk.requests < fault) break;
    const after = new FaultyDisk(disk.bytes);
    const clean = { corruptions: 0, leaks: 0, checkErrors: 0 };
    expect([fault, await check(after, { repair: "all" })]).toMatchObject([fault, clean]);
    const found = await readable(new FaultyDisk(after.bytes));
    expect([fault, found !== undefined && Buffer.compare(found, content ?? found)]).toEqual([
      fault,
      0,
    ]);
  }
}
