import { readFileSync } from "node:fs";
import { expectBytes } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { contentOf, openImageFile } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");

describe.skipIf(!has)("an image that qemu-img made", () => {
  it.each([
    "cluster_size=64k",
    "cluster_size=512,refcount_bits=1",
    "cluster_size=4k,refcount_bits=64",
    "extended_l2=on",
    "compat=0.10",
    "lazy_refcounts=on",
    "compression_type=zstd",
  ])("with %s reads as it was written, and what is written here reads there", async (options) => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", 4194304, options);
    shop.io("a.qcow2", "write -P 17 1000 70000", "write -P 18 -c 1M 64k", "write -P 19 2M 3k");
    const host = await openImageFile(path);
    const content = await contentOf(host.driver);
    expect([content[999], content[1000], content[70999], content[71000]]).toEqual([0, 17, 17, 0]);
    expect([content[1048576], content[1114111], content[2097152]]).toEqual([18, 18, 19]);
    content.fill(33, 2_000_000, 2_300_000);
    await host.driver.pwrite?.(2_000_000, content.subarray(2_000_000, 2_300_000));
    content.fill(34, 1_050_000, 1_050_100);
    await host.driver.pwrite?.(1_050_000, content.subarray(1_050_000, 1_050_100));
    await host.close();
    expect(shop.check("a.qcow2")).not.toHaveProperty("corruptions");
    expect(shop.check("a.qcow2")).not.toHaveProperty("leaks");
    shop.run("qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw");
    expectBytes(new Uint8Array(readFileSync(shop.file("a.raw"))), content, "what qemu-img reads");
  });
});
