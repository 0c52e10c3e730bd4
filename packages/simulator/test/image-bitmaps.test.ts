import type { BlockChild, StoredBitmap } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";
import { ImageBitmaps } from "../src/disk/image-bitmaps.ts";
import {
  AREA_LENGTH,
  decodeArea,
  decodeRoot,
  EMPTY_ROOT,
  encodeArea,
  encodeRoot,
  METADATA_LENGTH,
  ROOT_LENGTH,
} from "../src/disk/image-layout.ts";
import { simulatedImage } from "../src/disk/simulated-image.ts";

const DATA = 1024;

/** A file whose requests fail from a certain one on. */
class File {
  readonly bytes = new Uint8Array(DATA + METADATA_LENGTH);
  readonly log: string[] = [];
  failsFrom = Number.POSITIVE_INFINITY;
  #changes = 0;

  pread(offset: number, buffer: Uint8Array): Promise<void> {
    buffer.set(this.bytes.subarray(offset, offset + buffer.length));
    return Promise.resolve();
  }

  /** What fails has had its effect. */
  pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    this.bytes.set(buffer, offset);
    return this.#end(`write ${offset}`);
  }

  flush(): Promise<void> {
    return this.#end("flush");
  }

  /** The bitmaps as another process finds them. */
  async open(): Promise<ImageBitmaps> {
    const bitmaps = new ImageBitmaps(this as unknown as BlockChild, DATA);
    await bitmaps.open();
    return bitmaps;
  }

  #end(what: string): Promise<void> {
    this.log.push(what);
    this.#changes += 1;
    if (this.#changes < this.failsFrom) return Promise.resolve();
    return Promise.reject(new BlockError("EIO", `${what} failed`));
  }
}

function given(name: string, inUse = false): Parameters<ImageBitmaps["store"]>[0][number] {
  const bytes = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, name.length);
  const content = {
    serializedLength: bytes.length,
    read: (offset: number, length: number) => bytes.subarray(offset, offset + length),
  };
  return { name, granularity: 512, size: DATA, enabled: true, inUse, content };
}

const short = (list: readonly StoredBitmap[]): string[] =>
  list.map(({ name, inUse }) => `${name}${inUse ? " in use" : ""}`);

describe("the bitmaps of a simulated image", () => {
  it("come back with content and marks", async () => {
    const file = new File();
    const bitmaps = await file.open();
    expect(await bitmaps.list()).toEqual([]);
    await bitmaps.store([given("a"), given("bc", true), given("d")]);
    await bitmaps.markInUse(["d", "nobody"]);
    const next = await file.open();
    expect(short(await next.list())).toEqual(["a", "bc in use", "d in use"]);
    const content = await next.load("bc");
    expect(await content.read(7, 1)).toEqual(Uint8Array.of(2));
    await next.remove("a");
    await next.remove("a");
    expect(short(await next.list())).toEqual(["bc in use", "d in use"]);
    expect(file.bytes.subarray(0, DATA).every((byte) => byte === 0)).toBe(true);
  });

  it("are switched by a root between two flushes, in the area and the root that do not count", async () => {
    const file = new File();
    const bitmaps = await file.open();
    await bitmaps.store([given("a")]);
    await bitmaps.markInUse(["a"]);
    const [root0, root1] = [DATA + 2 * AREA_LENGTH, DATA + 2 * AREA_LENGTH + ROOT_LENGTH];
    expect(file.log).toEqual([
      "flush",
      `write ${DATA + AREA_LENGTH}`,
      "flush",
      `write ${root1}`,
      "flush",
      `write ${root0}`,
      "flush",
    ]);
  });

  it("are whole at every moment, whatever fails", async () => {
    for (let failsFrom = 1; failsFrom < 5; failsFrom += 1) {
      const file = new File();
      const bitmaps = await file.open();
      await bitmaps.store([given("a", true)]);
      file.failsFrom = failsFrom + file.log.length;
      await expect(bitmaps.store([given("b")])).rejects.toMatchObject({ code: "EIO" });
      const found = short(await (await file.open()).list());
      expect(["a in use", "b"]).toContain(found.join());
      file.failsFrom = Number.POSITIVE_INFINITY;
      expect(short(await bitmaps.list())).toEqual(found);
      await bitmaps.markInUse(["a", "b"]);
      expect(short(await (await file.open()).list())).toEqual([
        found[0] === "b" ? "b in use" : "a in use",
      ]);
    }
  });

  it.each([
    {
      name: "load of nobody",
      call: (bitmaps: ImageBitmaps) => bitmaps.load("x"),
      code: "ENOENT",
    },
    {
      name: "a name that is too long",
      call: (bitmaps: ImageBitmaps) => bitmaps.canStore({ name: "x".repeat(64) }),
      code: "EFBIG",
    },
    {
      name: "more than there is room for",
      call: (bitmaps: ImageBitmaps) =>
        bitmaps.store(Array.from({ length: 60 }, (_, index) => given(`name ${index}`))),
      code: "EFBIG",
    },
    { name: "a log", call: (bitmaps: ImageBitmaps) => bitmaps.createLog(), code: "ENOTSUP" },
  ])("refuse $name with $code", async ({ call, code }) => {
    const bitmaps = await new File().open();
    await expect(call(bitmaps)).rejects.toMatchObject({ code });
    await bitmaps.canStore({ name: "x" });
    expect([await bitmaps.log(), bitmaps.owner]).toEqual([undefined, "unknown"]);
    await bitmaps.setOwner();
    await bitmaps.clearOwner();
  });

  it("that are damaged are not opened", async () => {
    const file = new File();
    await (await file.open()).store([given("a")]);
    file.bytes[DATA + AREA_LENGTH] = 0;
    await expect(file.open()).rejects.toMatchObject({
      code: "EIO",
      message: "the bitmaps of generation 1 are damaged",
      context: { damaged: true },
    });
  });
});

describe("a simulated image", () => {
  it("is its file without the metadata, and keeps its length", async () => {
    const file = Object.assign(new File(), { size: DATA + METADATA_LENGTH });
    const host = { openChild: () => Promise.resolve(file) };
    const image = await simulatedImage.open(host as never, {}, undefined as never);
    expect([image.size, await image.persistentBitmaps?.list()]).toEqual([DATA, []]);
    await expect(image.truncate?.(0)).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "a simulated image has a fixed length",
    });
  });
});

describe("the layout", () => {
  it("tells a whole root from a torn one", () => {
    const root = { generation: 7, area: 1, length: 2, checksum: 3, inUse: 5 };
    const bytes = encodeRoot(root);
    expect(decodeRoot(bytes)).toEqual(root);
    bytes[100] = 1;
    expect(decodeRoot(bytes)).toBeUndefined();
    expect(decodeRoot(new Uint8Array(ROOT_LENGTH))).toBeUndefined();
  });

  it("holds nothing at first", () => {
    expect(decodeArea(EMPTY_ROOT, encodeArea([]))).toEqual([]);
  });
});
