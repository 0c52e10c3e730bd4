import { completed } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  hasNative,
  openFile,
  pattern,
  readBytes,
  systemError,
  temporaryFile,
  testSystem,
  WAYS,
} from "./harness.ts";

const PAGE = 4096;

describe.each(WAYS)("requests %s", (_name, ffi) => {
  it("reads what was written, at any offset and length", async () => {
    await using host = await openFile(temporaryFile(), { ffi });
    const bytes = pattern(70_001);
    await host.driver.pwrite?.(12_345, bytes);
    expect(await readBytes(host.driver, 12_345, bytes.length)).toEqual(bytes);
  });

  it("writes a vector of buffers as one run", async () => {
    await using host = await openFile(temporaryFile(), { ffi });
    await host.driver.pwritev?.(100, [pattern(10), new Uint8Array(0), pattern(5000, 2)]);
    expect(await readBytes(host.driver, 100, 10)).toEqual(pattern(10));
    expect(await readBytes(host.driver, 110, 5000)).toEqual(pattern(5000, 2));
  });

  it("grows by a write beyond the end", async () => {
    await using host = await openFile(temporaryFile(1000), { ffi });
    await host.driver.pwrite?.(5000, pattern(10));
    expect(host.driver.size).toBe(5010);
    expect(await readBytes(host.driver, 1000, 4000)).toEqual(new Uint8Array(4000));
  });

  it("fills what lies beyond the end with zeroes", async () => {
    await using host = await openFile(temporaryFile(pattern(1000)), { ffi });
    const bytes = await readBytes(host.driver, 900, 600);
    expect(bytes.subarray(0, 100)).toEqual(pattern(1000).subarray(900));
    expect(bytes.subarray(100)).toEqual(new Uint8Array(500));
  });

  it("moves requests of many MiB", async () => {
    await using host = await openFile(temporaryFile(3 * 2 ** 20), { ffi });
    const bytes = pattern(3 * 2 ** 20 - 17);
    await host.driver.pwrite?.(3, bytes);
    expect(Buffer.compare(await readBytes(host.driver, 3, bytes.length), bytes)).toBe(0);
  });

  it("completes a write that the operating system takes in parts", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system });
    const { write } = system;
    replace("write", (fd, buffers, offset) =>
      write(fd, [(buffers[0] ?? new Uint8Array(0)).subarray(0, 1000)], offset),
    );
    await host.driver.pwritev?.(7, [pattern(2500), pattern(1200, 3)]);
    expect(await readBytes(host.driver, 7, 2500)).toEqual(pattern(2500));
    expect(await readBytes(host.driver, 2507, 1200)).toEqual(pattern(1200, 3));
  });

  it("completes a read that the operating system answers in parts", async () => {
    const { system, replace } = await testSystem({ ffi });
    const bytes = pattern(2 ** 20 + 4096);
    await using host = await openFile(temporaryFile(bytes), { system });
    const { read } = system;
    // The first of them goes to the thread pool whatever the page cache holds: it is too long for the turn.
    replace("read", (fd, buffer, offset) => read(fd, buffer.subarray(0, 300_000), offset));
    expect(Buffer.compare(await readBytes(host.driver, 0, bytes.length), bytes)).toBe(0);
  });

  it.each(["EINTR", "EAGAIN"])("makes a call that failed with %s again", async (code) => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system });
    const { read, write } = system;
    let failures = 3;
    const flaky = <T>(call: () => Promise<T>): Promise<T> => {
      failures -= 1;
      return failures >= 0 ? Promise.reject(systemError(code)) : call();
    };
    replace("write", (fd, buffers, offset) => flaky(() => write(fd, buffers, offset)));
    await host.driver.pwrite?.(1, pattern(100));
    failures = 3;
    replace("read", (fd, buffer, offset) => flaky(() => read(fd, buffer, offset)));
    await readBytes(host.driver, 0, 2 ** 20 + 1);
    expect(await readBytes(host.driver, 1, 100)).toEqual(pattern(100));
  });

  it("gives up on a call that is interrupted for ever", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system });
    replace("write", () => Promise.reject(systemError("EINTR")));
    expect(await errorOf(host.driver.pwrite?.(1, pattern(100)))).toMatchObject({ code: "EINTR" });
  });

  it("reports a write that makes no progress as EINVAL", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system });
    replace("write", () => Promise.resolve(0));
    expect(await errorOf(host.driver.pwrite?.(1, pattern(100)))).toMatchObject({
      code: "EINVAL",
      message: "write at 1 made no progress",
      context: { offset: 1 },
    });
  });

  it.each(["EIO", "ENOSPC", "EDQUOT"])("reports a write that fails with %s", async (code) => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system });
    replace("write", () => Promise.reject(systemError(code)));
    expect(await errorOf(host.driver.pwrite?.(513, pattern(100)))).toMatchObject({
      code,
      message: expect.stringMatching(/^write of 100 bytes at 513 failed: /),
      context: { node: "test", operation: "pwrite", offset: 513, length: 100 },
    });
  });

  it("reports a read that fails", async () => {
    const { system, replace } = await testSystem({
      ffi,
      native: { readNoWait: () => -5 },
    });
    await using host = await openFile(temporaryFile(), { system });
    replace("read", () => Promise.reject(systemError("EIO")));
    expect(await errorOf(host.driver.pread(512, new Uint8Array(100)))).toMatchObject({
      code: "EIO",
      message: "read of 100 bytes at 512 failed: Input/output error",
      context: { node: "test", operation: "pread", offset: 512, length: 100 },
    });
  });

  it("knows the length after a growing write that failed half way", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(1000), { system });
    const { write } = system;
    let isFull = false;
    replace("write", (fd, buffers, offset) => {
      if (isFull) return Promise.reject(systemError("ENOSPC"));
      isFull = true;
      return write(fd, [(buffers[0] ?? new Uint8Array(0)).subarray(0, 50)], offset);
    });
    expect(await errorOf(host.driver.pwrite?.(1000, pattern(100)))).toMatchObject({
      code: "ENOSPC",
    });
    expect(host.driver.size).toBe(1050);
  });

  it("gives an error that Node has no name for its name by its number", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system });
    const error = Object.assign(new Error("unknown"), {
      errno: -122,
      code: "Unknown system error",
    });
    replace("write", () => Promise.reject(error));
    expect(await errorOf(host.driver.pwrite?.(1, pattern(1)))).toMatchObject({ code: "EDQUOT" });
  });

  it("rejects with the reason of a signal that was aborted before", async () => {
    await using host = await openFile(temporaryFile(), { ffi });
    const reason = new Error("not needed any more");
    const signal = AbortSignal.abort(reason);
    for (const call of [
      host.driver.pread(0, new Uint8Array(1), { signal }),
      host.driver.pwrite?.(0, new Uint8Array(1), { signal }),
      host.driver.pwritev?.(0, [new Uint8Array(1)], { signal }),
      host.driver.flush?.({ signal }),
    ]) {
      expect(await errorOf(call)).toBe(reason);
    }
  });
});

describe.runIf(hasNative)("reads from the page cache", () => {
  it("complete within the call", async () => {
    const { system, calls } = await testSystem();
    await using host = await openFile(temporaryFile(pattern(PAGE)), { system });
    const buffer = new Uint8Array(PAGE);
    expect(host.driver.pread(0, buffer)).toBe(completed);
    expect(buffer).toEqual(pattern(PAGE));
    expect(calls).not.toContain("read");
  });

  it("go to the thread pool for the rest that is not cached", async () => {
    const { system, calls } = await testSystem({
      native: {
        readNoWait: (_fd, buffer) => {
          buffer.set(pattern(PAGE).subarray(0, 1000));
          return 1000;
        },
      },
    });
    await using host = await openFile(temporaryFile(pattern(PAGE)), { system });
    expect(await readBytes(host.driver, 0, PAGE)).toEqual(pattern(PAGE));
    expect(calls.filter((name) => name === "read")).toHaveLength(1);
  });

  it("go to the thread pool for a cold page, and are tried again for the next", async () => {
    let tries = 0;
    const { system } = await testSystem({
      native: {
        readNoWait: () => {
          tries += 1;
          return -11;
        },
      },
    });
    await using host = await openFile(temporaryFile(pattern(PAGE)), { system });
    for (let count = 1; count <= 3; count += 1) {
      expect(await readBytes(host.driver, 0, PAGE)).toEqual(pattern(PAGE));
      expect(tries).toBe(count);
    }
  });

  it.each([
    ["EOPNOTSUPP", -95],
    ["ENOSYS", -38],
    ["EPERM", -1],
  ])("are not tried again after %s", async (_code, errno) => {
    let tries = 0;
    const { system } = await testSystem({
      native: {
        readNoWait: () => {
          tries += 1;
          return errno;
        },
      },
    });
    await using host = await openFile(temporaryFile(pattern(PAGE)), { system });
    for (let count = 0; count < 20; count += 1) {
      expect(await readBytes(host.driver, 0, PAGE)).toEqual(pattern(PAGE));
    }
    expect(tries).toBe(1);
  });
});

describe("a file system in memory", () => {
  it("is read and written within the call", async () => {
    const { system, calls, replace } = await testSystem();
    replace("statfs", () => Promise.resolve({ type: 0x01021994, available: 0 }));
    await using host = await openFile(temporaryFile(), { system });
    expect(host.driver.pwrite?.(3, pattern(100))).toBe(completed);
    expect(host.driver.pwritev?.(103, [pattern(10), pattern(10)])).toBe(completed);
    const buffer = new Uint8Array(100);
    expect(host.driver.pread(3, buffer)).toBe(completed);
    expect(buffer).toEqual(pattern(100));
    expect(calls).not.toContain("read");
    expect(calls).not.toContain("write");
  });

  it("is written by the thread pool where a write within the call fails or is short", async () => {
    const { system, replace } = await testSystem();
    replace("statfs", () => Promise.resolve({ type: 0x01021994, available: 0 }));
    await using host = await openFile(temporaryFile(), { system });
    const { writeNow, readNow } = system;
    replace("writeNow", (fd, buffer, offset) => writeNow(fd, buffer.subarray(0, 10), offset));
    replace("readNow", (fd, buffer, offset) => readNow(fd, buffer.subarray(0, 10), offset));
    await host.driver.pwrite?.(3, pattern(100));
    expect(await readBytes(host.driver, 3, 100)).toEqual(pattern(100));
    const fail = (): never => {
      throw systemError("EIO");
    };
    replace("writeNow", fail);
    replace("readNow", fail);
    await host.driver.pwrite?.(3, pattern(100, 9));
    expect(await readBytes(host.driver, 3, 100)).toEqual(pattern(100, 9));
  });
});

describe("a file system on a network", () => {
  it.each([0x6969, 0x65735546])("of type %i is left to the thread pool", async (type) => {
    const { system, calls, replace } = await testSystem();
    replace("statfs", () => Promise.resolve({ type, available: 0 }));
    await using host = await openFile(temporaryFile(), { system });
    for (let count = 0; count < 20; count += 1) {
      await host.driver.pwrite?.(0, pattern(PAGE));
      await readBytes(host.driver, 0, PAGE);
    }
    expect(calls).not.toContain("writeNow");
    expect(calls).not.toContain("readNow");
  });

  it("is what a file system counts as that does not say what it is", async () => {
    const { system, calls, replace } = await testSystem();
    replace("statfs", () => Promise.reject(systemError("ENOSYS")));
    await using host = await openFile(temporaryFile(), { system });
    await readBytes(host.driver, 0, PAGE);
    expect(calls).toContain("read");
  });
});
