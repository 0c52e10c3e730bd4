import { ReferenceDisk, TestHost } from "@blocklayer/driver-tests";
import { rawDefinition } from "@blocklayer/raw";
import { describe, expect, it } from "vitest";

const MIB = 1024 * 1024;

describe("a disk that was only detected to be raw", () => {
  const isMagic = (bytes: Uint8Array): number => (bytes[0] === 0x51 && bytes[1] === 0x46 ? 100 : 0);
  const header = new Uint8Array(1024).fill(1);
  header.set([0x51, 0x46]);
  const openProbed = (
    file: ReferenceDisk,
    options: object = { "x-blocklayer-probed": true },
    readOnly = false,
  ): Promise<TestHost> =>
    TestHost.open(rawDefinition({ otherFormats: [() => 0, isMagic] }), {
      options,
      children: { file },
      generic: { readOnly },
    });

  it("warns, and wants whole sectors", async () => {
    const host = await openProbed(new ReferenceDisk({ size: MIB }));
    expect(host.warnings).toEqual([
      "Image format was not specified for 'file' and probing guessed raw.\nAutomatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\nSpecify the 'raw' format explicitly to remove the restrictions.",
    ]);
    expect(host.driver.limits?.requestAlignment).toBe(512);
  });

  it("does not warn when it is read-only, and is guarded when it is reopened", async () => {
    const host = await openProbed(new ReferenceDisk({ size: MIB }), undefined, true);
    expect(host.warnings).toEqual([]);
    await expect(host.driver.pwrite?.(0, header)).rejects.toMatchObject({ code: "EPERM" });
  });

  it.each([
    ["pwrite", [header]],
    ["pwritev", [header.subarray(0, 1), header.subarray(1)]],
  ] as const)("refuses a forged header by %s and writes none of it", async (operation, parts) => {
    const file = new ReferenceDisk({ size: MIB });
    const { driver } = await openProbed(file);
    const work = operation === "pwrite" ? driver.pwrite?.(0, parts[0]) : driver.pwritev?.(0, parts);
    await expect(work).rejects.toMatchObject({
      code: "EPERM",
      message: "write to sector 0 refused: its content would be recognised as another image format",
      hint: "Specify the 'raw' format explicitly to remove the restrictions.",
      context: { node: "test", operation: "pwrite", offset: 0, length: 512 },
    });
    expect(file.bytes.every((byte) => byte === 0)).toBe(true);
  });

  it("writes the sector that was judged, whatever becomes of the buffer meanwhile", async () => {
    const file = new ReferenceDisk({ size: MIB });
    const host = await openProbed(file);
    host.gate.hold();
    const buffer = new Uint8Array(1024).fill(1);
    const work = host.driver.pwrite?.(0, buffer);
    buffer.set(header);
    host.gate.releaseAll();
    await work;
    expect(file.bytes.slice(0, 512)).toEqual(new Uint8Array(512).fill(1));
  });

  it("writes elsewhere what it likes", async () => {
    const file = new ReferenceDisk({ size: MIB });
    const { driver } = await openProbed(file);
    await driver.pwrite?.(512, header);
    await driver.pwritev?.(2048, [header]);
    await driver.pwriteZeroes?.(0, 512);
    expect(file.bytes.slice(512, 1536)).toEqual(header);
    expect(file.bytes.slice(2048, 3072)).toEqual(header);
  });

  it("copies nothing unseen to sector 0", async () => {
    const { driver } = await openProbed(new ReferenceDisk({ size: MIB }));
    const other = new ReferenceDisk({ size: MIB });
    await expect(driver.copyRangeTo?.(other, 0, 0, 512)).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "a guarded first sector is not copied to unseen",
      context: { operation: "copyRangeTo", offset: 0, length: 512 },
    });
  });

  it("is not guarded when the format was given", async () => {
    const file = new ReferenceDisk({ size: MIB });
    const host = await openProbed(file, {});
    await host.driver.pwrite?.(0, header);
    expect(file.bytes.slice(0, 1024)).toEqual(header);
    expect(host.warnings).toEqual([]);
  });
});
