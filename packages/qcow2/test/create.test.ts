import { readFileSync, writeFileSync } from "node:fs";
import { TestHost, testChild } from "@blocklayer/driver-tests";
import { realEnv } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { describe, expect, it } from "vitest";
import { contentOf, openImageFile, qcow2 } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img");
const MIB = 2 ** 20;

/** Makes an image with this package. */
async function create(path: string, options: Readonly<Record<string, unknown>>): Promise<void> {
  writeFileSync(path, "");
  await using host = await TestHost.open(file, { env: realEnv(), options: { filename: path } });
  const parsed = qcow2.createSchema?.parse(options);
  if (parsed === undefined || !parsed.ok) throw new Error("the options do not parse");
  await qcow2.create?.(parsed.value, { env: realEnv(), file: testChild(host.driver) });
}

const families = [
  { ours: {}, theirs: "" },
  { ours: { "cluster-size": 512 }, theirs: "cluster_size=512" },
  { ours: { "cluster-size": 2097152 }, theirs: "cluster_size=2M" },
  { ours: { version: "v2" }, theirs: "compat=0.10" },
  { ours: { "refcount-bits": 1 }, theirs: "refcount_bits=1" },
  {
    ours: { "refcount-bits": 64, "cluster-size": 4096 },
    theirs: "refcount_bits=64,cluster_size=4k",
  },
  { ours: { "lazy-refcounts": true }, theirs: "lazy_refcounts=on" },
  { ours: { "extended-l2": true }, theirs: "extended_l2=on" },
  { ours: { "compression-type": "zstd" }, theirs: "compression_type=zstd" },
  {
    ours: { "backing-file": "b.raw", "backing-fmt": "raw" },
    theirs: "backing_file=b.raw,backing_fmt=raw",
  },
] as const;

describe.skipIf(!has)("an image that is made here", () => {
  it.each(
    families.flatMap(({ ours, theirs }) =>
      [0, 512, 64 * MIB, 1024 * MIB + 512].map((size) => ({ ours, theirs, size })),
    ),
  )(
    "with $theirs and $size bytes is the one that qemu-img makes",
    async ({ ours, theirs, size }) => {
      using shop = new Workshop();
      writeFileSync(shop.file("b.raw"), new Uint8Array(512));
      shop.create("theirs.qcow2", size, theirs);
      await create(shop.file("ours.qcow2"), { ...ours, size });
      const info = (name: string): unknown => {
        const parsed = JSON.parse(
          shop.run("qemu-img", "info", "--output=json", "-f", "qcow2", name),
        ) as Record<string, unknown>;
        return { ...parsed, filename: "", "actual-size": 0, children: [] };
      };
      expect(info("ours.qcow2")).toEqual(info("theirs.qcow2"));
      const [mine, other] = [
        readFileSync(shop.file("ours.qcow2")),
        readFileSync(shop.file("theirs.qcow2")),
      ];
      // Where many blocks of counts are needed, they lie elsewhere.
      if (theirs === "cluster_size=512") return;
      expect(mine.length).toBe(other.length);
      expect(mine.equals(other)).toBe(true);
    },
  );

  it.each(["metadata", "falloc", "full"] as const)(
    "with preallocation %s is whole",
    async (preallocation) => {
      using shop = new Workshop();
      await create(shop.file("a.qcow2"), { size: 5 * MIB + 512, preallocation });
      const found = shop.check("a.qcow2");
      expect(found).not.toHaveProperty("leaks");
      expect(found).not.toHaveProperty("corruptions");
      expect(found["allocated-clusters"]).toBe(81);
      const host = await openImageFile(shop.file("a.qcow2"));
      expect((await contentOf(host.driver)).every((byte) => byte === 0)).toBe(true);
      await host.close();
    },
  );
});

describe.skipIf(!has)("measuring", () => {
  it.each([
    { options: {}, theirs: "", size: 0 },
    { options: {}, theirs: "", size: 1024 * MIB },
    {
      options: { "cluster-size": 512, "refcount-bits": 1 },
      theirs: "cluster_size=512,refcount_bits=1",
      size: 10240 * MIB,
    },
    { options: { "extended-l2": true }, theirs: "extended_l2=on", size: 100 * MIB + 512 },
    { options: { preallocation: "full" }, theirs: "preallocation=full", size: MIB },
    {
      options: { "cluster-size": 2097152, "refcount-bits": 64 },
      theirs: "cluster_size=2M,refcount_bits=64",
      size: 5000 * MIB,
    },
  ])("says what qemu-img says for $theirs and $size bytes", async ({ options, theirs, size }) => {
    using shop = new Workshop();
    const given = theirs === "" ? [] : ["-o", theirs];
    const out = shop.run(
      "qemu-img",
      "measure",
      "--output=json",
      "-O",
      "qcow2",
      ...given,
      "--size",
      String(size),
    );
    const parsed = qcow2.createSchema?.parse({ ...options, size });
    if (parsed === undefined || !parsed.ok) throw new Error("the options do not parse");
    const { required, fullyAllocated } = (await qcow2.measure?.(parsed.value, undefined)) ?? {};
    const other = JSON.parse(out) as Record<string, number>;
    expect([required, fullyAllocated]).toEqual([other["required"], other["fully-allocated"]]);
  });
});

describe("options that do not go together", () => {
  it.each([
    {
      options: { "cluster-size": 1000 },
      code: "EINVAL",
      message: "Cluster size must be a power of two between 512 and 2048k",
    },
    {
      options: { "cluster-size": 256 },
      code: "EINVAL",
      message: "Cluster size must be a power of two between 512 and 2048k",
    },
    {
      options: { "cluster-size": 4194304 },
      code: "EINVAL",
      message: "Cluster size must be a power of two between 512 and 2048k",
    },
    {
      options: { version: "v2", "lazy-refcounts": true },
      code: "EINVAL",
      message:
        "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    },
    {
      options: { version: "v2", "refcount-bits": 8 },
      code: "EINVAL",
      message:
        "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
    },
    {
      options: { "refcount-bits": 7 },
      code: "EINVAL",
      message: "Refcount width must be a power of two and may not exceed 64 bits",
    },
    {
      options: { "refcount-bits": 128 },
      code: "EINVAL",
      message: "Refcount width must be a power of two and may not exceed 64 bits",
    },
    {
      options: { version: "v2", "extended-l2": true },
      code: "EINVAL",
      message:
        "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    },
    {
      options: { "extended-l2": true, "cluster-size": 8192 },
      code: "EINVAL",
      message: "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
    },
    {
      options: { version: "v2", "compression-type": "zstd" },
      code: "EINVAL",
      message:
        "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    },
    {
      options: { version: "v2", "data-file": "d.raw" },
      code: "EINVAL",
      message:
        "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    },
    {
      options: { "data-file-raw": true },
      code: "EINVAL",
      message: "data-file-raw requires data-file",
    },
    {
      options: { "data-file-raw": true, "data-file": "d", "backing-file": "b" },
      code: "EINVAL",
      message: "Backing file and data-file-raw cannot be used at the same time",
    },
    {
      options: { "backing-fmt": "raw" },
      code: "EINVAL",
      message: "Backing format cannot be used without backing file",
    },
    {
      options: { "backing-file": "b", preallocation: "metadata" },
      code: "EINVAL",
      message:
        "Backing file and preallocation can only be used at the same time if extended_l2 is on",
    },
    {
      options: { "cluster-size": 512, size: 3 * 2 ** 40 },
      code: "EFBIG",
      message:
        "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
    },
  ])("$options: $message", async ({ options, code, message }) => {
    using shop = new Workshop();
    await expect(create(shop.file("a.qcow2"), { size: MIB, ...options })).rejects.toMatchObject({
      code,
      message,
    });
  });
});
