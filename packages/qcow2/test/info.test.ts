import { Permissions, Role } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import { ImageBytes } from "./image-bytes.ts";
import { onDisk, openImageFile } from "./image-rig.ts";
import { createInMemory, growingFile, openInMemory } from "./memory-image.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img");
const MIB = 2 ** 20;

interface PeerInfo {
  readonly "cluster-size": number;
  readonly "dirty-flag": boolean;
  readonly "format-specific": unknown;
}

function infoOf(shop: Workshop, name: string): PeerInfo {
  return JSON.parse(shop.run("qemu-img", "info", "--output=json", "-f", "qcow2", name)) as PeerInfo;
}

describe.skipIf(!has)("information on an image is that of qemu-img", () => {
  it.each([
    "compat=0.10",
    "compat=1.1",
    "cluster_size=512",
    "lazy_refcounts=on",
    "refcount_bits=1",
    "refcount_bits=64",
    "extended_l2=on",
    "compression_type=zstd",
    "data_file=d.raw",
    "data_file=d.raw,data_file_raw=on",
  ])("created with %s", async (options) => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, options);
    const children = options.startsWith("data_file")
      ? { "data-file": onDisk(shop.file("d.raw")) }
      : {};
    const host = await openImageFile(path, { generic: { readOnly: true }, children });
    const info = await host.driver.getInfo?.();
    const theirs = infoOf(shop, "a.qcow2");
    expect(info?.formatSpecific).toEqual(theirs["format-specific"]);
    expect(info?.clusterSize).toBe(theirs["cluster-size"]);
    expect(info?.isDirty).toBe(theirs["dirty-flag"]);
    expect(await host.driver.allocatedSize?.()).toBeGreaterThan(0);
    await host.close();
  });

  it("marked as damaged and as dirty", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    const bytes = ImageBytes.load(path);
    bytes.or64(72, 3n);
    bytes.save(path);
    const host = await openImageFile(path, { generic: { readOnly: true } });
    const info = await host.driver.getInfo?.();
    const theirs = infoOf(shop, "a.qcow2");
    expect(info?.formatSpecific).toEqual(theirs["format-specific"]);
    expect([info?.isDirty, theirs["dirty-flag"]]).toEqual([true, true]);
    await host.close();
  });

  it("with bitmaps", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB);
    shop.run("qemu-img", "bitmap", "--add", "-g", "4096", "a.qcow2", "one");
    shop.run("qemu-img", "bitmap", "--add", "--disable", "a.qcow2", "two");
    const host = await openImageFile(path, { generic: { readOnly: true } });
    const info = await host.driver.getInfo?.();
    expect(info?.formatSpecific).toEqual(infoOf(shop, "a.qcow2")["format-specific"]);
    await host.close();
    const bytes = ImageBytes.load(path);
    const directory = Number(bytes.u64(bytes.extension(0x23852875) + 16));
    bytes.bytes.fill(0xff, directory, directory + 24);
    bytes.save(path);
    const broken = await openImageFile(path, { generic: { readOnly: true } });
    const { data } = (await broken.driver.getInfo?.())?.formatSpecific ?? {};
    expect(data).not.toHaveProperty("bitmaps");
    await broken.close();
  });
});

describe("permissions on children", () => {
  const { consistentRead, write, writeUnchanged, resize } = Permissions;
  const input = { shared: 15, hasParents: true, writable: true, active: true };
  const file = { name: "file", role: Role.image };

  it.each([
    {
      what: "of a writable image",
      given: { perm: consistentRead },
      perm: consistentRead | write | resize,
      shared: consistentRead | writeUnchanged,
    },
    {
      what: "of a read-only image",
      given: { perm: consistentRead, writable: false },
      perm: consistentRead,
      shared: consistentRead | writeUnchanged,
    },
    {
      what: "of one that was given up",
      given: { perm: 0, writable: false, active: false },
      perm: consistentRead,
      shared: 15,
    },
  ])("$what are those of its file", async ({ given, perm, shared }) => {
    const host = await openInMemory(await createInMemory({ size: MIB }));
    expect(host.driver.childPermissions?.(file, { ...input, ...given })).toEqual({ perm, shared });
    await host.close();
  });

  it("of an image with a data file: its file holds metadata alone", async () => {
    const data = growingFile();
    const bytes = await createInMemory({ size: MIB, "data-file": "d" }, data);
    const host = await openInMemory(bytes, { children: { "data-file": data } });
    const given = { ...input, perm: writeUnchanged, writable: false };
    const metadata = host.driver.childPermissions?.(file, given);
    expect(metadata).toEqual({
      perm: consistentRead | writeUnchanged,
      shared: consistentRead | writeUnchanged,
    });
    const contents = host.driver.childPermissions?.({ name: "data-file", role: Role.data }, given);
    expect(contents).toEqual({
      perm: write | writeUnchanged | resize,
      shared: consistentRead | write | writeUnchanged,
    });
    const below = host.driver.childPermissions?.(
      { name: "backing", role: Role.cow },
      { ...input, perm: 15 },
    );
    expect(below).toEqual({ perm: consistentRead, shared: 15 });
    await host.close();
  });
});
