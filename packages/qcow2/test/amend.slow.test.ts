import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { expectBytes } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { contentOf, onDisk, openImageFile, qcow2 } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const MIB = 2 ** 20;
const KIB = 1024;

type Options = Readonly<Record<string, unknown>>;

/** Amends an image with this package; resolves to what the amending resolved or rejected with. */
async function amend(path: string, given: Options, backing?: string): Promise<unknown> {
  const parsed = qcow2.amendSchema?.parse(given);
  if (parsed === undefined || !parsed.ok) throw new Error("the options do not parse");
  const host = await openImageFile(path, backing === undefined ? {} : withBacking(backing));
  try {
    return await host.driver.amend?.(parsed.value);
  } catch (error) {
    return error;
  } finally {
    await host.close();
  }
}

function withBacking(path: string): {
  readonly children: { readonly backing: ReturnType<typeof onDisk> };
} {
  return { children: { backing: onDisk(path) } };
}

/** The options as `qemu-img amend` takes them. */
function theirs(options: Options): string {
  return Object.entries(options)
    .map(([name, value]) => {
      if (name === "version") return `compat=${value === "v2" ? "0.10" : "1.1"}`;
      const text = value === true ? "on" : value === false ? "off" : String(value);
      return `${name.replaceAll("-", "_")}=${text}`;
    })
    .join(",");
}

function specific(shop: Workshop, name: string): unknown {
  const info = JSON.parse(
    shop.run("qemu-img", "info", "--output=json", "-f", "qcow2", name),
  ) as Record<string, unknown>;
  const { snapshots } = info;
  return [info["virtual-size"], info["format-specific"], snapshots];
}

function expectSound(shop: Workshop, name: string): void {
  const found = shop.check(name);
  expect(found).not.toHaveProperty("corruptions");
  expect(found).not.toHaveProperty("leaks");
}

const WRITES = [
  "write -P 5 0 200k",
  "write -P 6 500k 64k",
  "write -z 128k 64k",
  "write -zu 600k 100k",
] as const;

describe.skipIf(!has)("an image that is amended is what qemu-img amend makes of a copy", () => {
  it.each([
    { create: "compat=0.10", options: { version: "v3" } },
    { create: "compat=0.10", options: { version: "v3", "lazy-refcounts": true } },
    { create: "compat=0.10", options: { version: "v3", "refcount-bits": 1 } },
    { create: "", options: { version: "v2" } },
    { create: "lazy_refcounts=on", options: { version: "v2" } },
    { create: "lazy_refcounts=on", options: { "lazy-refcounts": false } },
    { create: "", options: { "lazy-refcounts": true } },
    { create: "refcount_bits=64,cluster_size=512", options: { "refcount-bits": 1 } },
    { create: "refcount_bits=1,cluster_size=512", options: { "refcount-bits": 64 } },
    { create: "cluster_size=4k", options: { "refcount-bits": 8 } },
    { create: "cluster_size=4k,refcount_bits=2", options: { "refcount-bits": 16, version: "v2" } },
    { create: "extended_l2=on", options: { "refcount-bits": 32 } },
    { create: "compression_type=zstd", options: { version: "v2" } },
    { create: "", options: { size: 3 * MIB } },
    { create: "cluster_size=512", options: { size: 64 * KIB } },
    { create: "compat=0.10", options: { version: "v3", size: 2 * MIB, "refcount-bits": 4 } },
    { create: "", options: { version: "v2", size: 2 * MIB } },
    { create: "", options: {} },
  ] as const)("created with '$create', amended with $options", async ({ create, options }) => {
    using shop = new Workshop();
    const path = shop.create("ours.qcow2", MIB, create);
    shop.io("ours.qcow2", ...WRITES);
    copyFileSync(path, shop.file("theirs.qcow2"));
    shop.run(
      "qemu-img",
      "amend",
      "-f",
      "qcow2",
      "-o",
      theirs(options) || "size=1M",
      "theirs.qcow2",
    );
    expect(await amend(path, options)).toBeUndefined();
    expect(specific(shop, "ours.qcow2")).toEqual(specific(shop, "theirs.qcow2"));
    expectSound(shop, "ours.qcow2");
    shop.run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", "ours.qcow2", "theirs.qcow2");
    shop.io("ours.qcow2", "write -P 9 10k 50k");
    expectSound(shop, "ours.qcow2");
  });

  it.each([
    { create: "compat=0.10", options: { version: "v3" } },
    { create: "", options: { version: "v2" } },
    { create: "", options: { "lazy-refcounts": true } },
    { create: "backing_file=b.raw,backing_fmt=raw", options: { version: "v2" } },
  ] as const)(
    "created with '$create', amended with $options: byte for byte",
    async ({ create, options }) => {
      using shop = new Workshop();
      writeFileSync(shop.file("b.raw"), new Uint8Array(MIB));
      const path = shop.create("ours.qcow2", MIB, create);
      copyFileSync(path, shop.file("theirs.qcow2"));
      shop.run("qemu-img", "amend", "-f", "qcow2", "-o", theirs(options), "theirs.qcow2");
      const backing = create.startsWith("backing") ? shop.file("b.raw") : undefined;
      expect(await amend(path, options, backing)).toBeUndefined();
      expect(readFileSync(path).equals(readFileSync(shop.file("theirs.qcow2")))).toBe(true);
    },
  );

  it("made one of version 2 shows the same over its backing file, and so do its snapshots", async () => {
    using shop = new Workshop();
    const base = new Uint8Array(MIB).fill(9);
    writeFileSync(shop.file("b.raw"), base);
    const path = shop.create(
      "ours.qcow2",
      MIB,
      "cluster_size=4k,backing_file=b.raw,backing_fmt=raw",
    );
    shop.io("ours.qcow2", ...WRITES);
    shop.run("qemu-img", "snapshot", "-c", "one", "ours.qcow2");
    shop.run("qemu-img", "snapshot", "-c", "two", "ours.qcow2");
    shop.io("ours.qcow2", "write -P 7 0 64k", "write -z 512k 64k", "discard 700k 64k");
    shop.run("qemu-img", "snapshot", "-c", "three", "ours.qcow2");
    shop.io("ours.qcow2", "write -P 8 900k 64k");
    copyFileSync(path, shop.file("before.qcow2"));
    expect(await amend(path, { version: "v2" }, shop.file("b.raw"))).toBeUndefined();
    expect(specific(shop, "ours.qcow2")).toMatchObject([
      MIB,
      { data: { compat: "0.10" } },
      { length: 3 },
    ]);
    expectSound(shop, "ours.qcow2");
    for (const snapshot of ["", "one", "two", "three"]) {
      for (const name of ["ours", "before"]) {
        const source = snapshot === "" ? [] : ["-l", `snapshot.name=${snapshot}`];
        shop.run(
          "qemu-img",
          "convert",
          "-f",
          "qcow2",
          ...source,
          "-O",
          "raw",
          `${name}.qcow2`,
          `${name}.raw`,
        );
      }
      const expected = readFileSync(shop.file("before.raw"));
      expectBytes(readFileSync(shop.file("ours.raw")), expected, `snapshot '${snapshot}'`);
    }
  });

  it("of version 2 with snapshots is made one of version 3, and its snapshots stay", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, "compat=0.10");
    shop.io("a.qcow2", "write -P 5 0 200k");
    shop.run("qemu-img", "snapshot", "-c", "one", "a.qcow2");
    const before = specific(shop, "a.qcow2") as unknown[];
    expect(await amend(path, { version: "v3", "refcount-bits": 2 })).toBeUndefined();
    expect((specific(shop, "a.qcow2") as unknown[])[2]).toEqual(before[2]);
    expectSound(shop, "a.qcow2");
  });
});

describe.skipIf(!has)("an image is not amended, in the words of qemu-img", () => {
  const options: readonly { create: string; options: Options; code?: string }[] = [
    { create: "compat=0.10", options: { "lazy-refcounts": true } },
    { create: "compat=0.10", options: { "refcount-bits": 8 } },
    { create: "refcount_bits=8", options: { version: "v2" } },
    { create: "", options: { "refcount-bits": 3 } },
    { create: "", options: { "refcount-bits": 128 } },
    { create: "", options: { size: 1000 } },
    { create: "", options: { "backing-file": "x" } },
    { create: "", options: { "backing-fmt": "raw" } },
    { create: "", options: { "data-file": "x" } },
    { create: "", options: { "data-file-raw": true } },
    { create: "extended_l2=on", options: { version: "v2" }, code: "ENOTSUP" },
  ];
  it.each(options)(
    "created with '$create', amended with $options",
    async ({ create, options: given, code }) => {
      using shop = new Workshop();
      const path = shop.create("a.qcow2", MIB, create);
      const before = readFileSync(path);
      const { err, status } = shop.try(
        "qemu-img",
        "amend",
        "-f",
        "qcow2",
        "-o",
        theirs(given),
        "a.qcow2",
      );
      expect(status).toBe(1);
      const [message, hint] = err.trim().split("\n");
      const error = await amend(path, given);
      expect(error).toMatchObject({
        code: code ?? "EINVAL",
        message: message?.replace("qemu-img: ", ""),
      });
      if (hint !== undefined) expect(error).toMatchObject({ hint });
      expect(readFileSync(path).equals(before)).toBe(true);
    },
  );

  it("whose data file it is about to lose", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, "data_file=d.raw");
    const host = await openImageFile(path, {
      children: { "data-file": onDisk(shop.file("d.raw")) },
    });
    await expect(host.driver.amend?.({ version: "v2" })).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Cannot downgrade an image with a data file",
    });
    await host.close();
  });

  it.each([
    {
      what: "whose snapshot has another size",
      prepare: (shop: Workshop) => {
        shop.run("qemu-img", "snapshot", "-c", "one", "a.qcow2");
        shop.run("qemu-img", "resize", "-q", "a.qcow2", "2M");
      },
      message: "Internal snapshots prevent downgrade of image",
    },
    {
      what: "with clusters compressed by zstd",
      prepare: (shop: Workshop) => {
        writeFileSync(shop.file("b.raw"), new Uint8Array(MIB).fill(3));
        shop.run(
          "qemu-img",
          "convert",
          "-c",
          "-f",
          "raw",
          "-O",
          "qcow2",
          "-o",
          "compression_type=zstd",
          "b.raw",
          "a.qcow2",
        );
      },
      message:
        "Cannot downgrade an image with zstd compression type and existing compressed clusters",
    },
    {
      what: "with bitmaps",
      prepare: (shop: Workshop) => void shop.run("qemu-img", "bitmap", "--add", "a.qcow2", "b"),
      message: "Cannot downgrade an image with bitmaps",
    },
  ])("$what", async ({ prepare, message }) => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    prepare(shop);
    const before = specific(shop, "a.qcow2");
    expect(await amend(path, { version: "v2" })).toMatchObject({ code: "ENOTSUP", message });
    expect(specific(shop, "a.qcow2")).toEqual(before);
    expectSound(shop, "a.qcow2");
  });

  it("whose counts do not fit; nothing is leaked", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    shop.io("a.qcow2", "write 0 1M");
    shop.run("qemu-img", "snapshot", "-c", "one", "a.qcow2");
    const { err } = shop.try(
      "qemu-img",
      "amend",
      "-f",
      "qcow2",
      "-o",
      "refcount_bits=1",
      "a.qcow2",
    );
    const message = err.trim().replace("qemu-img: ", "");
    expect(await amend(path, { "refcount-bits": 1 })).toMatchObject({ code: "EINVAL", message });
    expectSound(shop, "a.qcow2");
  });

  it("that is read-only", async () => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB), { generic: { readOnly: true } });
    await expect(host.driver.amend?.({ version: "v2" })).rejects.toMatchObject({ code: "EROFS" });
    await host.close();
  });
});

describe.skipIf(!has)("an image that is being amended", () => {
  it("with a data file gets another name for it, and none, and is no longer raw", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, "data_file=d.raw,data_file_raw=on");
    const open = () =>
      openImageFile(path, { children: { "data-file": onDisk(shop.file("d.raw")) } });
    const data = async () => {
      const host = await open();
      const info = await host.driver.getInfo?.();
      await host.close();
      const { data: members } = info?.formatSpecific ?? {};
      return members;
    };
    for (const [given, expected] of [
      [
        { "data-file": "other.raw", "data-file-raw": true },
        { "data-file": "other.raw", "data-file-raw": true },
      ],
      [{ "data-file-raw": false }, { "data-file": "other.raw", "data-file-raw": false }],
      [{ "data-file": "" }, { "data-file-raw": false }],
    ] as const) {
      const host = await open();
      await host.driver.amend?.(given);
      await host.close();
      expect(await data()).toMatchObject(expected);
    }
    expect(await data()).not.toHaveProperty("data-file");
  });

  it("tells how far it is and goes on as what it is then", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, "cluster_size=512");
    shop.io("a.qcow2", "write -P 5 0 1M");
    const told: number[] = [];
    const host = await openImageFile(path);
    await host.driver.amend?.({ "refcount-bits": 64, size: 2 * MIB }, (done, total) =>
      told.push(done / total),
    );
    expect(told.at(-1)).toBe(1);
    expect(told).toEqual([...told].sort((one, two) => one - two));
    expect(host.driver.size).toBe(2 * MIB);
    expect(host.resizedCount).toBe(1);
    await host.driver.pwrite?.(MIB, new Uint8Array(MIB).fill(6));
    const expected = new Uint8Array(2 * MIB).fill(5, 0, MIB).fill(6, MIB);
    expectBytes(await contentOf(host.driver), expected, "content");
    await host.driver.amend?.({ "refcount-bits": 16, version: "v2" });
    expect(host.driver.flags.zeroes).toBe(host.driver.flags.zeroes & 0x40);
    await host.driver.pwrite?.(0, new Uint8Array(MIB).fill(7));
    await host.close();
    expectSound(shop, "a.qcow2");
  });
});
