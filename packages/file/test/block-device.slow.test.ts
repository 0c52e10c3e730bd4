import { constants } from "node:fs";
import { TestHost } from "@blocklayer/driver-tests";
import { hostDeviceDefinition } from "@blocklayer/file";
import { afterAll, describe, expect, it } from "vitest";
import { errorOf, readBytes, temporaryFile, WAYS } from "./harness.ts";
import { run } from "./peer.ts";

const SIZE = 3 * 2 ** 20 + 512;

/** A real block device over a file, where this process may make one. */
function loopDevice(): string | undefined {
  const { code, text } = run("losetup", ["-f", "--show", temporaryFile(SIZE)]);
  if (code === 0) return text.trim();
  process.stderr.write("tests with a block device are skipped: none can be made here\n");
  return undefined;
}

const device = process.platform === "linux" ? loopDevice() : undefined;

afterAll(() => {
  if (device !== undefined) run("losetup", ["-d", device]);
});

describe.runIf(device !== undefined).each(WAYS)("a block device %s", (_name, ffi) => {
  const open = (cacheDirect = false): Promise<TestHost> =>
    TestHost.open(hostDeviceDefinition({ ffi }), {
      options: { filename: device, locking: "off" },
      generic: { cacheDirect },
    });

  it.each(constants.O_DIRECT === undefined ? [false] : [false, true])(
    "is read and written (page cache bypassed: %s)",
    async (cacheDirect) => {
      await using host = await open(cacheDirect);
      expect(host.driver.size).toBe(SIZE);
      const bytes = new Uint8Array(8192).fill(0x77);
      await host.driver.pwrite?.(4096, bytes);
      await host.driver.flush?.();
      expect(await readBytes(host.driver, 4096, 8192)).toEqual(bytes);
      expect(host.driver.size).toBe(SIZE);
    },
  );

  it("is zeroed and discarded", async () => {
    await using host = await open();
    if (host.driver.pwriteZeroes === undefined) return;
    const bytes = new Uint8Array(65_536).fill(0x55);
    await host.driver.pwrite?.(0, bytes);
    await host.driver.pwriteZeroes(4096, 4096);
    expect(await readBytes(host.driver, 4096, 4096)).toEqual(new Uint8Array(4096));
    const error = await errorOf(host.driver.pdiscard?.(16_384, 16_384));
    if (error === undefined) {
      expect(await readBytes(host.driver, 16_384, 16_384)).toEqual(new Uint8Array(16_384));
    } else expect(error).toMatchObject({ code: "ENOTSUP" });
    expect(await readBytes(host.driver, 0, 4096)).toEqual(bytes.subarray(0, 4096));
  });
});
