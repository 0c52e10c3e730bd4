import { expectBytes, type TestHost } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { contentOf, openImageFile } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const MIB = 2 ** 20;

const info = (
  name: string,
  diskSize = 2 * MIB,
): Parameters<NonNullable<TestHost["driver"]["snapshots"]>["create"]>[0] => ({
  name,
  vmStateSize: 0,
  dateMs: 1_600_000_000_123,
  vmClockNs: 0,
  diskSize,
});

function expectClean(shop: Workshop, name: string): void {
  const found = shop.check(name);
  expect(found).not.toHaveProperty("corruptions");
  expect(found).not.toHaveProperty("leaks");
}

describe
  .skipIf(!has)
  .each([
    "cluster_size=64k",
    "cluster_size=512",
    "cluster_size=4k,refcount_bits=8",
    "extended_l2=on",
    "compat=0.10",
  ])("internal snapshots of an image with %s", (options) => {
  it("are created, applied and deleted, with each side reading the other's", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", 2 * MIB, options);
    shop.io("a.qcow2", "write -P 1 0 1M");
    const host = await openImageFile(path);
    const { driver } = host;
    await driver.snapshots?.create(info("first"));
    const first = await contentOf(driver);
    await driver.pwrite?.(100_000, new Uint8Array(200_000).fill(2));
    await driver.pwrite?.(1_500_000, new Uint8Array(50_000).fill(3));
    await driver.snapshots?.create(info("second"));
    const second = await contentOf(driver);
    await driver.pwriteZeroes?.(0, 65536);
    await driver.pwrite?.(90_000, new Uint8Array(100).fill(4));
    const third = await contentOf(driver);
    expect((await driver.snapshots?.list())?.map(({ id, name }) => [id, name])).toEqual([
      ["1", "first"],
      ["2", "second"],
    ]);
    await host.close();
    expectClean(shop, "a.qcow2");
    expect(shop.run("qemu-img", "snapshot", "-l", "a.qcow2")).toMatch(/1 +first.*\n2 +second/);

    const again = await openImageFile(path);
    expectBytes(await contentOf(again.driver), third, "the disk");
    await again.driver.snapshots?.apply("first");
    expectBytes(await contentOf(again.driver), first, "the first snapshot");
    await again.driver.pwrite?.(0, new Uint8Array(4096).fill(9));
    await again.driver.snapshots?.apply("2");
    expectBytes(await contentOf(again.driver), second, "the second snapshot");
    await again.driver.snapshots?.delete("1");
    expectBytes(await contentOf(again.driver), second, "the disk after a deletion");
    await again.close();
    expectClean(shop, "a.qcow2");

    shop.run("qemu-img", "snapshot", "-c", "theirs", "a.qcow2");
    shop.io("a.qcow2", "write -P 7 0 128k");
    const last = await openImageFile(path);
    await last.driver.snapshots?.apply("theirs");
    expectBytes(await contentOf(last.driver), second, "their snapshot");
    await last.driver.snapshots?.delete("theirs");
    await last.driver.snapshots?.delete("second");
    expectBytes(await contentOf(last.driver), second, "the disk at the end");
    await last.close();
    expectClean(shop, "a.qcow2");
  });
});

describe.skipIf(!has)("a snapshot", () => {
  it.each(["apply", "delete"] as const)("that there is not: %s is refused", async (verb) => {
    using shop = new Workshop();
    const host = await openImageFile(shop.create("a.qcow2", MIB));
    await expect(host.driver.snapshots?.[verb]("nobody")).rejects.toMatchObject({
      code: "ENOENT",
      message: "Can't find snapshot 'nobody'",
    });
    await host.close();
  });

  it("of counts of one bit is refused, and nothing is changed", async () => {
    using shop = new Workshop();
    const path = shop.create("a.qcow2", MIB, "refcount_bits=1");
    shop.io("a.qcow2", "write -P 1 0 1M");
    const host = await openImageFile(path);
    await expect(host.driver.snapshots?.create(info("s"))).rejects.toMatchObject({
      code: "EINVAL",
    });
    await host.close();
    expectClean(shop, "a.qcow2");
  });

  it("of an image with compressed clusters keeps them", async () => {
    using shop = new Workshop();
    shop.create("b.qcow2", MIB);
    shop.io("b.qcow2", "write -P 1 0 1M");
    shop.run("qemu-img", "convert", "-c", "-O", "qcow2", "b.qcow2", "a.qcow2");
    const host = await openImageFile(shop.file("a.qcow2"));
    await host.driver.snapshots?.create(info("s", MIB));
    await host.driver.pwrite?.(0, new Uint8Array(70_000).fill(2));
    await host.driver.snapshots?.apply("s");
    expectBytes(await contentOf(host.driver), new Uint8Array(MIB).fill(1), "the snapshot");
    await host.driver.snapshots?.delete("s");
    await host.close();
    expectClean(shop, "a.qcow2");
  });
});
