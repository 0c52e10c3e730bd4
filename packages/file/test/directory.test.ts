import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Directory } from "@blocklayer/driver";
import { openDirectory } from "@blocklayer/file";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  hasNative,
  systemError,
  temporaryDirectory,
  temporaryFile,
  testSystem,
  WAYS,
} from "./harness.ts";

const text = (content: string): Uint8Array => new TextEncoder().encode(content);

/** A number that no process has. */
const DEAD = 2 ** 22 + 1;

describe.each(WAYS)("a directory %s", (_name, ffi) => {
  async function open(): Promise<{ path: string; directory: Directory }> {
    const path = temporaryDirectory();
    return { path, directory: await openDirectory(path, { ffi }) };
  }

  it("writes, reads, lists and removes files", async () => {
    const { directory } = await open();
    await directory.writeAtomically("a", text("one"));
    await directory.writeAtomically("a", text("two!"));
    await directory.writeAtomically("b", new Uint8Array(0));
    expect(await directory.read("a", 100)).toEqual(text("two!"));
    expect(await directory.read("b", 0)).toEqual(new Uint8Array(0));
    expect([...(await directory.list())].sort((x, y) => x.name.localeCompare(y.name))).toEqual([
      { name: "a", size: 4 },
      { name: "b", size: 0 },
    ]);
    await directory.remove("a");
    await directory.remove("a");
    expect((await directory.list()).map(({ name }) => name)).toEqual(["b"]);
  });

  it("reads no more than it is allowed", async () => {
    const { path, directory } = await open();
    await directory.writeAtomically("a", text("12345"));
    expect(await directory.read("a", 5)).toEqual(text("12345"));
    expect(await errorOf(directory.read("a", 4))).toMatchObject({
      code: "EFBIG",
      context: { path: join(path, "a"), lengthMax: 4 },
    });
    expect(await errorOf(directory.read("none", 4))).toMatchObject({
      code: "ENOENT",
      message: `reading '${join(path, "none")}' failed: No such file or directory`,
    });
  });

  it("notices a file that changes while it is read", async () => {
    const { system, replace } = await testSystem({ ffi });
    const directory = await openDirectory(temporaryDirectory(), { system });
    await directory.writeAtomically("a", text("12345"));
    replace("read", (_fd, buffer) => Promise.resolve(buffer.length));
    expect(await errorOf(directory.read("a", 10))).toMatchObject({ code: "EAGAIN" });
  });

  it.each(["", ".", "..", "a/b", "/a", "a\\b", "a\0b", ".blocklayer-1-1.tmp", "a.lock-1-1"])(
    "refuses the name %j",
    async (name) => {
      const { directory } = await open();
      for (const attempt of [
        directory.read(name, 1),
        directory.writeAtomically(name, text("x")),
        directory.remove(name),
        directory.lock(name),
        directory.identity(name),
      ]) {
        expect(await errorOf(attempt)).toMatchObject({ code: "EINVAL", context: { name } });
      }
    },
  );

  it("syncs the file before it gets its name, and the directory after", async () => {
    const { system, calls } = await testSystem({ ffi });
    const directory = await openDirectory(temporaryDirectory(), { system });
    calls.length = 0;
    await directory.writeAtomically("a", text("content"));
    expect(calls).toEqual(["open", "write", "fsync", "close", "rename", "syncDirectory"]);
    calls.length = 0;
    await directory.remove("a");
    expect(calls).toEqual(["unlink", "syncDirectory"]);
  });

  it.each(["open", "write", "fsync", "close", "rename", "syncDirectory"] as const)(
    "keeps the old content and no other file when %s fails",
    async (name) => {
      const { system, replace, open: descriptors } = await testSystem({ ffi });
      const path = temporaryDirectory();
      const directory = await openDirectory(path, { system });
      await directory.writeAtomically("a", text("old"));
      const { close } = system;
      replace(name, async (...args: unknown[]) => {
        if (name === "close") await close(args[0] as number);
        throw systemError("EIO");
      });
      expect(await errorOf(directory.writeAtomically("a", text("new")))).toMatchObject({
        code: "EIO",
        message: expect.stringContaining("writing"),
      });
      expect(readdirSync(path)).toEqual(["a"]);
      const expected = name === "syncDirectory" ? "new" : "old";
      expect(readFileSync(join(path, "a"), "utf8")).toBe(expected);
      expect(descriptors.size).toBe(0);
    },
  );

  it("tells the first error even when the leftover cannot be removed", async () => {
    const { system, replace } = await testSystem({ ffi });
    const path = temporaryDirectory();
    const directory = await openDirectory(path, { system });
    replace("rename", () => Promise.reject(systemError("ENOSPC")));
    replace("unlink", () => Promise.reject(systemError("EIO")));
    expect(await errorOf(directory.writeAtomically("a", text("x")))).toMatchObject({
      code: "ENOSPC",
    });
    expect(await directory.list()).toEqual([]);
  });

  it("removes what a process that died left half written, and nobody else's", async () => {
    const path = temporaryDirectory();
    const own = `.blocklayer-${process.pid}-999.tmp`;
    writeFileSync(join(path, `.blocklayer-${DEAD}-1.tmp`), "half");
    writeFileSync(join(path, own), "half");
    const directory = await openDirectory(path, { ffi });
    expect(readdirSync(path)).toEqual([own]);
    expect(await directory.list()).toEqual([]);
  });

  it("lists files only", async () => {
    const { path, directory } = await open();
    mkdirSync(join(path, "inner"));
    await directory.writeAtomically("a", text("x"));
    expect(await directory.list()).toEqual([{ name: "a", size: 1 }]);
  });

  it("writes the same name from many places at once without mixing", async () => {
    const { directory } = await open();
    const contents = Array.from({ length: 8 }, (_, index) => text(String(index).repeat(1000)));
    await Promise.all(contents.map((content) => directory.writeAtomically("a", content)));
    expect(contents).toContainEqual(await directory.read("a", 1000));
  });

  it("is locked by one at a time", async () => {
    const { path, directory } = await open();
    const other = await openDirectory(path, { ffi });
    const lock = await directory.lock("lock");
    expect(await errorOf(other.lock("lock"))).toMatchObject({
      code: "EAGAIN",
      message: expect.stringContaining("is locked by somebody else"),
    });
    await (await other.lock("another")).release();
    await lock.release();
    await lock.release();
    await using _again = await other.lock("lock");
  });

  it("tells how much can be written, and what a file is", async () => {
    const { path, directory } = await open();
    expect(await directory.freeSpace()).toBeGreaterThan(0);
    await directory.writeAtomically("a", text("x"));
    const identity = await directory.identity("a");
    expect(await directory.identity("a")).toBe(identity);
    writeFileSync(join(path, "a"), "yy");
    expect(await directory.identity("a")).not.toBe(identity);
    await directory.writeAtomically("a", text("x"));
    expect(await directory.identity("a")).not.toBe(identity);
    expect(await errorOf(directory.identity("b"))).toMatchObject({ code: "ENOENT" });
  });

  it("keeps the identity of a file that gets another name", async () => {
    const { system } = await testSystem({ ffi });
    const path = temporaryDirectory();
    const directory = await openDirectory(path, { system });
    await directory.writeAtomically("a", text("x"));
    const identity = await directory.identity("a");
    await system.rename(join(path, "a"), join(path, "b"));
    expect(await directory.identity("b")).toBe(identity);
  });

  it("has to be there, and to be one", async () => {
    expect(await errorOf(openDirectory("/nonexistent", { ffi }))).toMatchObject({ code: "ENOENT" });
    expect(await errorOf(openDirectory(temporaryFile(1), { ffi }))).toMatchObject({
      code: "ENOTDIR",
    });
  });
});

describe("a lock without native calls", () => {
  it("is taken from a process that died", async () => {
    const path = temporaryDirectory();
    writeFileSync(join(path, `lock.lock-${DEAD}-1`), "");
    writeFileSync(join(path, `lock.lock-${DEAD}-2`), "");
    const directory = await openDirectory(path, { ffi: false });
    const lock = await directory.lock("lock");
    expect(readdirSync(path)).toHaveLength(1);
    expect(await directory.list()).toEqual([]);
    await lock.release();
    expect(readdirSync(path)).toEqual([]);
  });

  it("is not taken from a process that lives, and leaves no file", async () => {
    const path = temporaryDirectory();
    const other = `lock.lock-${process.pid}-0`;
    writeFileSync(join(path, other), "");
    const directory = await openDirectory(path, { ffi: false });
    expect(await errorOf(directory.lock("lock"))).toMatchObject({ code: "EAGAIN" });
    expect(readdirSync(path)).toEqual([other]);
    await using _another = await directory.lock("another");
  });

  it("is never given to two who come at once", async () => {
    const directory = await openDirectory(temporaryDirectory(), { ffi: false });
    const attempts = Array.from({ length: 10 }, () => directory.lock("lock"));
    const results = await Promise.allSettled(attempts);
    expect(results.filter(({ status }) => status === "fulfilled").length).toBeLessThanOrEqual(1);
  });

  it.each(["list", "unlink"] as const)("reports that %s fails", async (name) => {
    const { system, replace, open } = await testSystem({ ffi: false });
    const path = temporaryDirectory();
    const directory = await openDirectory(path, { system });
    writeFileSync(join(path, `lock.lock-${DEAD}-1`), "");
    const { unlink } = system;
    replace("list", name === "list" ? () => Promise.reject(systemError("EIO")) : undefined);
    replace("unlink", (file) =>
      name === "unlink" && file.includes(String(DEAD))
        ? Promise.reject(systemError("EIO"))
        : unlink(file),
    );
    expect(await errorOf(directory.lock("lock"))).toMatchObject({ code: "EIO" });
    expect(readdirSync(path)).toEqual([`lock.lock-${DEAD}-1`]);
    expect(open.size).toBe(0);
  });
});

describe.runIf(hasNative)("a lock with native calls", () => {
  it("that fails leaves no descriptor open", async () => {
    const { system, open } = await testSystem({ native: { setLock: () => -37 } });
    const directory = await openDirectory(temporaryDirectory(), { system });
    expect(await errorOf(directory.lock("lock"))).toMatchObject({
      message: expect.stringContaining("locking"),
      context: { errno: -37 },
    });
    expect(open.size).toBe(0);
  });
});
