import { ALL_PERMISSIONS, formatPermissions, Role } from "@blocklayer/driver";
import { patternBytes, ReferenceDisk, TestHost } from "@blocklayer/driver-tests";
import { raw } from "@blocklayer/raw";
import { describe, expect, it } from "vitest";

const MIB = 1024 * 1024;

function open(
  options: object,
  file: ReferenceDisk = new ReferenceDisk({ size: MIB }),
): Promise<TestHost> {
  return TestHost.open(raw, { options, children: { file } });
}

describe("role and permissions of the file", () => {
  const { filtered, data, primary } = Role;
  it.each([
    [{}, filtered | primary],
    [{ offset: 0 }, filtered | primary],
    [{ offset: 512 }, data | primary],
    [{ size: 512 }, data | primary],
    [{ size: 0 }, data | primary],
  ])("with %j the role is %i", async (options, role) => {
    const host = await open(options);
    expect(host.children.get("file")?.role).toBe(role);
    const parsed = raw.schema.parse(options);
    const spec = raw.children[0]?.role as (options: unknown) => number;
    expect(parsed.ok && spec(parsed.value)).toBe(role);
  });

  it.each([
    [{}, "consistent read", "", "consistent read"],
    [{}, "write", "", "write"],
    [{}, "write unchanged", "", "write unchanged"],
    [{ size: 512 }, "consistent read", "resize", "consistent read"],
    [{ size: 512 }, "write unchanged", "resize", "write unchanged"],
    [{ size: 512 }, "write", "resize", "write"],
    [{ size: 512 }, "write, resize", "resize", "write, resize"],
  ])(
    "with %j and parents that %s nothing but [%s] is unshared and it takes [%s]",
    async (options, names, unshared, taken) => {
      const { driver } = await open(options);
      const perm = [1, 2, 4, 8].filter((bit) => names.split(", ").includes(formatPermissions(bit)));
      const set = driver.childPermissions?.(
        { name: "file", role: Role.data },
        {
          perm: perm.reduce((sum, bit) => sum + bit, 0),
          shared: ALL_PERMISSIONS,
          hasParents: true,
          writable: true,
          active: true,
        },
      );
      expect(formatPermissions(set?.perm ?? 0)).toBe(taken);
      expect(formatPermissions(ALL_PERMISSIONS & ~(set?.shared ?? 0))).toBe(unshared);
    },
  );

  it("opened by nobody takes nothing", async () => {
    const { driver } = await open({ size: 512 });
    const input = { perm: 0, shared: 15, hasParents: false, writable: true, active: true };
    expect(driver.childPermissions?.({ name: "file", role: Role.data }, input).perm).toBe(0);
  });
});

describe("reopen", () => {
  const change = (offset: number, size?: number) => ({
    options: { offset, ...(size === undefined ? {} : { size }), "x-blocklayer-probed": false },
    readOnly: false,
  });

  it("moves the window at commit and tells the new size", async () => {
    const file = new ReferenceDisk({ size: MIB });
    file.bytes.set(patternBytes(MIB, 1));
    const host = await open({ size: 4096 }, file);
    const prepared = await host.driver.prepareReopen?.(change(512, 1024));
    expect([host.driver.size, host.resizedCount]).toEqual([4096, 0]);
    prepared?.commit();
    expect([host.driver.size, host.resizedCount]).toEqual([1024, 1]);
    const buffer = new Uint8Array(16);
    await host.driver.pread(0, buffer);
    expect(buffer).toEqual(file.bytes.slice(512, 528));
  });

  it("frees the length when size is taken away", async () => {
    const host = await open({ size: 4096 });
    (await host.driver.prepareReopen?.(change(0)))?.commit();
    expect(host.driver.size).toBe(MIB);
    await host.driver.truncate?.(2 * MIB);
    expect(host.driver.size).toBe(2 * MIB);
  });

  it("keeps the window when it is aborted", async () => {
    const host = await open({ offset: 512, size: 4096 });
    (await host.driver.prepareReopen?.(change(0)))?.abort();
    expect(host.driver.size).toBe(4096);
  });

  it.each([
    [
      change(20 * MIB),
      "Offset (20971520) cannot be greater than size of the containing file (1048576)",
    ],
    [change(0, 1000), "Specified size is not multiple of 512"],
  ])("refuses a window that is not there", async (reopen, message) => {
    const host = await open({ size: 4096 });
    await expect(host.driver.prepareReopen?.(reopen)).rejects.toMatchObject({
      code: "EINVAL",
      message,
    });
    expect(host.driver.size).toBe(4096);
  });
});
