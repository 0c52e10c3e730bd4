import { describe, expect, it } from "vitest";
import {
  autoclearOf,
  bitmap,
  bitmapsOf,
  bitsOfContent,
  failure,
  fileOf,
  type GivenBitmap,
  heldBy,
  MIB,
  tableOffsetOf,
  theirBits,
  theirList,
} from "./bitmap-rig.ts";
import { onDisk, openImageFile } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io") && hasPeer("qemu-nbd");

function expectClean(shop: Workshop, name: string): void {
  const found = shop.check(name);
  expect(found).not.toHaveProperty("corruptions");
  expect(found).not.toHaveProperty("leaks");
}

/** Bits at the ends of words, clusters of 512 bytes and the bitmap, and some in a row. */
function scattered(bits: number): number[] {
  const wanted = [0, 1, 7, 8, 63, 64, 65, 66, 67, 4095, 4096, 8191, 12288, bits - 1];
  return [...new Set(wanted.filter((bit) => bit >= 0 && bit < bits))].sort((a, b) => a - b);
}

describe.skipIf(!has)("bitmaps that were stored", () => {
  it.each([
    ["cluster_size=64k", 65536],
    ["cluster_size=512", 512],
    ["cluster_size=4k,refcount_bits=1", 512],
    ["cluster_size=2M", 65536],
    ["extended_l2=on", 4096],
    ["data_file=data.raw", 65536],
  ])("in an image with %s are what qemu finds", async (options, granularity) => {
    using shop = new Workshop();
    const size = 10 * MIB + 512;
    const path = shop.create("a.qcow2", size, options);
    const children = options.startsWith("data")
      ? { "data-file": onDisk(shop.file("data.raw")) }
      : {};
    const bits = Math.ceil(size / granularity);
    const given = [
      bitmap("some", scattered(bits), { granularity, size }),
      bitmap("none", [], { granularity: 65536, size, enabled: false }),
      bitmap("ünïcode", [3], { granularity: 2 ** 21, size }),
    ];
    const host = await openImageFile(path, { children });
    await bitmapsOf(host.driver).store(given);
    expect(await bitmapsOf(host.driver).list()).toEqual(
      given.map(({ content: _, ...stored }) => stored),
    );
    await host.close();
    expectClean(shop, "a.qcow2");
    expect(theirList(shop, "a.qcow2")).toEqual([
      { name: "some", granularity, flags: ["auto"] },
      { name: "none", granularity: 65536, flags: [] },
      { name: "ünïcode", granularity: 2 ** 21, flags: ["auto"] },
    ]);
    for (const one of given) {
      expect(theirBits(shop, "a.qcow2", one)).toEqual(await bitsOfContent(one.content));
    }
  });

  it("are replaced, and what the old ones took is given back", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, "cluster_size=4k");
    const host = await openImageFile(path);
    const { driver } = host;
    const storage = bitmapsOf(driver);
    await storage.store([bitmap("a", [1]), bitmap("b", [2])]);
    const before = shop.check("a.qcow2")["allocated-clusters"];
    for (let round = 0; round < 20; round += 1) {
      await storage.store([bitmap("b", [round % 16]), bitmap("c", [3, 4])]);
    }
    expect(await heldBy(driver)).toEqual({ b: [3], c: [3, 4] });
    await host.close();
    expectClean(shop, "a.qcow2");
    const after = shop.check("a.qcow2");
    expect([after["allocated-clusters"], after["image-end-offset"]]).toEqual([
      before,
      expect.toSatisfy((end: number) => end < 20 * 4096),
    ]);
  });

  it("are removed one by one, and the extension with the last", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    const host = await openImageFile(path);
    const storage = bitmapsOf(host.driver);
    await storage.store([bitmap("a", [1]), bitmap("b", [2])]);
    await storage.remove("nobody");
    await storage.remove("a");
    expect(await heldBy(host.driver)).toEqual({ b: [2] });
    expectClean(shop, "a.qcow2");
    await storage.remove("b");
    expect([await storage.list(), await autoclearOf(fileOf(host))]).toEqual([[], 0]);
    await storage.store([]);
    await host.close();
    expectClean(shop, "a.qcow2");
    const { err, out } = shop.try("qemu-img", "info", "a.qcow2");
    expect([err, out.includes("bitmaps")]).toEqual(["", false]);
    shop.run("qemu-img", "bitmap", "--add", "a.qcow2", "theirs");
  });

  it.each(["base.qcow2", `${"deep/".repeat(30)}base.qcow2`])(
    "leave the name of the backing file %s alone",
    async (name) => {
      using shop = new Workshop();
      const path = shop.file("a.qcow2");
      const options = ["-q", "-f", "qcow2", "-F", "raw", "-u", "-b", name, "a.qcow2", "1M"];
      shop.run("qemu-img", "create", ...options);
      const before = shop.run("qemu-img", "info", "a.qcow2").match(/backing file: \S+/)?.[0];
      const host = await openImageFile(path, { children: { backing: null } });
      await bitmapsOf(host.driver).store([bitmap("a", [1])]);
      await host.close();
      expect(shop.run("qemu-img", "info", "a.qcow2")).toContain(before);
      shop.run("qemu-img", "rebase", "-u", "-b", "", "a.qcow2");
      shop.run("qemu-img", "bitmap", "--add", "a.qcow2", "b");
      expectClean(shop, "a.qcow2");
      const again = await openImageFile(path);
      expect(await heldBy(again.driver)).toEqual({ a: [1], b: [] });
      await again.close();
    },
  );
});

describe.skipIf(!has)("the extension of bitmaps", () => {
  it("may stand before others, which stay", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    const first = await openImageFile(path);
    await bitmapsOf(first.driver).store([bitmap("a", [1])]);
    const file = fileOf(first);
    const other = Uint8Array.of(0x12, 0x34, 0x56, 0x78, 0, 0, 0, 3, 7, 8, 9, 0, 0, 0, 0, 0);
    const at = 504 + 32;
    await file.pwrite(at, other);
    await first.close();
    const host = await openImageFile(path);
    const storage = bitmapsOf(host.driver);
    await storage.remove("a");
    expect([await heldBy(host.driver), await autoclearOf(fileOf(host))]).toEqual([{}, 0]);
    await storage.store([bitmap("b", [2])]);
    expect([await heldBy(host.driver), await autoclearOf(fileOf(host))]).toEqual([{ b: [2] }, 1]);
    const left = new Uint8Array(other.length);
    await fileOf(host).pread(at, left);
    expect(left).toEqual(other);
    await host.close();
    expect(theirList(shop, "a.qcow2")).toEqual([
      { name: "b", granularity: 65536, flags: ["auto"] },
    ]);
    expectClean(shop, "a.qcow2");
  });

  it.each([
    [512, 20, true],
    [512, 200, true],
    [512, 330, true],
    [512, 345, false],
    [1024, 300, true],
    [1024, 600, true],
    [1024, 870, false],
    [65536, 1023, true],
  ])(
    "in clusters of %i bytes beside a name of %i bytes fits: %s",
    async (cluster, length, fits) => {
      using shop = new Workshop();
      const name = "n".repeat(length);
      const options = ["-q", "-u", "-b", name, "-F", "raw", "-o", `cluster_size=${cluster}`];
      shop.run("qemu-img", "create", "-f", "qcow2", ...options, "a.qcow2", "1M");
      const host = await openImageFile(shop.file("a.qcow2"), { children: { backing: null } });
      const stored = bitmapsOf(host.driver).store([bitmap("a", [1])]);
      if (fits) await stored;
      else expect((await failure(stored))[0]).toBe("ENOSPC");
      expect(await heldBy(host.driver)).toEqual(fits ? { a: [1] } : {});
      await host.driver.pwrite?.(0, new Uint8Array(512));
      await host.close();
      expect(shop.run("qemu-img", "info", "a.qcow2")).toContain(`backing file: ${name}`);
      shop.run("qemu-img", "rebase", "-u", "-b", "", "a.qcow2");
      expectClean(shop, "a.qcow2");
    },
  );
});

describe.skipIf(!has)("bitmaps of qemu", () => {
  it.each(["cluster_size=64k", "cluster_size=512", "extended_l2=on"])(
    "in an image with %s are read after each of its operations",
    async (options) => {
      using shop = new Workshop();
      const path = shop.create("a.qcow2", 4 * MIB, options);
      const run = (...args: readonly string[]): void => {
        shop.run("qemu-img", "bitmap", ...args);
      };
      const held = async (): Promise<unknown> => {
        const host = await openImageFile(path, { generic: { readOnly: true } });
        const found = await heldBy(host.driver);
        const enabled = (await bitmapsOf(host.driver).list()).map((one) => one.enabled);
        await host.close();
        return [found, enabled];
      };
      run("--add", "-g", "65536", "a.qcow2", "x");
      run("--add", "--disable", "-g", "4096", "a.qcow2", "y");
      shop.io("a.qcow2", "write 0 1k", "write 1M 128k");
      expect(await held()).toEqual([{ x: [0, 16, 17], y: [] }, [true, false]]);
      run("--disable", "a.qcow2", "x");
      run("--enable", "a.qcow2", "y");
      shop.io("a.qcow2", "write 8k 8k", "discard 3M 4k");
      expect(await held()).toEqual([{ x: [0, 16, 17], y: [2, 3, 768] }, [false, true]]);
      run("--merge", "x", "a.qcow2", "y");
      const merged = Array.from({ length: 32 }, (_, index) => 256 + index);
      const first = Array.from({ length: 16 }, (_, index) => index);
      expect(await held()).toEqual([
        { x: [0, 16, 17], y: [...first, ...merged, 768] },
        [false, true],
      ]);
      run("--clear", "a.qcow2", "x");
      run("--remove", "a.qcow2", "y");
      expect(await held()).toEqual([{ x: [] }, [false]]);
    },
  );

  it("that a daemon writes are read when it has closed the image", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    const add = { node: "d", name: "live", persistent: true, granularity: 65536 };
    const script = [
      { execute: "qmp_capabilities" },
      { execute: "block-dirty-bitmap-add", arguments: add },
      {
        execute: "blockdev-add",
        arguments: { driver: "null-co", "node-name": "n", size: MIB, "read-zeroes": true },
      },
      {
        execute: "blockdev-mirror",
        arguments: { device: "n", target: "d", sync: "full", "job-id": "j" },
      },
      { execute: "quit" },
    ].map((command) => JSON.stringify(command));
    const blockdev = `driver=qcow2,node-name=d,file.driver=file,file.filename=${path}`;
    const daemon = "qemu-storage-daemon";
    const pipeline = `(printf '%s\\n' ${script
      .slice(0, 4)
      .map((line) => `'${line}'`)
      .join(
        " ",
      )}; sleep 0.3; printf '%s\\n' '${script[4]}') | ${daemon} --chardev stdio,id=q --monitor q --blockdev ${blockdev}`;
    const out = shop.run("sh", "-c", pipeline);
    expect(out).not.toContain('"error"');
    const host = await openImageFile(path, { generic: { readOnly: true } });
    expect(await heldBy(host.driver)).toEqual({ live: Array.from({ length: 16 }, (_, i) => i) });
    await host.close();
    expectClean(shop, "a.qcow2");
  });

  it("with all-ones entries in their table have all bits", async () => {
    using shop = new Workshop();
    const size = 5 * MIB + 3 * 512;
    const path = shop.create("a.qcow2", size, "cluster_size=512");
    const first = await openImageFile(path);
    await bitmapsOf(first.driver).store([bitmap("x", [], { granularity: 512, size })]);
    await first.close();
    const disk = await openImageFile(path);
    const bits = size / 512;
    const file = fileOf(disk);
    const table = await tableOffsetOf(file);
    const ones = new Uint8Array(8);
    ones[7] = 1;
    await file.pwrite(table, ones);
    await file.pwrite(table + 16, ones);
    const expected = Array.from({ length: bits }, (_, index) => index).filter(
      (bit) => bit < 4096 || bit >= 8192,
    );
    expect(await heldBy(disk.driver)).toEqual({ x: expected });
    await disk.close();
    expect(theirBits(shop, "a.qcow2", { name: "x", granularity: 512 })).toEqual(expected);
  });
});

describe.skipIf(!has)("a bitmap that", () => {
  const tooLong = "x".repeat(1024);
  it.each<readonly [string, Partial<GivenBitmap>, readonly [string, string]]>([
    ["is there already", { name: "a" }, ["EEXIST", "Bitmap already exists: a"]],
    ["has no name", { name: "" }, ["EINVAL", "Bitmap name cannot be empty"]],
    [
      "has a long name",
      { name: tooLong },
      ["EINVAL", "Name length exceeds maximum (1023 characters)"],
    ],
    [
      "is too fine",
      { granularity: 256 },
      ["EINVAL", "Granularity must be power of 2 from 512 to 2147483648"],
    ],
    [
      "is too coarse",
      { granularity: 2 ** 32 },
      ["EINVAL", "Granularity must be power of 2 from 512 to 2147483648"],
    ],
    [
      "has an odd granularity",
      { granularity: 768 },
      ["EINVAL", "Granularity must be power of 2 from 512 to 2147483648"],
    ],
    ["is of another size", { size: 2 * MIB }, ["EINVAL", "Bitmap 'b' does not cover the disk"]],
  ])("%s cannot be stored", async (_title, change, expected) => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB));
    const storage = bitmapsOf(host.driver);
    await storage.store([bitmap("a", [1])]);
    const { content, enabled, inUse, ...shape } = { ...bitmap("b", [1]), ...change };
    expect(await failure(storage.canStore(shape))).toEqual(expected);
    const both = [bitmap("a", [2]), { ...shape, content, enabled, inUse }];
    expect(await failure(storage.store(both))).toEqual(expected);
    await storage.canStore({ name: "x".repeat(1023), granularity: 2 ** 31, size: MIB });
    expect(await heldBy(host.driver)).toEqual({ a: [1] });
    await host.close();
    expectClean(shop, "a.qcow2");
  });

  it("would take too much space cannot be stored", async () => {
    using shop = new Workshop();
    const size = 16 * 2 ** 40;
    const host = await openImageFile(shop.create("a.qcow2", size));
    const storage = bitmapsOf(host.driver);
    expect(await failure(storage.canStore({ name: "b", granularity: 512, size }))).toEqual([
      "EFBIG",
      "Too much space will be occupied by the bitmap. Use larger granularity",
    ]);
    await storage.canStore({ name: "b", granularity: 4096, size });
    await host.close();
  });

  it("is one too many cannot be stored", async () => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB));
    const many = Array.from({ length: 65536 }, (_, index) => bitmap(`b${index}`, []));
    expect((await failure(bitmapsOf(host.driver).store(many)))[0]).toBe("EFBIG");
    await host.close();
  });

  it("is for an image of version 2, or an empty one, cannot be stored", async () => {
    using shop = new Workshop();
    const old = await openImageFile(shop.create("a.qcow2", MIB, "compat=0.10"));
    const expected = ["ENOTSUP", "Cannot store dirty bitmaps in qcow2 v2 files"];
    expect(await failure(bitmapsOf(old.driver).canStore(bitmap("a", [])))).toEqual(expected);
    expect(await failure(bitmapsOf(old.driver).store([bitmap("a", [])]))).toEqual(expected);
    expect(await bitmapsOf(old.driver).list()).toEqual([]);
    await bitmapsOf(old.driver).store([]);
    await bitmapsOf(old.driver).remove("a");
    await bitmapsOf(old.driver).markInUse(["a"]);
    await old.close();
    const empty = await openImageFile(shop.create("b.qcow2", 0));
    const none = { name: "a", granularity: 65536, size: 0 };
    expect((await failure(bitmapsOf(empty.driver).canStore(none)))[0]).toBe("EINVAL");
    await empty.close();
  });

  it("is not there cannot be loaded", async () => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB));
    expect(await failure(bitmapsOf(host.driver).load("b"))).toEqual([
      "ENOENT",
      "Dirty bitmap 'b' not found",
    ]);
    await host.close();
  });

  it("is in a read-only image cannot be changed", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    shop.run("qemu-img", "bitmap", "--add", "a.qcow2", "x");
    const host = await openImageFile(path, { generic: { readOnly: true } });
    const storage = bitmapsOf(host.driver);
    for (const call of [storage.store([]), storage.remove("x"), storage.markInUse(["x"])]) {
      expect((await failure(call))[0]).toBe("EROFS");
    }
    await host.close();
  });
});

it("an image without a log or an owner mark says so", async () => {
  using shop = new Workshop();
  if (!has) return;
  const host = await openImageFile(shop.create("a.qcow2", MIB));
  const storage = bitmapsOf(host.driver);
  expect([storage.owner, await storage.log()]).toEqual(["unknown", undefined]);
  expect((await failure(storage.createLog(1, 512)))[0]).toBe("ENOTSUP");
  expect((await failure(storage.setOwner()))[0]).toBe("ENOTSUP");
  await storage.clearOwner();
  await host.close();
});
