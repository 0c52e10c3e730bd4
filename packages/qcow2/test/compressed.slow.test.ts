import { statSync, writeFileSync } from "node:fs";
import { RequestFlag } from "@blocklayer/driver";
import { expectBytes, patternBytes } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { contentOf, openImageFile } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const compressed = { flags: RequestFlag.compressed };

/** A disk that ends within a cluster: text, zeroes, and what does not become shorter. */
function disk(clusterSize: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(200 * 1024, 6 * clusterSize) + 1536);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = (at % 251) ^ Math.floor(at / 5000);
  bytes.fill(0, 2 * clusterSize, 3 * clusterSize);
  bytes.set(patternBytes(2 * clusterSize, 7), 3 * clusterSize);
  return bytes;
}

const families = (["zlib", "zstd"] as const).flatMap((type) =>
  [512, 4096, 65536, 2 ** 21].map((clusterSize) => ({ type, clusterSize })),
);

describe.skipIf(!has)("a compressed image", () => {
  it.each(families)(
    "of qemu-img ($type, clusters of $clusterSize) is read",
    async ({ type, clusterSize }) => {
      using shop = new Workshop();
      const content = disk(clusterSize);
      writeFileSync(shop.file("a.raw"), content);
      const options = `compression_type=${type},cluster_size=${clusterSize}`;
      shop.run(
        "qemu-img",
        "convert",
        "-c",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        options,
        "a.raw",
        "a.qcow2",
      );
      const host = await openImageFile(shop.file("a.qcow2"));
      expectBytes(await contentOf(host.driver), content, "content");
      const part = new Uint8Array(clusterSize);
      await host.driver.pread(clusterSize / 2 + 1, part);
      expectBytes(part, content.subarray(clusterSize / 2 + 1).subarray(0, part.length), "a part");
      const found = await host.driver.check?.();
      expect(found).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      expect(found?.compressedClusters).toBe(shop.check("a.qcow2")["compressed-clusters"]);
      await host.close();
    },
  );

  it.each(families)(
    "of ours ($type, clusters of $clusterSize) is read by qemu",
    async ({ type, clusterSize }) => {
      using shop = new Workshop();
      const content = disk(clusterSize);
      writeFileSync(shop.file("a.raw"), content);
      const path = shop.create(
        "a.qcow2",
        content.length,
        `compression_type=${type},cluster_size=${clusterSize}`,
      );
      const host = await openImageFile(path);
      for (let at = 0; at < content.length; at += 4 * clusterSize) {
        await host.driver.pwrite?.(at, content.subarray(at, at + 4 * clusterSize), compressed);
      }
      expectBytes(await contentOf(host.driver), content, "content");
      await host.close();
      shop.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "a.qcow2", "a.raw");
      shop.run("qemu-img", "compare", "-T", "none", "-f", "qcow2", "-F", "raw", "a.qcow2", "a.raw");
      const found = shop.check("a.qcow2");
      expect(found).not.toHaveProperty("corruptions");
      expect(found).not.toHaveProperty("leaks");
      if (clusterSize > 512) expect(found["compressed-clusters"]).toBeGreaterThan(2);
      // Clusters share sectors, and can be written over by either side.
      shop.io("a.qcow2", "write -P 9 100 70000");
      content.fill(9, 100, 70100);
      const again = await openImageFile(path);
      expectBytes(await contentOf(again.driver), content, "content after a write of qemu");
      await again.driver.pwrite?.(1000, new Uint8Array(120000).fill(8));
      await again.close();
      writeFileSync(shop.file("a.raw"), content.fill(8, 1000, 121000));
      shop.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "a.qcow2", "a.raw");
      expect(shop.check("a.qcow2")).not.toHaveProperty("leaks");
    },
  );

  it.each(["zlib", "zstd"])(
    "whose file ends within the data of %s is read by qemu",
    async (type) => {
      using shop = new Workshop();
      const path = shop.create("a.qcow2", 2 ** 20, `compression_type=${type}`);
      const host = await openImageFile(path);
      const content = new Uint8Array(2 ** 20);
      content.set(disk(65536).subarray(0, 65536));
      await host.driver.pwrite?.(0, content.subarray(0, 65536), compressed);
      await host.close();
      writeFileSync(shop.file("a.raw"), content);
      expect(statSync(path).size % 512).not.toBe(0);
      shop.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "a.qcow2", "a.raw");
      shop.run(
        "qemu-io",
        "--image-opts",
        "driver=qcow2,file.driver=file,file.filename=a.qcow2,file.cache.direct=on",
        "-c",
        "read 0 64k",
      );
    },
  );
});
