import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Permissions } from "@blocklayer/driver";
import { TestHost } from "@blocklayer/driver-tests";
import { file, fileDefinition, hostDevice, type OperatingSystem } from "@blocklayer/file";
import { describe, expect, it, vi } from "vitest";
import {
  errorOf,
  hasNative,
  nextTurn,
  openFile,
  readBytes,
  systemError,
  temporaryDirectory,
  temporaryFile,
  testSystem,
  WAYS,
} from "./harness.ts";
import { run } from "./peer.ts";

const READ = { perm: Permissions.consistentRead, shared: 15 };
const WRITE = { perm: Permissions.consistentRead | Permissions.write, shared: 15 };

/** How files were opened: `O_ACCMODE` bits of each call. */
function watchModes(system: OperatingSystem, replace: (call: OperatingSystem["open"]) => void) {
  const modes: string[] = [];
  const real = system.open;
  replace((path, flags, mode) => {
    modes.push((flags & 3) === 0 ? "read" : "write");
    return real(path, flags, mode);
  });
  return modes;
}

describe.each(WAYS)("opening %s", (_name, ffi) => {
  it("tells how long the file is", async () => {
    await using host = await openFile(temporaryFile(12_345), { ffi });
    expect(host.driver.size).toBe(12_345);
    expect(host.driver.driverName).toBe("file");
    expect(await host.driver.getInfo?.()).toEqual({});
  });

  it("refuses a directory, a named pipe and a device", async () => {
    const directory = temporaryDirectory();
    const pipe = join(directory, "pipe");
    run("mkfifo", [pipe]);
    for (const path of [directory, pipe, "/dev/zero"]) {
      expect(await errorOf(openFile(path, { ffi }))).toMatchObject({
        code: "EINVAL",
        message: `'file' driver requires '${path}' to be a regular file`,
        context: { node: "test", fileName: path },
      });
    }
  });

  it("reports what is not there", async () => {
    expect(await errorOf(openFile("/nonexistent/disk", { ffi }))).toMatchObject({
      code: "ENOENT",
      message: "Could not open '/nonexistent/disk': No such file or directory",
    });
  });

  it("opens a read-only node for reading", async () => {
    const { system, replace } = await testSystem({ ffi });
    const modes = watchModes(system, (call) => replace("open", call));
    await using host = await openFile(temporaryFile(), { system, generic: { readOnly: true } });
    expect(modes).toEqual(["read"]);
    await host.driver.preparePermissions?.(WRITE);
    expect(() => host.driver.checkPermissions?.(WRITE)).toThrow(
      expect.objectContaining({ code: "EACCES", message: "Block node is read-only" }),
    );
    host.driver.abortPermissions?.();
    expect(() => host.driver.checkPermissions?.(READ)).not.toThrow();
    expect(modes).toEqual(["read"]);
  });

  it("opens a node that is not read-only for writing at once", async () => {
    const { system, replace } = await testSystem({ ffi });
    const modes = watchModes(system, (call) => replace("open", call));
    await using _host = await openFile(temporaryFile(), { system });
    expect(modes).toEqual(["write"]);
  });

  it("reports a file that cannot be written", async () => {
    const { system, replace } = await testSystem({ ffi });
    replace("open", () => Promise.reject(systemError("EACCES")));
    const path = temporaryFile();
    expect(await errorOf(openFile(path, { system }))).toMatchObject({
      code: "EACCES",
      message: `Could not open '${path}': Permission denied`,
    });
  });
});

describe.each(WAYS)("auto-read-only %s", (_name, ffi) => {
  async function open() {
    const test = await testSystem({ ffi });
    const modes = watchModes(test.system, (call) => test.replace("open", call));
    const path = temporaryFile();
    const host = await openFile(path, { system: test.system, autoReadOnly: true });
    return { ...test, modes, path, host, driver: host.driver };
  }

  it("opens for writing when a writer comes, and for reading when it goes", async () => {
    const { modes, host, driver, open: descriptors } = await open();
    expect(modes).toEqual(["read"]);
    await driver.preparePermissions?.(WRITE);
    expect(() => driver.checkPermissions?.(WRITE)).not.toThrow();
    driver.setPermissions?.(WRITE);
    expect(modes).toEqual(["read", "write"]);
    await driver.pwrite?.(100, new Uint8Array(10).fill(7));
    await driver.preparePermissions?.(READ);
    driver.setPermissions?.(READ);
    expect(modes).toEqual(["read", "write", "read"]);
    expect(await readBytes(driver, 100, 10)).toEqual(new Uint8Array(10).fill(7));
    await host.close();
    expect(descriptors.size).toBe(0);
  });

  it("keeps the descriptor for writing when something is written while it is exchanged", async () => {
    const { system, host, driver, calls } = await open();
    await driver.preparePermissions?.(WRITE);
    driver.setPermissions?.(WRITE);
    await driver.preparePermissions?.(READ);
    await driver.pwrite?.(0, new Uint8Array(10));
    driver.setPermissions?.(READ);
    calls.length = 0;
    await driver.flush?.();
    expect(calls).toContain("fdatasync");
    expect(system).toBeDefined();
    await host.close();
  });

  it("keeps the descriptor for writing when flushing it fails, and every flush fails", async () => {
    const { replace, host, driver, open: descriptors } = await open();
    await driver.preparePermissions?.(WRITE);
    driver.setPermissions?.(WRITE);
    await driver.pwrite?.(0, new Uint8Array(10));
    replace("fdatasync", () => Promise.reject(systemError("EIO")));
    await driver.preparePermissions?.(READ);
    driver.setPermissions?.(READ);
    expect(host.warnings).toEqual([
      expect.stringContaining("stays open for writing: flush failed"),
    ]);
    expect(await errorOf(driver.flush?.())).toMatchObject({ code: "EIO" });
    expect(await errorOf(host.close())).toMatchObject({ code: "EIO" });
    expect(descriptors.size).toBe(0);
  });

  it("leaves everything as it was when a change is aborted", async () => {
    const { host, driver, open: descriptors } = await open();
    const before = [...descriptors];
    await driver.preparePermissions?.(WRITE);
    driver.abortPermissions?.();
    driver.abortPermissions?.();
    await driver.preparePermissions?.(READ);
    driver.setPermissions?.(READ);
    expect(await errorOf(driver.pwrite?.(0, new Uint8Array(1)))).toMatchObject({ code: "EBADF" });
    await host.close();
    expect(descriptors.size).toBe(0);
    expect(before).toHaveLength(1);
  });

  it("reports a file that cannot be opened for writing when a writer comes", async () => {
    const { replace, host, driver, open: descriptors } = await open();
    replace("open", () => Promise.reject(systemError("EROFS")));
    expect(await errorOf(driver.preparePermissions?.(WRITE))).toMatchObject({
      code: "EROFS",
      message: "Could not reopen file: Read-only file system",
      context: { node: "test" },
    });
    await host.close();
    expect(descriptors.size).toBe(0);
  });

  it("does not write to another file that has taken the name", async () => {
    const { path, host, driver, open: descriptors } = await open();
    renameSync(path, `${path}.old`);
    writeFileSync(path, "other");
    expect(await errorOf(driver.preparePermissions?.(WRITE))).toMatchObject({ code: "ENOENT" });
    await host.close();
    expect(descriptors.size).toBe(0);
  });

  it.each(["EACCES", "EROFS", "EPERM"])(
    "makes the node read-only when writing is refused with %s",
    async (code) => {
      const { system, replace } = await testSystem({ ffi });
      replace("mayWrite", () => Promise.reject(systemError(code)));
      await using host = await openFile(temporaryFile(), { system, autoReadOnly: true });
      expect(host.readOnlyReason).toContain("cannot be written");
      expect(host.options.readOnly).toBe(true);
    },
  );

  it("reports any other reason", async () => {
    const { system, replace } = await testSystem({ ffi });
    replace("mayWrite", () => Promise.reject(systemError("EIO")));
    const attempt = openFile(temporaryFile(), { system, autoReadOnly: true });
    expect(await errorOf(attempt)).toMatchObject({ code: "EIO" });
  });

  it.runIf(ffi && hasNative)("ends native calls on a descriptor before it is closed", async () => {
    const held: (() => void)[] = [];
    const { system, open: descriptors } = await testSystem({
      native: { fallocate: () => new Promise((resolve) => held.push(() => resolve(0))) },
    });
    const path = temporaryFile();
    const host = await openFile(path, { system, autoReadOnly: true });
    const { driver } = host;
    await driver.preparePermissions?.(WRITE);
    driver.setPermissions?.(WRITE);
    const requests = [0, 1].map((index) => driver.pwriteZeroes?.(index * 4096, 4096));
    await driver.preparePermissions?.(READ);
    driver.setPermissions?.(READ);
    const options = { filename: path, locking: "off", aio: "threads" };
    const prepared = await driver.prepareReopen?.({ options, readOnly: true });
    prepared?.commit();
    await nextTurn();
    expect(descriptors.size).toBe(2);
    for (const end of held) end();
    await Promise.all(requests);
    await prepared?.clean?.();
    expect(descriptors.size).toBe(1);
    await host.close();
    expect(descriptors.size).toBe(0);
  });

  it("ends what runs on a descriptor before it is closed", async () => {
    const { replace, system, host, driver, calls } = await open();
    const { read } = system;
    let answer: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (answer = resolve));
    replace("read", async (fd, buffer, offset) => {
      await held;
      return read(fd, buffer, offset);
    });
    const reading = driver.pread(0, new Uint8Array(2 ** 20));
    const isInCall = ffi;
    await driver.preparePermissions?.(WRITE);
    driver.setPermissions?.(WRITE);
    if (!isInCall) expect(calls).not.toContain("close");
    answer();
    await reading;
    await host.close();
    expect(calls.filter((name) => name === "close")).toHaveLength(2);
  });
});

describe("failures on the way", () => {
  const CALLS = ["open", "stat", "fstat", "mayWrite", "fdatasync"] as const;

  it.each(
    WAYS.flatMap(([name, ffi]) =>
      [false, true].flatMap((autoReadOnly) =>
        [false, true].map((cacheDirect) => ({ name, ffi, autoReadOnly, cacheDirect })),
      ),
    ),
  )("leave no descriptor open: %j", async ({ ffi, autoReadOnly, cacheDirect }) => {
    const path = temporaryFile();
    const locking = ffi ? "on" : "off";
    let failures = 0;
    for (let failing = 1; ; failing += 1) {
      const { system, replace, open } = await testSystem({ ffi });
      let count = 0;
      for (const name of CALLS) {
        const real = system[name] as (...args: unknown[]) => Promise<never>;
        const failNth = (...args: unknown[]): Promise<never> => {
          count += 1;
          return count === failing ? Promise.reject(systemError("EIO")) : real(...args);
        };
        replace(name, failNth as never);
      }
      const error = await errorOf(
        (async () => {
          const host = await openFile(path, {
            system,
            locking,
            autoReadOnly,
            generic: { cacheDirect },
          });
          try {
            await host.driver.preparePermissions?.(WRITE);
            host.driver.setPermissions?.(WRITE);
            await host.driver.preparePermissions?.(READ);
            host.driver.setPermissions?.(READ);
          } finally {
            await host.close();
          }
        })(),
      );
      expect(open.size).toBe(0);
      if (error === undefined && count < failing) break;
      if (error !== undefined) {
        failures += 1;
        expect(error).toMatchObject({ code: "EIO" });
      }
    }
    expect(failures).toBeGreaterThan(2);
  });
});

describe("definitions", () => {
  it("take the file name out of a prefix", () => {
    expect(file.parseFilename?.("file:/a:b")).toEqual({ filename: "/a:b" });
    expect(file.parseFilename?.("/a")).toBeUndefined();
    expect(hostDevice.parseFilename?.("host_device:/dev/sda")).toEqual({ filename: "/dev/sda" });
    expect(hostDevice.parseFilename?.("file:/a")).toBeUndefined();
  });

  it.each([
    [{}, "filename"],
    [{ filename: "" }, "filename"],
    [{ filename: "a", locking: "maybe" }, "locking"],
    [{ filename: "a", size: 1 }, "size"],
  ])("refuse the options %j", (options, name) => {
    const parsed = file.schema.parse(options);
    expect(parsed.ok).toBe(false);
    expect(JSON.stringify(parsed)).toContain(name);
  });

  it("fill in what is not said", () => {
    const parsed = file.schema.parseDotted("filename=a,locking=off");
    expect(parsed).toMatchObject({ value: { filename: "a", locking: "off", aio: "threads" } });
  });

  it("do what BLOCKLAYER_FFI says", async () => {
    vi.stubEnv("BLOCKLAYER_FFI", "off");
    try {
      const options = { filename: temporaryFile(), locking: "on" };
      const attempt = TestHost.open(file, { options });
      expect(await errorOf(attempt)).toMatchObject({ code: "ENOTSUP" });
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it("measure what a size or a source needs", async () => {
    const definition = fileDefinition();
    expect(await definition.measure?.({ size: 1000 }, undefined)).toEqual({
      required: 1000,
      fullyAllocated: 1000,
    });
    expect(await definition.measure?.({}, { size: 7 } as never)).toMatchObject({ required: 7 });
    expect(await errorOf(definition.measure?.({}, undefined))).toMatchObject({ code: "EINVAL" });
  });
});
