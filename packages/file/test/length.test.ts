import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Permissions } from "@blocklayer/driver";
import { TestHost } from "@blocklayer/driver-tests";
import { manualEnv } from "@blocklayer/env";
import { fileDefinition, hostDeviceDefinition, type OperatingSystem } from "@blocklayer/file";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  hasNative,
  openFile,
  readBytes,
  systemError,
  temporaryDirectory,
  temporaryFile,
  testSystem,
  WAYS,
} from "./harness.ts";

const MIB = 2 ** 20;

describe.each(WAYS)("free space %s", (_name, ffi) => {
  it("is what the file system has left, and an error with its code where that can not be asked", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(MIB), { system });
    expect(await host.driver.freeSpace?.()).toBeGreaterThan(0);
    replace("statfs", () => Promise.reject(systemError("EIO")));
    expect(await errorOf(host.driver.freeSpace?.())).toMatchObject({
      code: "EIO",
      context: { node: "test", operation: "freeSpace" },
    });
  });
});

describe.each(WAYS)("truncate %s", (_name, ffi) => {
  it.each(["off", "falloc", "full"] as const)(
    "makes a file longer, preallocation %s",
    async (preallocation) => {
      const path = temporaryFile(new Uint8Array(5000).fill(1));
      await using host = await openFile(path, { ffi });
      await host.driver.truncate?.(3 * MIB + 5, { preallocation });
      expect(host.driver.size).toBe(3 * MIB + 5);
      expect(statSync(path).size).toBe(3 * MIB + 5);
      expect(await readBytes(host.driver, 4999, 3)).toEqual(Uint8Array.of(1, 0, 0));
      const allocated = (await host.driver.allocatedSize?.()) ?? 0;
      if (preallocation === "off") expect(allocated).toBeLessThan(MIB);
      else expect(allocated).toBeGreaterThanOrEqual(3 * MIB);
    },
  );

  it("makes a file shorter", async () => {
    const path = temporaryFile(MIB);
    await using host = await openFile(path, { ffi });
    await host.driver.truncate?.(1000);
    expect(host.driver.size).toBe(1000);
    expect(statSync(path).size).toBe(1000);
    expect(host.driver.flags.truncateZero).toBe(true);
  });

  it("writes the first block of a file that grows from nothing", async () => {
    await using host = await openFile(temporaryFile(0), { ffi });
    await host.driver.truncate?.(MIB);
    expect(await host.driver.allocatedSize?.()).toBeGreaterThan(0);
  });

  it.each([
    ["metadata", 2 * MIB, "Unsupported preallocation mode 'metadata'"],
    ["falloc", 1000, "Preallocation can't be used for shrinking files"],
    ["full", 1000, "Preallocation can't be used for shrinking files"],
  ] as const)(
    "with preallocation %s to %i is not supported",
    async (preallocation, size, message) => {
      await using host = await openFile(temporaryFile(MIB), { ffi });
      expect(await errorOf(host.driver.truncate?.(size, { preallocation }))).toMatchObject({
        code: "ENOTSUP",
        message,
        context: { node: "test", operation: "truncate" },
      });
      expect(host.driver.size).toBe(MIB);
    },
  );

  it.each(["write", "fdatasync"] as const)(
    "restores the old length when %s fails",
    async (name) => {
      const { system, replace } = await testSystem({ ffi });
      const path = temporaryFile(1000);
      const host = await openFile(path, { system });
      replace(name, () => Promise.reject(systemError("ENOSPC")));
      expect(await errorOf(host.driver.truncate?.(MIB, { preallocation: "full" }))).toMatchObject({
        code: "ENOSPC",
        message: `Failed to resize 'test' to ${MIB} bytes: No space left on device`,
      });
      expect(host.driver.size).toBe(1000);
      expect(statSync(path).size).toBe(1000);
      replace(name, undefined);
      expect(await errorOf(host.close())).toEqual(
        name === "write" ? undefined : expect.objectContaining({ code: "ENOSPC" }),
      );
    },
  );

  it("tells the first of two failures", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(1000), { system });
    replace("ftruncate", (_fd, size) =>
      Promise.reject(systemError(size === 1000 ? "EIO" : "EFBIG")),
    );
    expect(await errorOf(host.driver.truncate?.(MIB))).toMatchObject({ code: "EFBIG" });
  });

  it("stops when it is aborted, and restores the old length", async () => {
    const { system, replace } = await testSystem({ ffi });
    const path = temporaryFile(1000);
    await using host = await openFile(path, { system });
    const controller = new AbortController();
    const { write } = system;
    replace("write", (...args) => {
      controller.abort("enough");
      return write(...args);
    });
    const { signal } = controller;
    const attempt = host.driver.truncate?.(8 * MIB, { preallocation: "full", signal });
    expect(await errorOf(attempt)).toBe("enough");
    expect(statSync(path).size).toBe(1000);
  });

  it("works on a file that bypasses the page cache", async () => {
    const { system, open } = await testSystem({ ffi });
    const host = await openFile(temporaryFile(0), { system, generic: { cacheDirect: true } });
    await host.driver.truncate?.(MIB, { preallocation: "full" });
    expect(open.size).toBe(1);
    expect(await readBytes(host.driver, 4096, 4096)).toEqual(new Uint8Array(4096));
    await host.close();
    expect(open.size).toBe(0);
  });
});

describe.each(WAYS)("create %s", (_name, ffi) => {
  const context = { env: manualEnv() };
  const options = { size: MIB, preallocation: "off", nocow: false, "extent-size-hint": MIB };

  function definitionOf(system?: OperatingSystem) {
    return fileDefinition(system === undefined ? { ffi } : { system });
  }

  it.each(["off", "falloc", "full"])("makes a file, preallocation %s", async (preallocation) => {
    const filename = join(temporaryDirectory(), "new.img");
    const { createSchema, create } = definitionOf();
    const parsed = createSchema?.parse({ filename, size: MIB, preallocation, nocow: true });
    expect(parsed?.ok).toBe(true);
    await create?.(parsed?.ok === true ? parsed.value : {}, context);
    expect(statSync(filename).size).toBe(MIB);
    expect(statSync(filename).mode & 0o777 & ~0o022).toBe(0o644 & ~0o022);
    expect(Buffer.compare(readFileSync(filename), Buffer.alloc(MIB))).toBe(0);
  });

  it("empties a file that is there", async () => {
    const filename = temporaryFile(new Uint8Array(2 * MIB).fill(1));
    await definitionOf().create?.({ ...options, filename }, context);
    expect(Buffer.compare(readFileSync(filename), Buffer.alloc(MIB))).toBe(0);
  });

  it("reports a place where it cannot be", async () => {
    const filename = "/nonexistent/disk";
    expect(await errorOf(definitionOf().create?.({ ...options, filename }, context))).toMatchObject(
      {
        code: "ENOENT",
        message: "Could not create '/nonexistent/disk': No such file or directory",
      },
    );
  });

  it("refuses what is no file", async () => {
    const filename = join(temporaryDirectory(), "directory");
    mkdirSync(filename);
    expect(await errorOf(definitionOf().create?.({ ...options, filename }, context))).toMatchObject(
      {
        code: "EISDIR",
      },
    );
    const zero = definitionOf().create?.({ ...options, filename: "/dev/zero" }, context);
    expect(await errorOf(zero)).toMatchObject({
      code: "EINVAL",
      message: "'file' driver requires '/dev/zero' to be a regular file",
    });
  });

  it.each(["ftruncate", "write", "fsync", "fstat"] as const)(
    "leaves nothing behind when %s fails",
    async (name) => {
      const { system, replace, open } = await testSystem({ ffi });
      replace(name, () => Promise.reject(systemError("EIO")));
      const filename = join(temporaryDirectory(), "new.img");
      const create = definitionOf(system).create?.(
        { ...options, preallocation: "full", filename },
        context,
      );
      expect(await errorOf(create)).toMatchObject({ code: "EIO" });
      expect(open.size).toBe(0);
      expect(existsSync(filename)).toBe(false);
    },
  );

  it("keeps a file that was there when it fails", async () => {
    const { system, replace, open } = await testSystem({ ffi });
    replace("ftruncate", () => Promise.reject(systemError("EIO")));
    const filename = temporaryFile(10);
    const create = definitionOf(system).create?.({ ...options, filename }, context);
    expect(await errorOf(create)).toMatchObject({ code: "EIO" });
    expect(open.size).toBe(0);
    expect(existsSync(filename)).toBe(true);
  });

  it("stops when it is aborted", async () => {
    const signal = AbortSignal.abort("enough");
    const filename = join(temporaryDirectory(), "new.img");
    const create = definitionOf().create?.({ ...options, filename }, { ...context, signal });
    expect(await errorOf(create)).toBe("enough");
    expect(existsSync(filename)).toBe(false);
  });

  it.runIf(hasNative && ffi)("refuses a file that somebody else holds for writing", async () => {
    const filename = temporaryFile(10);
    await using host = await openFile(filename, { locking: "on" });
    const claim = { perm: Permissions.write, shared: Permissions.consistentRead };
    await host.driver.preparePermissions?.(claim);
    host.driver.setPermissions?.(claim);
    const create = definitionOf().create?.({ ...options, filename }, context);
    expect(await errorOf(create)).toMatchObject({
      code: "EAGAIN",
      message: 'Failed to get "write" lock',
    });
    expect(statSync(filename).size).toBe(10);
  });
});

describe.each(WAYS)("a device %s", (_name, ffi) => {
  const SIZE = 12_345 * 512;

  /** A system to which a file looks like a block device. */
  async function deviceSystem(withText: boolean) {
    const test = await testSystem({ ffi, native: { deviceSize: () => SIZE } });
    const { stat, fstat } = test.system;
    const asDevice = { kind: "block", size: 0, device: 0xfe_10 } as const;
    test.replace("stat", async (path) => ({ ...(await stat(path)), ...asDevice }));
    test.replace("fstat", async (fd) => ({ ...(await fstat(fd)), ...asDevice }));
    const asked: string[] = [];
    test.replace("readText", (path) => {
      asked.push(path);
      return withText ? Promise.resolve("12345\n") : Promise.reject(systemError("ENOENT"));
    });
    return { ...test, asked, path: temporaryFile(SIZE) };
  }

  async function openDevice(withText = true) {
    const test = await deviceSystem(withText);
    const host = await TestHost.open(hostDeviceDefinition({ system: test.system }), {
      options: { filename: test.path, locking: "off" },
    });
    return { ...test, host, driver: host.driver };
  }

  it.each([true, false])("tells its size (kernel's text files: %s)", async (withText) => {
    const { host, driver, asked } = await openDevice(withText);
    expect(driver.driverName).toBe("host_device");
    expect(driver.size).toBe(SIZE);
    if (!ffi || !hasNative) expect(asked).toEqual(["/sys/dev/block/254:16/size"]);
    await host.close();
  });

  it("has the length it has", async () => {
    const { host, driver } = await openDevice();
    await driver.truncate?.(SIZE);
    await driver.truncate?.(512, { exact: false });
    expect(driver.size).toBe(SIZE);
    expect(await errorOf(driver.truncate?.(512))).toMatchObject({
      code: "ENOTSUP",
      message: "Cannot resize device files",
    });
    expect(await errorOf(driver.truncate?.(SIZE + 512, { exact: false }))).toMatchObject({
      code: "EINVAL",
      message: "Cannot grow device files",
    });
    expect(await errorOf(driver.truncate?.(SIZE, { preallocation: "full" }))).toMatchObject({
      code: "ENOTSUP",
      message: "Preallocation mode 'full' unsupported for this non-regular file",
    });
    expect(driver.flags.truncateZero).toBe(false);
    await host.close();
  });

  it("is looked at by create and not changed", async () => {
    const { system, path, open } = await deviceSystem(true);
    const { create } = hostDeviceDefinition({ system });
    const options = { filename: path, preallocation: "off", nocow: false, "extent-size-hint": 0 };
    const context = { env: manualEnv() };
    await create?.({ ...options, size: SIZE }, context);
    expect(await errorOf(create?.({ ...options, size: SIZE + 1 }, context))).toMatchObject({
      code: "EINVAL",
      message: "Cannot grow device files",
    });
    expect(open.size).toBe(0);
    expect(statSync(path).size).toBe(SIZE);
  });

  it("is not a regular file", async () => {
    const path = temporaryFile(10);
    const attempt = TestHost.open(hostDeviceDefinition({ ffi }), { options: { filename: path } });
    expect(await errorOf(attempt)).toMatchObject({
      code: "EINVAL",
      message: `'host_device' driver requires '${path}' to be a block device`,
    });
  });
});

it.runIf(hasNative)("a device that does not tell its size is not opened", async () => {
  const { system, replace, open } = await testSystem({ native: { deviceSize: () => -5 } });
  const { stat } = system;
  replace("stat", async (name) => ({ ...(await stat(name)), kind: "block" }));
  const path = temporaryFile(10);
  const attempt = TestHost.open(hostDeviceDefinition({ system }), { options: { filename: path } });
  expect(await errorOf(attempt)).toMatchObject({
    code: "EIO",
    message: "asking for the size of the device failed: Input/output error",
  });
  expect(open.size).toBe(0);
});
