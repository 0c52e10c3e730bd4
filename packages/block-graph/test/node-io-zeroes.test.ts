import { type BlockLimits, type DriverFlags, RequestFlag, Role } from "@blocklayer/driver";
import { PassThroughFilter, patternBytes, ScriptedDriver } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";
import { loggedDisk } from "./logged-disk.ts";

const MiB = 1024 * 1024;
const { mayUnmap, fua, noFallback } = RequestFlag;

function flags(zeroes: number, write = 0): DriverFlags {
  return { read: 0, write, zeroes, truncateZero: true };
}

describe("write-zeroes", () => {
  it.each([
    ["an aligned range", {}, [0, 4096], ["pwriteZeroes 0+4096"]],
    ["a range longer than a transfer", { maxTransfer: 512 }, [0, 4096], ["pwriteZeroes 0+4096"]],
    [
      "a range longer than the driver zeroes at once",
      { maxPwriteZeroes: 1024 },
      [512, 2560],
      ["pwriteZeroes 512+1024", "pwriteZeroes 1536+1024", "pwriteZeroes 2560+512"],
    ],
    [
      "a range around the driver's own alignment",
      { pwriteZeroesAlignment: 1024 },
      [512, 3072],
      ["pwriteZeroes 512+512", "pwriteZeroes 1024+2048", "pwriteZeroes 3072+512"],
    ],
    [
      "a head that is longer than a transfer",
      { pwriteZeroesAlignment: 4096, maxTransfer: 1024 },
      [512, 7680],
      [
        "pwriteZeroes 512+1024",
        "pwriteZeroes 1536+1024",
        "pwriteZeroes 2560+1024",
        "pwriteZeroes 3584+512",
        "pwriteZeroes 4096+4096",
      ],
    ],
    [
      "a range inside one block",
      { requestAlignment: 512 },
      [10, 20],
      ["pread 0+512", "pwrite 0+512"],
    ],
    [
      "a range over two blocks, neither whole",
      { requestAlignment: 512 },
      [500, 24],
      ["pread 0+512", "pwrite 0+512", "pread 512+512", "pwrite 512+512"],
    ],
    [
      "a range with a head and a tail",
      { requestAlignment: 512 },
      [500, 2000],
      ["pread 0+512", "pwrite 0+512", "pwriteZeroes 512+1536", "pread 2048+512", "pwrite 2048+512"],
    ],
  ] as const)("of %s", async (_title, limits: Partial<BlockLimits>, [offset, length], expected) => {
    const { driver, disk, log } = loggedDisk({ size: 8192, limits });
    disk.bytes.set(patternBytes(8192, 1));
    const after = disk.bytes.slice().fill(0, offset, offset + length);
    await rootEdge(rigNode({ driver: () => driver })).pwriteZeroes(offset, length);
    expect(log).toEqual(expected);
    expect(disk.bytes).toEqual(after);
  });

  it.each([
    ["an emulating driver", { zeroes: "emulated" }],
    ["a driver without the method", { pwriteZeroes: undefined }],
    [
      "a driver that cannot do it here",
      { pwriteZeroes: () => Promise.reject(new BlockError("ENOTSUP", "not here")) },
    ],
  ] as const)("writes zero bytes for %s", async (_title, overrides) => {
    const { driver, disk, log } = loggedDisk(
      { size: 4096, limits: { maxTransfer: 1024 } },
      overrides,
    );
    disk.bytes.fill(1);
    await rootEdge(rigNode({ driver: () => driver })).pwriteZeroes(0, 2048);
    expect(log.filter((line) => line.startsWith("pwrite "))).toEqual([
      "pwrite 0+1024",
      "pwrite 1024+1024",
    ]);
    expect(disk.bytes.subarray(0, 2048).every((byte) => byte === 0)).toBe(true);
    expect(disk.bytes[2048]).toBe(1);
  });

  it("writes zero bytes in buffers of at most 16 MiB", async () => {
    const { driver, log } = loggedDisk({ size: 40 * MiB }, { zeroes: "emulated" });
    await rootEdge(rigNode({ driver: () => driver })).pwriteZeroes(0, 40 * MiB);
    expect(log).toEqual([
      `pwrite 0+${16 * MiB}`,
      `pwrite ${16 * MiB}+${16 * MiB}`,
      `pwrite ${32 * MiB}+${8 * MiB}`,
    ]);
  });

  it.each([
    ["does not know the flag", { flags: flags(0) }],
    ["emulates", { zeroes: "emulated", flags: flags(noFallback) }],
    [
      "cannot do it here",
      {
        flags: flags(noFallback),
        pwriteZeroes: () => Promise.reject(new BlockError("ENOTSUP", "x")),
      },
    ],
    ["never zeroes", { zeroes: "none" }],
  ] as const)("without fallback is ENOTSUP when the driver %s", async (_title, overrides) => {
    const { driver, log } = loggedDisk({ size: 4096 }, overrides);
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await expect(edge.pwriteZeroes(0, 512, { flags: noFallback })).rejects.toMatchObject({
      code: "ENOTSUP",
    });
    expect(log.filter((line) => line.startsWith("pwrite "))).toEqual([]);
  });

  it("is ENOTSUP for a driver that never zeroes, and names it", async () => {
    const { driver } = loggedDisk({ size: 4096 }, { zeroes: "none" });
    await expect(
      rootEdge(rigNode({ driver: () => driver })).pwriteZeroes(0, 512),
    ).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Driver 'x-test' does not support writing zeroes",
      context: { operation: "pwriteZeroes", offset: 0, length: 512 },
    });
  });

  it("without fallback, not aligned, is ENOTSUP", async () => {
    const { node } = diskNode({ size: 4096, limits: { requestAlignment: 512 } });
    await expect(rootEdge(node).pwriteZeroes(1, 512, { flags: noFallback })).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "512 bytes at 1 are not aligned to 512",
    });
  });

  it.each([
    ["unmap", mayUnmap, "pwriteZeroes 0+512 flags=4"],
    ["ignore", mayUnmap, "pwriteZeroes 0+512"],
    ["unmap", noFallback, "pwriteZeroes 0+512 flags=256"],
  ] as const)(
    "with discard %s and flags %d reaches the driver as %s",
    async (discard, requestFlags, expected) => {
      const { driver, log } = loggedDisk({ size: 4096 }, { flags: flags(mayUnmap | noFallback) });
      const edge = rootEdge(rigNode({ driver: () => driver, generic: { discard } }));
      await edge.pwriteZeroes(0, 512, { flags: requestFlags });
      expect(log).toEqual([expected]);
    },
  );

  it.each([
    [
      "native",
      flags(fua, fua),
      ["pread 0+512", "pwrite 0+512 flags=16", "pwriteZeroes 512+512 flags=16"],
    ],
    [
      "emulated by one flush",
      flags(0),
      ["pread 0+512", "pwrite 0+512", "pwriteZeroes 512+512", "flushToDisk"],
    ],
  ] as const)("with fua is %s", async (_title, driverFlags, expected) => {
    const { driver, log } = loggedDisk(
      { size: 4096, limits: { requestAlignment: 512 } },
      { flags: driverFlags },
    );
    await rootEdge(rigNode({ driver: () => driver })).pwriteZeroes(100, 924, { flags: fua });
    expect(log).toEqual(expected);
  });

  it("hands on errors other than ENOTSUP", async () => {
    const driver = new ScriptedDriver({ size: 4096 });
    driver.failNth("pwriteZeroes", 1, "ENOSPC");
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await expect(edge.pwriteZeroes(0, 512)).rejects.toMatchObject({ code: "ENOSPC" });
    expect(driver.log.map(({ operation }) => operation)).toEqual(["pwriteZeroes"]);
  });
});

describe("discard", () => {
  it.each([
    ["an aligned range", {}, [0, 4096], ["pdiscard 0+4096"]],
    [
      "a range around the discard alignment",
      { pdiscardAlignment: 1024 },
      [512, 3072],
      ["pdiscard 512+512", "pdiscard 1024+2048", "pdiscard 3072+512"],
    ],
    [
      "a range longer than a discard",
      { pdiscardAlignment: 512, maxPdiscard: 1300 },
      [0, 2560],
      ["pdiscard 0+1024", "pdiscard 1024+1024", "pdiscard 2048+512"],
    ],
    ["the whole blocks of a range", { requestAlignment: 512 }, [100, 1500], ["pdiscard 512+1024"]],
    ["less than a block as nothing", { requestAlignment: 512 }, [100, 300], []],
  ] as const)(
    "asks the driver for %s",
    async (_title, limits: Partial<BlockLimits>, [offset, length], expected) => {
      const { driver, log } = loggedDisk({ size: 8192, limits });
      await rootEdge(rigNode({ driver: () => driver })).pdiscard(offset, length);
      expect(log).toEqual(expected);
    },
  );

  it.each([
    ["discards are ignored", {}, { discard: "ignore" }],
    ["the driver has none", { pdiscard: undefined }, {}],
  ] as const)("succeeds without action when %s", async (_title, overrides, generic) => {
    const { driver, log } = loggedDisk({ size: 4096 }, overrides);
    const node = rigNode({ driver: () => driver, generic });
    const seen: string[] = [];
    node.addObserver({ afterWrite: ({ kind }) => void seen.push(kind) });
    await rootEdge(node).pdiscard(0, 4096);
    expect(log).toEqual([]);
    expect(seen).toEqual([]);
  });

  it("goes on after a piece that the driver cannot discard", async () => {
    const asked: string[] = [];
    const { driver } = loggedDisk(
      { size: 4096, limits: { maxPdiscard: 1024, pdiscardAlignment: 1024 } },
      {
        pdiscard: async (offset, length) => {
          asked.push(`${offset}+${length}`);
          if (offset === 0) throw new BlockError("ENOTSUP", "not this one");
        },
      },
    );
    await rootEdge(rigNode({ driver: () => driver })).pdiscard(0, 2048);
    expect(asked).toEqual(["0+1024", "1024+1024"]);
  });

  it("stops at any other error", async () => {
    const driver = new ScriptedDriver({
      size: 4096,
      limits: { maxPdiscard: 1024, pdiscardAlignment: 1024 },
    });
    driver.failNth("pdiscard", 2, "EIO");
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await expect(edge.pdiscard(0, 4096)).rejects.toMatchObject({ code: "EIO" });
    expect(driver.log).toHaveLength(2);
  });

  it.each([
    [-2, 512],
    [4096, 1],
    [4000, 200],
  ])("at %d of %d bytes is EIO and makes nothing longer", async (offset, length) => {
    const { node } = diskNode({ size: 4096, growing: true });
    await expect(rootEdge(node).pdiscard(offset, length)).rejects.toMatchObject({
      code: "EIO",
      context: { operation: "pdiscard", offset, length },
    });
    expect(node.size).toBe(4096);
  });
});

describe("a filter between", () => {
  it("shows the same behaviour as the disk below", async () => {
    const { node: below, disk } = diskNode({
      size: 8192,
      limits: { requestAlignment: 512, maxTransfer: 1024 },
    });
    disk.bytes.set(patternBytes(8192, 1));
    const children = { file: { node: below, role: Role.filtered | Role.primary } };
    const top = rigNode({
      name: "top",
      children,
      definition: { isFilter: true },
      driver: (host) => {
        const child = host.children.get("file");
        if (child === undefined) throw new Error("no child");
        return new PassThroughFilter(child);
      },
    });
    const edge = rootEdge(top);
    await edge.pwrite(100, patternBytes(3000, 2));
    await edge.pwriteZeroes(4000, 1000);
    const buffer = new Uint8Array(4000);
    await edge.pread(50, buffer);
    expect(buffer).toEqual(disk.bytes.subarray(50, 4050));
    expect(disk.bytes.subarray(100, 3100)).toEqual(patternBytes(3000, 2));
    expect(top.io.inFlight + below.io.inFlight).toBe(0);
  });
});
