import { readFileSync, statSync, writeFileSync } from "node:fs";
import { RequestFlag } from "@blocklayer/driver";
import { expectBytes, TestHost, testChild } from "@blocklayer/driver-tests";
import { realEnv } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { describe, expect, it } from "vitest";
import { contentOf, onDisk, openImageFile, qcow2 } from "./image-rig.ts";
import { hasPeer, Workshop } from "./peers.ts";

const has = hasPeer("qemu-img") && hasPeer("qemu-io");
const KIB = 1024;
const SIZE = 1024 * KIB;

function open(shop: Workshop): Promise<TestHost> {
  return openImageFile(shop.file("a.qcow2"), {
    children: { "data-file": onDisk(shop.file("d.raw")) },
  });
}

/** Makes an image with this package. */
async function create(shop: Workshop, raw: boolean): Promise<void> {
  writeFileSync(shop.file("a.qcow2"), "");
  writeFileSync(shop.file("d.raw"), "");
  const env = realEnv();
  await using image = await TestHost.open(file, {
    env,
    options: { filename: shop.file("a.qcow2") },
  });
  await using data = await TestHost.open(file, { env, options: { filename: shop.file("d.raw") } });
  const options = { size: SIZE, "data-file": "d.raw", "data-file-raw": raw };
  const parsed = qcow2.createSchema?.parse(options);
  if (parsed === undefined || !parsed.ok) throw new Error("the options do not parse");
  await qcow2.create?.(parsed.value, {
    env,
    file: testChild(image.driver),
    dataFile: testChild(data.driver),
  });
}

/** What both sides say of the image, and of the data file alone where it is the disk. */
async function expectContent(shop: Workshop, expected: Uint8Array, raw: boolean): Promise<void> {
  const host = await open(shop);
  expectBytes(await contentOf(host.driver), expected, "content");
  expect(await host.driver.check?.()).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  await host.close();
  writeFileSync(shop.file("expected.raw"), expected);
  shop.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "a.qcow2", "expected.raw");
  const found = shop.check("a.qcow2");
  expect(found).not.toHaveProperty("corruptions");
  expect(found).not.toHaveProperty("leaks");
  if (raw) expectBytes(readFileSync(shop.file("d.raw")), expected, "data file");
}

describe.skipIf(!has)("an image with an external data file", () => {
  it.each(
    [false, true].flatMap((raw) => (["ours", "theirs"] as const).map((maker) => ({ raw, maker }))),
  )("(raw $raw, made by $maker) is used by both sides in turn", async ({ raw, maker }) => {
    using shop = new Workshop();
    if (maker === "ours") await create(shop, raw);
    else shop.create("a.qcow2", SIZE, `data_file=d.raw,data_file_raw=${raw ? "on" : "off"}`);
    const expected = new Uint8Array(SIZE);
    await expectContent(shop, expected, raw);

    const host = await open(shop);
    await host.driver.pwrite?.(1000, new Uint8Array(300 * KIB).fill(5));
    await host.driver.pwriteZeroes?.(128 * KIB, 64 * KIB);
    await host.driver.pwriteZeroes?.(192 * KIB, 64 * KIB, { flags: RequestFlag.mayUnmap });
    await host.driver.pdiscard?.(0, 64 * KIB);
    await host.driver.pwrite?.(200 * KIB, new Uint8Array(KIB).fill(6));
    await host.close();
    expected
      .fill(5, 1000, 300 * KIB + 1000)
      .fill(0, 128 * KIB, 256 * KIB)
      .fill(0, 0, 64 * KIB);
    expected.fill(6, 200 * KIB, 201 * KIB);
    await expectContent(shop, expected, raw);

    shop.io(
      "a.qcow2",
      "write -P 7 500k 100k",
      "write -z 512k 64k",
      "write -zu 192k 64k",
      "discard 256k 64k",
      "write -P 8 4k 4k",
    );
    expected
      .fill(7, 500 * KIB, 600 * KIB)
      .fill(0, 512 * KIB, 576 * KIB)
      .fill(0, 192 * KIB, 320 * KIB);
    expected.fill(8, 4 * KIB, 8 * KIB);
    await expectContent(shop, expected, raw);

    const again = await open(shop);
    await again.driver.truncate?.(2 * SIZE);
    await again.driver.pwrite?.(SIZE + 100, new Uint8Array(100).fill(9));
    await again.driver.truncate?.(SIZE + 64 * KIB);
    await again.close();
    const longer = new Uint8Array(SIZE + 64 * KIB);
    longer.set(expected);
    longer.fill(9, SIZE + 100, SIZE + 200);
    await expectContent(shop, longer, raw);

    shop.run("qemu-img", "resize", "-q", "a.qcow2", "3M");
    const longest = new Uint8Array(3 * SIZE);
    longest.set(longer);
    await expectContent(shop, longest, raw);
    shop.run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "converted.raw");
    expectBytes(readFileSync(shop.file("converted.raw")), longest, "converted");
    expect(statSync(shop.file("a.qcow2")).size).toBeLessThan(SIZE);
  });

  it.each([
    {
      what: "without the file, and no name for it in the image",
      prepare: (shop: Workshop) => {
        shop.create("a.qcow2", SIZE, "data_file=d.raw");
        shop.run("qemu-img", "amend", "-f", "qcow2", "-o", "data_file=", "a.qcow2");
      },
      children: {},
      message: "'data-file' is required for this image",
    },
    {
      what: "that has none, with one in the options",
      prepare: (shop: Workshop) => {
        shop.create("a.qcow2", SIZE);
        writeFileSync(shop.file("d.raw"), "");
      },
      children: ["data-file"],
      message: "'data-file' can only be set for images with an external data file",
    },
  ])("$what: refused", async ({ prepare, children, message }) => {
    using shop = new Workshop();
    prepare(shop);
    const given = Array.isArray(children) ? { "data-file": onDisk(shop.file("d.raw")) } : {};
    const work = openImageFile(shop.file("a.qcow2"), { children: given });
    await expect(work).rejects.toMatchObject({ code: "EINVAL", message });
  });

  it.each([false, true])("(raw %s) gives space up when guests discard", async (raw) => {
    using shop = new Workshop();
    await create(shop, raw);
    const host = await open(shop);
    const blocks = (): number => statSync(shop.file("d.raw")).blocks;
    await host.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    await host.driver.flush?.();
    const before = blocks();
    await host.driver.pdiscard?.(0, SIZE / 2);
    const between = blocks();
    await host.driver.pwriteZeroes?.(SIZE / 2, SIZE / 4, { flags: RequestFlag.mayUnmap });
    await host.close();
    expect(between).toBeLessThan(before * 0.6);
    expect(blocks()).toBeLessThan(before * 0.4);
    const expected = new Uint8Array(SIZE).fill(5, (SIZE * 3) / 4);
    await expectContent(shop, expected, raw);
  });

  it("has no snapshots", async () => {
    using shop = new Workshop();
    await create(shop, false);
    const host = await open(shop);
    const snapshot = { name: "one", vmStateSize: 0, dateMs: 0, vmClockNs: 0, diskSize: SIZE };
    await expect(host.driver.snapshots?.create(snapshot)).rejects.toMatchObject({
      code: "ENOTSUP",
    });
    await host.close();
  });
});
