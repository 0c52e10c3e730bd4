import { expectBytes } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { contentOf, openImageFile } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const MIB = 2 ** 20;

describe.skipIf(!has)("a disk that is resized", () => {
  it.each(
    [
      "cluster_size=64k",
      "cluster_size=512",
      "cluster_size=4k,refcount_bits=64",
      "extended_l2=on",
    ].flatMap((options) =>
      (["off", "metadata", "falloc", "full"] as const).map((preallocation) => ({
        options,
        preallocation,
      })),
    ),
  )("($options) grows with preallocation $preallocation", async ({ options, preallocation }) => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, options);
    shop.io("a.qcow2", "write -P 5 0 1M");
    const host = await openImageFile(path);
    await host.driver.truncate?.(3 * MIB, { preallocation });
    const expected = new Uint8Array(3 * MIB).fill(5, 0, MIB);
    expectBytes(await contentOf(host.driver), expected, "content");
    await host.driver.pwrite?.(2 * MIB + 100, new Uint8Array(5000).fill(6));
    expected.fill(6, 2 * MIB + 100, 2 * MIB + 5100);
    expectBytes(await contentOf(host.driver), expected, "content after a write");
    await host.close();
    const found = shop.check("a.qcow2");
    expect(found).not.toHaveProperty("corruptions");
    expect(found).not.toHaveProperty("leaks");
    if (preallocation !== "off") {
      expect(found["allocated-clusters"]).toBe(found["total-clusters"]);
    }
    shop.run("qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw");
  });

  it("shrinks, gives its space back, and reads as zeroes when it grows again", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", 8 * MIB, "cluster_size=4k");
    shop.io("a.qcow2", "write -P 5 0 8M");
    const host = await openImageFile(path);
    const size = MIB + 1024;
    await host.driver.truncate?.(size);
    expect(host.driver.size).toBe(size);
    await host.driver.truncate?.(2 * MIB);
    const expected = new Uint8Array(2 * MIB).fill(5, 0, size);
    expectBytes(await contentOf(host.driver), expected, "content");
    await host.close();
    const found = shop.check("a.qcow2");
    expect(found).not.toHaveProperty("corruptions");
    expect(found).not.toHaveProperty("leaks");
    expect(found["image-end-offset"]).toBeLessThan(2 * MIB);
  });

  it.each([
    {
      what: "not to whole sectors",
      size: 1000,
      options: {},
      code: "EINVAL",
      message: "The new size must be a multiple of 512",
    },
    {
      what: "to less with preallocation",
      size: 512,
      options: { preallocation: "full" },
      code: "EINVAL",
      message: "Preallocation can't be used for shrinking an image",
    },
  ] as const)("is resized $what: refused", async ({ size, options, code, message }) => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB));
    await expect(host.driver.truncate?.(size, options)).rejects.toMatchObject({ code, message });
    expect(host.driver.size).toBe(MIB);
    await host.close();
  });

  it("is emptied and shows its backing file again", async () => {
    using shop = new Workshop();
    shop.create("base.qcow2", MIB);
    shop.io("base.qcow2", "write -P 9 0 1M");
    shop.run(
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      "-F",
      "qcow2",
      "-b",
      "base.qcow2",
      "top.qcow2",
    );
    shop.io("top.qcow2", "write -P 5 100k 300k", "write -z 500k 64k");
    const base = await openImageFile(shop.file("base.qcow2"), { generic: { readOnly: true } });
    const host = await openImageFile(shop.file("top.qcow2"), {
      children: { backing: base.driver },
    });
    expect((await contentOf(host.driver))[102400]).toBe(5);
    await host.driver.makeEmpty?.();
    expectBytes(await contentOf(host.driver), new Uint8Array(MIB).fill(9), "content");
    await host.close();
    expect(shop.check("top.qcow2")).not.toHaveProperty("leaks");
  });
});
