import { ALL_PERMISSIONS, Permissions } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  hasNative,
  type OpenSettings,
  openFile,
  temporaryFile,
  testSystem,
} from "./harness.ts";
import { hasPeer, holdWithQemuIo, run } from "./peer.ts";

const { consistentRead, write, writeUnchanged, resize } = Permissions;

/** What an image format takes on its file. */
const WRITER = { perm: consistentRead | write | resize, shared: consistentRead | writeUnchanged };
const READER = { perm: consistentRead, shared: consistentRead | writeUnchanged };
const TOLERANT = { perm: consistentRead, shared: ALL_PERMISSIONS };

type Claim = typeof WRITER;

async function openWith(path: string, claim: Claim, settings: OpenSettings = {}) {
  const host = await openFile(path, { locking: "on", ...settings });
  try {
    await host.driver.preparePermissions?.(claim);
  } catch (error) {
    await host.close();
    throw error;
  }
  host.driver.setPermissions?.(claim);
  return host;
}

describe.runIf(hasNative)("locks between two users", () => {
  it.each<[string, Claim, Claim, string | undefined]>([
    ["two tolerant readers", TOLERANT, TOLERANT, undefined],
    ["two strict readers", READER, READER, undefined],
    ["a writer beside a writer", WRITER, WRITER, 'Failed to get "write" lock'],
    ["a writer beside a strict reader", READER, WRITER, 'Failed to get "write" lock'],
    ["a strict reader beside a writer", WRITER, READER, 'Failed to get shared "write" lock'],
    ["a tolerant reader beside a writer", WRITER, TOLERANT, undefined],
    [
      "a reader that does not share resizing beside a resizer",
      { perm: resize, shared: ALL_PERMISSIONS },
      { perm: 0, shared: ALL_PERMISSIONS & ~resize },
      'Failed to get shared "resize" lock',
    ],
    [
      "one who wants a consistent read beside one who does not share it",
      { perm: 0, shared: ALL_PERMISSIONS & ~consistentRead },
      TOLERANT,
      'Failed to get "consistent read" lock',
    ],
    [
      "one who writes unchanged beside one who does not share it",
      { perm: 0, shared: ALL_PERMISSIONS & ~writeUnchanged },
      { perm: writeUnchanged, shared: ALL_PERMISSIONS },
      'Failed to get "write unchanged" lock',
    ],
  ])("%s", async (_name, first, second, message) => {
    const path = temporaryFile();
    await using holder = await openWith(path, first);
    const attempt = openWith(path, second);
    if (message === undefined) await (await attempt).close();
    else {
      expect(await errorOf(attempt)).toMatchObject({
        code: "EAGAIN",
        message,
        hint: `Is another process using the image [${path}]?`,
        context: { node: "test", fileName: path },
      });
      await holder.close();
      await (await openWith(path, second)).close();
    }
  });

  it("are not taken before permissions are", async () => {
    const path = temporaryFile();
    await using _idle = await openFile(path, { locking: "on" });
    await (await openWith(path, WRITER)).close();
  });

  it("are not in the way of who shares everything by force", async () => {
    const path = temporaryFile();
    await using _writer = await openWith(path, WRITER);
    await (await openWith(path, READER, { generic: { forceShare: true } })).close();
  });

  it("are dropped when a change is aborted, and kept when they were held before", async () => {
    const path = temporaryFile();
    await using host = await openWith(path, TOLERANT);
    await host.driver.preparePermissions?.(WRITER);
    host.driver.abortPermissions?.();
    await using other = await openWith(path, WRITER);
    expect(await errorOf(host.driver.preparePermissions?.(READER))).toMatchObject({
      code: "EAGAIN",
    });
    await other.close();
    await (await openWith(path, WRITER)).close();
    // What the aborted and the refused changes left is still the first claim.
    const strange = { perm: 0, shared: ALL_PERMISSIONS & ~consistentRead };
    expect(await errorOf(openWith(path, strange))).toMatchObject({ code: "EAGAIN" });
  });

  it("are dropped one by one when less is needed", async () => {
    const path = temporaryFile();
    await using host = await openWith(path, WRITER);
    await host.driver.preparePermissions?.(TOLERANT);
    host.driver.setPermissions?.(TOLERANT);
    await (await openWith(path, WRITER)).close();
  });

  it("are dropped by inactivate and taken again by activate", async () => {
    const path = temporaryFile();
    await using host = await openWith(path, WRITER);
    await host.driver.inactivate?.();
    const other = await openWith(path, WRITER);
    expect(await errorOf(host.driver.activate?.())).toMatchObject({ code: "EAGAIN" });
    await other.driver.pwrite?.(2 ** 20, new Uint8Array(512));
    await other.close();
    await host.driver.activate?.();
    await host.driver.activate?.();
    expect(host.driver.size).toBe(2 ** 20 + 512);
    expect(await errorOf(openWith(path, WRITER))).toMatchObject({ code: "EAGAIN" });
  });

  it("survive the exchange of the descriptor under auto-read-only", async () => {
    const path = temporaryFile();
    await using host = await openWith(path, READER, { autoReadOnly: true });
    await host.driver.preparePermissions?.(WRITER);
    host.driver.setPermissions?.(WRITER);
    expect(await errorOf(openWith(path, WRITER))).toMatchObject({ code: "EAGAIN" });
  });

  it.each([
    ["off", "on"],
    ["on", "off"],
  ] as const)("change by a reopen from %s to %s", async (before, after) => {
    const path = temporaryFile();
    await using host = await openWith(path, WRITER, { locking: before });
    const options = { filename: path, locking: after, aio: "threads" };
    const isHeld = async (): Promise<boolean> => {
      const error = await errorOf(openWith(path, WRITER).then((other) => other.close()));
      return error !== undefined;
    };
    const aborted = await host.driver.prepareReopen?.({ options, readOnly: false });
    aborted?.abort();
    await aborted?.clean?.();
    expect(await isHeld()).toBe(before === "on");
    const prepared = await host.driver.prepareReopen?.({ options, readOnly: false });
    prepared?.commit();
    await prepared?.clean?.();
    expect(await isHeld()).toBe(after === "on");
  });

  it("that somebody else holds make a reopen fail that turns them on", async () => {
    const path = temporaryFile();
    await using _holder = await openWith(path, WRITER);
    await using host = await openWith(path, WRITER, { locking: "off" });
    const options = { filename: path, locking: "on", aio: "threads" };
    const attempt = host.driver.prepareReopen?.({ options, readOnly: false });
    expect(await errorOf(attempt)).toMatchObject({ code: "EAGAIN" });
  });
});

describe("locks that cannot be had", () => {
  it("are an error when they are on", async () => {
    const path = temporaryFile();
    expect(await errorOf(openFile(path, { ffi: false, locking: "on" }))).toMatchObject({
      code: "ENOTSUP",
      message: "image locking is not available: native calls are switched off",
      hint: expect.stringContaining("locking=off"),
      context: { node: "test", fileName: path },
    });
  });

  it("are a warning when they are automatic", async () => {
    const path = temporaryFile();
    await using host = await openFile(path, { ffi: false, locking: "auto" });
    expect(host.warnings).toEqual([
      `'${path}' is not locked against other programs: native calls are switched off`,
    ]);
  });

  it.runIf(hasNative).each([-95, -37, -22])(
    "on the file system (%i) are a warning when they are automatic",
    async (errno) => {
      const { system, open } = await testSystem({ native: { setLock: () => errno } });
      const path = temporaryFile();
      const host = await openFile(path, { system, locking: "auto" });
      await host.driver.preparePermissions?.(WRITER);
      host.driver.setPermissions?.(WRITER);
      expect(host.warnings).toEqual([`'${path}' is not locked: its file system has no locks`]);
      await host.close();
      expect(open.size).toBe(0);
    },
  );

  it.runIf(hasNative)("on the file system are an error when they are on", async () => {
    const { system, open } = await testSystem({ native: { setLock: () => -95 } });
    const host = await openFile(temporaryFile(), { system, locking: "on" });
    expect(await errorOf(host.driver.preparePermissions?.(WRITER))).toMatchObject({
      code: "ENOTSUP",
      message: "Failed to lock byte 100: Operation not supported",
      context: { byte: 100, errno: -95 },
    });
    await host.close();
    expect(open.size).toBe(0);
  });

  it.runIf(hasNative)("are an error when asking for them fails", async () => {
    const { system } = await testSystem({ native: { testLock: () => -5 } });
    await using host = await openFile(temporaryFile(), { system, locking: "auto" });
    expect(await errorOf(host.driver.preparePermissions?.(WRITER))).toMatchObject({
      code: "EIO",
      context: { byte: 200 },
    });
  });
});

describe.runIf(hasNative && hasPeer("qemu-img") && hasPeer("qemu-io"))(
  "the reference's programs",
  () => {
    const IMAGE = (path: string): string[] => [
      "--image-opts",
      `driver=raw,file.driver=file,file.filename=${path}`,
    ];

    it("refuse an image that is held for writing here", async () => {
      const path = temporaryFile();
      run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"]);
      await using host = await openWith(path, WRITER);
      const io = run("qemu-io", ["-f", "qcow2", path, "-c", "length"]);
      expect(io.code).not.toBe(0);
      expect(io.text).toContain('Failed to get "write" lock');
      expect(io.text).toContain(`Is another process using the image [${path}]?`);
      const info = run("qemu-img", ["info", "-f", "qcow2", path]);
      expect(info.text).toContain('Failed to get shared "write" lock');
      expect(run("qemu-img", ["info", "-U", "-f", "qcow2", path]).code).toBe(0);
      await host.close();
      expect(run("qemu-io", ["-f", "qcow2", path, "-c", "length"]).code).toBe(0);
    });

    it("may read an image that is held for reading here, and not write it", async () => {
      const path = temporaryFile();
      await using _host = await openWith(path, READER);
      expect(run("qemu-io", ["-r", ...IMAGE(path), "-c", "length"]).code).toBe(0);
      const writer = run("qemu-io", [...IMAGE(path), "-c", "length"]);
      expect(writer.text).toContain('Failed to get "write" lock');
    });

    it("keep an image that they hold from being written here", async () => {
      const path = temporaryFile();
      run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"]);
      const holder = await holdWithQemuIo(["-f", "qcow2", path]);
      try {
        expect(await errorOf(openWith(path, WRITER))).toMatchObject({
          code: "EAGAIN",
          message: 'Failed to get "write" lock',
        });
        expect(await errorOf(openWith(path, READER))).toMatchObject({
          message: 'Failed to get shared "write" lock',
        });
        await (await openWith(path, TOLERANT)).close();
      } finally {
        await holder.close();
      }
      await (await openWith(path, WRITER)).close();
    });

    it("see the same bytes and the same length", async () => {
      const path = temporaryFile(2 ** 16);
      await using host = await openWith(path, WRITER);
      await host.driver.pwrite?.(4096, new Uint8Array(4096).fill(0x5a));
      await host.close();
      const io = run("qemu-io", ["-f", "raw", path, "-c", "read -P 0x5a 4k 4k", "-c", "length"]);
      expect(io.text).toContain("64 KiB");
      expect(io.text).not.toContain("verification failed");
    });
  },
);
