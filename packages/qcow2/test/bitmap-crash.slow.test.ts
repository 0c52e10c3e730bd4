import { writeFileSync } from "node:fs";
import { ReferenceDisk } from "@blocklayer/driver-tests";
import { beforeAll, describe, expect, it } from "vitest";
import { bitmap, bitmapsOf, type GivenBitmap, heldBy } from "./bitmap-rig.ts";
import { crashStates, RecordingDisk } from "./crash-states.ts";
import { ImageBytes } from "./image-bytes.ts";
import { contentOf, openImageFile } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");

/** What a name may be found to be: dirty groups, `"in use"`, or `undefined` for not there. */
type Found = readonly number[] | "in use" | undefined;

interface Scenario {
  readonly title: string;
  readonly image:
    | "with bitmaps"
    | "without"
    | "with a name in the way"
    | "with a name at the next sector"
    | "torn";
  readonly run: (storage: ReturnType<typeof bitmapsOf>) => Promise<void>;
  readonly allowed: Readonly<Record<string, readonly Found[]>>;
}

const on = bitmap("on", [1, 5]);
const off = bitmap("off", [2], { enabled: false });
const lost = bitmap("lost", [], { inUse: true });
const next: readonly GivenBitmap[] = [
  bitmap("on", [7]),
  bitmap("off", [3]),
  lost,
  bitmap("new", [9]),
];
const REPLACED = {
  on: [[1, 5], [7]],
  off: [[2], [3]],
  lost: ["in use"],
  new: [undefined, [9]],
} as const satisfies Scenario["allowed"];

const SCENARIOS: readonly Scenario[] = [
  {
    title: "marking them in use",
    image: "with bitmaps",
    run: (storage) => storage.markInUse(["on", "off"]),
    allowed: { on: [[1, 5], "in use"], off: [[2], "in use"], lost: ["in use"] },
  },
  {
    title: "replacing them",
    image: "with bitmaps",
    run: (storage) => storage.store(next),
    allowed: REPLACED,
  },
  {
    title: "replacing them after they were marked",
    image: "with bitmaps",
    run: async (storage) => {
      await storage.markInUse(["on", "off"]);
      await storage.store(next);
    },
    allowed: { ...REPLACED, on: [[1, 5], "in use", [7]], off: [[2], "in use", [3]] },
  },
  {
    title: "removing one",
    image: "with bitmaps",
    run: (storage) => storage.remove("off"),
    allowed: { on: [[1, 5]], off: [[2], undefined], lost: ["in use"] },
  },
  {
    title: "removing all",
    image: "with bitmaps",
    run: (storage) => storage.store([]),
    allowed: { on: [[1, 5], undefined], off: [[2], undefined], lost: ["in use", undefined] },
  },
  {
    title: "storing the first",
    image: "without",
    run: (storage) => storage.store([on]),
    allowed: { on: [undefined, [1, 5]] },
  },
  {
    title: "storing the first where a backing file's name is",
    image: "with a name in the way",
    run: (storage) => storage.store([on]),
    allowed: { on: [undefined, [1, 5]] },
  },
  {
    title: "storing the first beside a name at the next sector",
    image: "with a name at the next sector",
    run: (storage) => storage.store([on]),
    allowed: { on: [undefined, [1, 5]] },
  },
  {
    title: "replacing them where the extension lies in two sectors",
    image: "torn",
    run: (storage) => storage.store(next),
    allowed: {
      on: [[1, 5], undefined, [7]],
      off: [[2], undefined, [3]],
      lost: [undefined, "in use"],
      new: [undefined, [9]],
    },
  },
];

const images = new Map<Scenario["image"], Uint8Array>();

/** An image with content, and `given` stored in it. */
async function make(
  shop: Workshop,
  args: readonly string[],
  given: readonly GivenBitmap[],
  prepare: (path: string) => void = () => undefined,
): Promise<Uint8Array> {
  shop.run("qemu-img", "create", "-q", "-f", "qcow2", ...args);
  shop.run(
    "qemu-io",
    "-c",
    "write -P 7 128k 300k",
    "--image-opts",
    "driver=qcow2,file.filename=a.qcow2,backing=",
  );
  prepare(shop.file("a.qcow2"));
  const host = await openImageFile(shop.file("a.qcow2"), { children: { backing: null } });
  await bitmapsOf(host.driver).store(given);
  await host.close();
  return ImageBytes.load(shop.file("a.qcow2")).bytes;
}

/** Fills the extensions up so that the next one begins 16 bytes before the end of the first sector. */
function pad(path: string): void {
  const image = ImageBytes.load(path);
  const { bytes } = image;
  bytes.fill(0, 112, 65536);
  image.set32(112, 0x12345678);
  image.set32(116, 496 - 120);
  writeFileSync(path, bytes);
}

/** Puts a backing file's name to where the second half of the extension will be. */
function putName(path: string): void {
  const image = ImageBytes.load(path);
  const text = new TextEncoder().encode(`${"./".repeat(30)}base.raw`);
  image.bytes.set(text, 512);
  image.set64(8, 512n);
  image.set32(16, text.length);
  writeFileSync(path, image.bytes);
}

beforeAll(async () => {
  if (!has) return;
  using shop = new Workshop();
  const options = ["-o", "cluster_size=4k", "a.qcow2", "1M"];
  const all = [on, off, lost];
  images.set("with bitmaps", await make(shop, options, all));
  images.set("without", await make(shop, options, []));
  const big = ["-F", "raw", "-u", "-b", "base.raw", "-o", "cluster_size=64k", "a.qcow2", "1M"];
  images.set("with a name in the way", await make(shop, big, []));
  const wide = ["-o", "cluster_size=64k", "a.qcow2", "1M"];
  images.set("with a name at the next sector", await make(shop, wide, [], putName));
  images.set("torn", await make(shop, wide, all, pad));
});

describe.skipIf(!has)("a crash at any time while", () => {
  it.each(SCENARIOS)(
    "$title loses nothing and shows nothing wrong",
    async ({ image, run, allowed }) => {
      const base = images.get(image) ?? new Uint8Array(0);
      const disk = new RecordingDisk(base);
      const host = await openImageFile("", { children: { file: disk, backing: null } });
      const content = await contentOf(host.driver);
      await run(bitmapsOf(host.driver));
      await host.close();
      let states = 0;
      const last: Record<string, Found> = {};
      for (const { what, bytes } of crashStates(base, disk.log)) {
        states += 1;
        const found = await inspect(bytes, content, what, backingName(base));
        for (const name of Object.keys(found))
          expect([what, name in allowed]).toEqual([what, true]);
        for (const [name, values] of Object.entries(allowed)) {
          expect([what, name, values]).toEqual([what, name, expect.arrayContaining([found[name]])]);
          last[name] = found[name];
        }
      }
      expect(states).toBeGreaterThan(3);
      const end = Object.fromEntries(
        Object.entries(allowed).map(([name, values]) => [name, values.at(-1)]),
      );
      expect(last).toEqual(end);
    },
  );
});

function backingName(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const offset = view.getUint32(12);
  return new TextDecoder().decode(bytes.subarray(offset, offset + view.getUint32(16)));
}

/** Opens and checks what is left; the disk is as it was. */
async function inspect(
  bytes: Uint8Array,
  content: Uint8Array,
  what: string,
  name: string,
): Promise<Record<string, Found>> {
  const disk = new ReferenceDisk({ size: bytes.length, growing: true });
  disk.bytes.set(bytes);
  const host = await openImageFile("", { children: { file: disk, backing: null } });
  expect([what, backingName(bytes)]).toEqual([what, name]);
  const result = await host.driver.check?.();
  expect([what, result?.corruptions, result?.checkErrors]).toEqual([what, 0, 0]);
  const same = Buffer.compare(await contentOf(host.driver), content) === 0;
  expect([what, same]).toEqual([what, true]);
  const found = await heldBy(host.driver);
  await host.close();
  return found;
}

describe.skipIf(!has)("a write", () => {
  it.each(["kept", "kept by nobody"])(
    "never shows after a crash beside a bitmap that lacks it and is %s",
    async (title) => {
      const base = images.get("with bitmaps") ?? new Uint8Array(0);
      const disk = new RecordingDisk(base);
      const host = await openImageFile("", { children: { file: disk } });
      const before = await contentOf(host.driver);
      if (title === "kept") await bitmapsOf(host.driver).markInUse(["on"]);
      await host.driver.pwrite?.(9 * 65536, new Uint8Array(65536).fill(9));
      await host.driver.pwrite?.(2 * 65536, new Uint8Array(512).fill(9));
      await host.driver.flush?.();
      await host.close();
      let changed = 0;
      for (const { what, bytes } of crashStates(base, disk.log)) {
        const left = new ReferenceDisk({ size: bytes.length, growing: true });
        left.bytes.set(bytes);
        const after = await openImageFile("", { children: { file: left } });
        const hasWrite = Buffer.compare(await contentOf(after.driver), before) !== 0;
        const { on: found, off: disabled } = await heldBy(after.driver);
        await after.close();
        changed += hasWrite ? 1 : 0;
        expect([what, disabled]).toEqual([what, [2]]);
        if (hasWrite) expect([what, found]).toEqual([what, "in use"]);
      }
      expect(changed).toBeGreaterThan(0);
    },
  );
});

describe.skipIf(!has)("what a crash leaves", () => {
  it.each(SCENARIOS)(
    "while $title is sound to qemu",
    { timeout: 60_000 },
    async ({ image, run }) => {
      using shop = new Workshop();
      const base = images.get(image) ?? new Uint8Array(0);
      writeFileSync(shop.file("base.raw"), new Uint8Array(512));
      const disk = new RecordingDisk(base);
      const host = await openImageFile("", { children: { file: disk, backing: null } });
      await run(bitmapsOf(host.driver));
      await host.close();
      // Every state in which a sequence of whole requests was done; the others take too long here.
      for (const { what, bytes, isPrefix } of crashStates(base, disk.log)) {
        if (!isPrefix) continue;
        writeFileSync(shop.file("a.qcow2"), bytes);
        const { status, err, out } = shop.try("qemu-img", "check", "-f", "qcow2", "a.qcow2");
        // 0 for nothing found, 3 for leaks.
        expect([what, status === 0 || status === 3, status === 0 ? "" : out + err]).toEqual([
          what,
          true,
          expect.not.stringContaining("ERROR"),
        ]);
      }
    },
  );
});
