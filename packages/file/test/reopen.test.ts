import { Permissions } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  openFile,
  readBytes,
  systemError,
  temporaryFile,
  testSystem,
  WAYS,
} from "./harness.ts";

const READ = { perm: Permissions.consistentRead, shared: 15 };
const WRITE = { perm: Permissions.consistentRead | Permissions.write, shared: 15 };

describe.each(WAYS)("reopening %s", (_name, ffi) => {
  it("does not change the file name", async () => {
    const path = temporaryFile();
    await using host = await openFile(path, { ffi });
    const options = { filename: `${path}2`, locking: "off", aio: "threads" };
    expect(await errorOf(host.driver.prepareReopen?.({ options, readOnly: false }))).toMatchObject({
      code: "EINVAL",
      message: "Cannot change the option 'filename'",
      context: { node: "test", option: "filename" },
    });
  });

  it("changes between reading and writing, and back when it is aborted", async () => {
    const { system, open } = await testSystem({ ffi });
    const path = temporaryFile();
    const host = await openFile(path, { system });
    const options = { filename: path, locking: "off", aio: "threads" };
    const reopen = async (readOnly: boolean, end: "commit" | "abort"): Promise<void> => {
      const prepared = await host.driver.prepareReopen?.({ options, readOnly });
      prepared?.[end]();
      await prepared?.clean?.();
    };
    const canWrite = async (): Promise<boolean> =>
      (await errorOf(host.driver.pwrite?.(0, new Uint8Array(1)))) === undefined;
    await reopen(true, "abort");
    expect(await canWrite()).toBe(true);
    await reopen(true, "commit");
    expect(await canWrite()).toBe(false);
    await reopen(false, "abort");
    expect(await canWrite()).toBe(false);
    await reopen(false, "commit");
    expect(await canWrite()).toBe(true);
    expect(open.size).toBe(1);
    await host.close();
    expect(open.size).toBe(0);
  });

  it("to writing lets a writer come in the same change, under auto-read-only", async () => {
    const { system, open } = await testSystem({ ffi });
    const path = temporaryFile();
    const host = await openFile(path, {
      system,
      autoReadOnly: true,
      generic: { readOnly: true },
    });
    const { driver } = host;
    const options = { filename: path, locking: "off", aio: "threads" };
    await driver.preparePermissions?.(WRITE);
    expect(() => driver.checkPermissions?.(WRITE)).toThrow();
    driver.abortPermissions?.();
    const prepared = await driver.prepareReopen?.({ options, readOnly: false });
    await driver.preparePermissions?.(WRITE);
    expect(() => driver.checkPermissions?.(WRITE)).not.toThrow();
    prepared?.commit();
    driver.setPermissions?.(WRITE);
    await prepared?.clean?.();
    await driver.pwrite?.(0, new Uint8Array(1));
    const back = await driver.prepareReopen?.({ options, readOnly: true });
    await driver.preparePermissions?.(READ);
    expect(() => driver.checkPermissions?.(WRITE)).toThrow();
    driver.setPermissions?.(READ);
    back?.commit();
    await back?.clean?.();
    expect(await errorOf(driver.pwrite?.(0, new Uint8Array(1)))).toMatchObject({ code: "EBADF" });
    expect(open.size).toBe(1);
    await host.close();
    expect(open.size).toBe(0);
  });

  it("fails when the file cannot be opened for writing, and leaves it as it was", async () => {
    const { system, open, replace } = await testSystem({ ffi });
    const path = temporaryFile();
    const host = await openFile(path, { system, generic: { readOnly: true } });
    const options = { filename: path, locking: "off", aio: "threads" };
    replace("open", () => Promise.reject(systemError("EACCES")));
    expect(await errorOf(host.driver.prepareReopen?.({ options, readOnly: false }))).toMatchObject({
      code: "EACCES",
      message: "Could not reopen file: Permission denied",
    });
    await readBytes(host.driver, 0, 10);
    await host.close();
    expect(open.size).toBe(0);
  });

  it("to reading fails when what was written cannot be made stable", async () => {
    const { system, open, replace } = await testSystem({ ffi });
    const path = temporaryFile();
    const host = await openFile(path, { system });
    replace("fdatasync", () => Promise.reject(systemError("EIO")));
    const options = { filename: path, locking: "off", aio: "threads" };
    const attempt = host.driver.prepareReopen?.({ options, readOnly: true });
    expect(await errorOf(attempt)).toMatchObject({ code: "EIO" });
    expect(await errorOf(host.close())).toMatchObject({ code: "EIO" });
    expect(open.size).toBe(0);
  });
});

describe.each(WAYS)("closing %s", (_name, ffi) => {
  it("flushes, closes everything, and does it once", async () => {
    const { system, open, calls } = await testSystem({ ffi });
    const host = await openFile(temporaryFile(), { system });
    await host.driver.pwrite?.(0, new Uint8Array(1));
    expect(host.driver.close()).toBe(host.driver.close());
    await host.close();
    await host.driver[Symbol.asyncDispose]();
    expect(calls.filter((name) => name === "fdatasync")).toHaveLength(1);
    expect(open.size).toBe(0);
  });

  it("leaves nothing that could reach another file", async () => {
    const host = await openFile(temporaryFile(), { ffi });
    await host.close();
    // The number of the descriptor is another file's by now.
    await using other = await openFile(temporaryFile(), { ffi });
    for (const call of [
      () => host.driver.pread(0, new Uint8Array(4096)),
      () => host.driver.pwrite?.(0, new Uint8Array(4096).fill(1)),
      () => host.driver.pwritev?.(0, [new Uint8Array(4096).fill(1)]),
      () => host.driver.truncate?.(0),
      () => host.driver.flush?.(),
      () => host.driver.allocatedSize?.(),
    ]) {
      expect(await errorOf(call())).toMatchObject({ code: "ESHUTDOWN" });
    }
    expect(other.driver.size).toBe(2 ** 20);
    expect(await readBytes(other.driver, 0, 4096)).toEqual(new Uint8Array(4096));
  });

  it("reports a descriptor that cannot be closed", async () => {
    const { system, replace } = await testSystem({ ffi });
    const host = await openFile(temporaryFile(), { system });
    const { close } = system;
    replace("close", async (fd) => {
      await close(fd);
      throw systemError("EIO");
    });
    expect(await errorOf(host.close())).toMatchObject({
      code: "EIO",
      message: "closing failed: Input/output error",
    });
  });
});
