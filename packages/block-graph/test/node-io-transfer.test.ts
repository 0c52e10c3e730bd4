import { type BlockDriver, RequestFlag } from "@blocklayer/driver";
import { patternBytes, ReferenceDisk, ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";
import { loggedDisk } from "./logged-disk.ts";

const KiB = 1024;

function bytes(length: number, seed = 1): Uint8Array {
  return patternBytes(length, seed);
}

describe("reads", () => {
  it.each([
    ["one block inside", 512, [100, 10], ["pread 0+512"]],
    ["two blocks", 512, [500, 24], ["pread 0+1024"]],
    ["a large aligned range", 512, [512, 256 * KiB], [`pread 512+${256 * KiB}`]],
    [
      "a large range with a head and a tail",
      512,
      [100, 256 * KiB],
      ["pread 0+512", `pread 512+${256 * KiB - 512}`, `pread ${256 * KiB}+512`],
    ],
    ["a range at alignment 4096", 4096, [1, 4096], ["pread 0+8192"]],
  ] as const)("pad %s", async (_title, requestAlignment, [offset, length], expected) => {
    const { driver, disk, log } = loggedDisk({ size: 512 * KiB, limits: { requestAlignment } });
    disk.bytes.set(bytes(disk.size));
    const buffer = new Uint8Array(length);
    await rootEdge(rigNode({ driver: () => driver })).pread(offset, buffer);
    expect(log).toEqual(expected);
    expect(buffer).toEqual(disk.bytes.subarray(offset, offset + length));
  });

  it("are split to the longest transfer", async () => {
    const limits = { requestAlignment: 512, maxTransfer: 1024 };
    const { driver, disk, log } = loggedDisk({ size: 8 * KiB, limits });
    disk.bytes.set(bytes(disk.size));
    const buffer = new Uint8Array(2048);
    await rootEdge(rigNode({ driver: () => driver })).pread(700, buffer);
    expect(log).toEqual(["pread 512+1024", "pread 1536+1024", "pread 2560+512"]);
    expect(buffer).toEqual(disk.bytes.subarray(700, 2748));
  });

  it.each([
    [4000, 200, 96],
    [4096, 10, 0],
    [1_000_000, 10, 0],
  ])(
    "at %d of %d bytes beyond the end are filled with zeroes after %d bytes",
    async (offset, length, inside) => {
      const { node, disk } = diskNode({ size: 4096, limits: { requestAlignment: 512 } });
      disk.bytes.fill(7);
      const buffer = new Uint8Array(length).fill(9);
      await rootEdge(node).pread(offset, buffer);
      expect(buffer.subarray(0, inside).every((byte) => byte === 7)).toBe(true);
      expect(buffer.subarray(inside).every((byte) => byte === 0)).toBe(true);
    },
  );

  it("hand on what the driver reports", async () => {
    const driver = new ScriptedDriver({ size: 4096, limits: { requestAlignment: 512 } });
    driver.failNth("pread", 1, "EIO");
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await expect(edge.pread(10, new Uint8Array(10))).rejects.toMatchObject({ code: "EIO" });
  });

  it("that are only a hint leave the buffer alone where the driver does not take hints", async () => {
    const { driver, log } = loggedDisk({ size: 4096 });
    const buffer = new Uint8Array(512).fill(3);
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await edge.pread(0, buffer, { flags: RequestFlag.prefetch });
    expect(log).toEqual([]);
    expect(buffer[0]).toBe(3);
  });
});

describe("writes", () => {
  it.each([
    ["inside one block", 100, 10, ["pread 0+512", "pwrite 0+512"]],
    ["over two blocks", 500, 24, ["pread 0+1024", "pwrite 0+1024"]],
    ["with a head", 700, 1348, ["pread 512+512", "pwrite 512+1536"]],
    ["with a tail", 512, 1100, ["pread 1536+512", "pwrite 512+1536"]],
    [
      "with both around a long middle",
      100,
      128 * KiB,
      [
        "pread 0+512",
        `pread ${128 * KiB}+512`,
        `pwrite 0+${64 * KiB}`,
        `pwrite ${64 * KiB}+${64 * KiB}`,
        `pwrite ${128 * KiB}+512`,
      ],
    ],
  ] as const)(
    "that are not aligned, %s, keep what is around",
    async (_title, offset, length, expected) => {
      const { driver, disk, log } = loggedDisk({
        size: 256 * KiB,
        limits: { requestAlignment: 512 },
      });
      disk.bytes.set(bytes(disk.size));
      const after = disk.bytes.slice();
      after.set(bytes(length, 2), offset);
      await rootEdge(rigNode({ driver: () => driver })).pwrite(offset, bytes(length, 2));
      expect(log).toEqual(expected);
      expect(disk.bytes).toEqual(after);
    },
  );

  it.each([1, 2])(
    "fail when read %d around an incomplete block fails, and write nothing",
    async (nth) => {
      const driver = new ScriptedDriver({ size: 8 * KiB, limits: { requestAlignment: 512 } });
      const node = rigNode({ driver: () => driver });
      driver.failNth("pread", nth, "EIO");
      await expect(rootEdge(node).pwrite(100, bytes(3000))).rejects.toMatchObject({ code: "EIO" });
      expect(driver.log.filter(({ operation }) => operation === "pwrite")).toEqual([]);
      expect(node.io.inFlight).toBe(0);
      expect(node.io.tracker.serialisingCount).toBe(0);
    },
  );

  it("are split to the longest transfer", async () => {
    const { driver, disk, log } = loggedDisk({
      size: 8 * KiB,
      limits: { requestAlignment: 512, maxTransfer: 1024 },
    });
    await rootEdge(rigNode({ driver: () => driver })).pwrite(512, bytes(2560));
    expect(log).toEqual(["pwrite 512+1024", "pwrite 1536+1024", "pwrite 2560+512"]);
    expect(disk.bytes.subarray(512, 3072)).toEqual(bytes(2560));
  });

  it("of several long buffers that are not aligned are copied at their seams alone", async () => {
    const limits = { requestAlignment: 512 };
    const { driver, disk, log } = loggedDisk({ size: 512 * KiB, limits });
    const whole = bytes(400 * KiB);
    const seam = 150 * KiB + 100;
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await edge.pwritev(512, [whole.subarray(0, seam), whole.subarray(seam)]);
    expect(log).toEqual([
      `pwrite 512+${150 * KiB}`,
      `pwrite ${150 * KiB + 512}+${64 * KiB}`,
      `pwrite ${214 * KiB + 512}+${186 * KiB}`,
    ]);
    expect(disk.bytes.subarray(512, 512 + 400 * KiB)).toEqual(whole);
  });

  it.each([
    { title: "their seam", offset: 0, maxTransfer: 0, seam: 100 * KiB + 100 },
    { title: "their seam, from an odd place", offset: 300, maxTransfer: 0, seam: 100 * KiB + 100 },
    { title: "the longest transfer", offset: 300, maxTransfer: 5000, seam: 1 },
  ])("are never cut within a sector, at $title", async ({ offset, maxTransfer, seam }) => {
    const { driver, disk, log } = loggedDisk({ size: 512 * KiB, limits: { maxTransfer } });
    const whole = bytes(200 * KiB);
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await edge.pwritev(offset, [whole.subarray(0, seam), whole.subarray(seam)]);
    const ends = log.map((line) => {
      const [start = 0, length = 0] = line.slice("pwrite ".length).split("+").map(Number);
      return start + length;
    });
    expect(ends.length).toBeGreaterThan(1);
    expect(ends.at(-1)).toBe(offset + whole.length);
    expect(ends.slice(0, -1).filter((end) => end % 512 !== 0)).toEqual([]);
    expect(disk.bytes.subarray(offset, offset + whole.length)).toEqual(whole);
  });

  it.each([
    ["gathered when the driver takes one buffer", false, ["pwrite 512+1024"]],
    ["passed on when the driver takes several", true, ["pwritev 512+300+724"]],
  ] as const)("of several buffers are %s", async (_title, vectored, expected) => {
    const disk = new ReferenceDisk({ size: 4096, limits: { requestAlignment: 512 } });
    const log: string[] = [];
    const logged = loggedDisk({ size: 4096, limits: { requestAlignment: 512 } });
    const pwritev: BlockDriver["pwritev"] = async (offset, buffers) => {
      log.push(`pwritev ${offset}${buffers.map((buffer) => `+${buffer.length}`).join("")}`);
      let position = offset;
      for (const buffer of buffers) {
        disk.bytes.set(buffer, position);
        position += buffer.length;
      }
    };
    const driver = vectored ? Object.assign(logged.driver, { pwritev }) : logged.driver;
    const whole = bytes(1024);
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await edge.pwritev(512, [whole.subarray(0, 300), whole.subarray(300)]);
    expect(vectored ? log : logged.log).toEqual(expected);
    expect((vectored ? disk : logged.disk).bytes.subarray(512, 1536)).toEqual(whole);
  });

  it.each([
    [
      "passed to a driver that knows it",
      RequestFlag.fua,
      ["pwrite 0+1024 flags=16", "pwrite 1024+1024 flags=16"],
    ],
    [
      "a flush after the last piece otherwise",
      0,
      ["pwrite 0+1024", "pwrite 1024+1024", "flushToDisk"],
    ],
  ] as const)("with fua are %s", async (_title, known, expected) => {
    const { driver, log } = loggedDisk(
      { size: 4096, limits: { maxTransfer: 1024 } },
      { flags: { read: 0, write: known, zeroes: 0, truncateZero: true } },
    );
    await rootEdge(rigNode({ driver: () => driver })).pwrite(0, bytes(2048), {
      flags: RequestFlag.fua,
    });
    expect(log).toEqual(expected);
  });

  it("with fua fail when the flush that makes them stable fails", async () => {
    const { driver } = loggedDisk(
      { size: 4096 },
      {
        flags: { read: 0, write: 0, zeroes: 0, truncateZero: true },
        flushToDisk: () => Promise.reject(new Error("flush failed")),
      },
    );
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    await expect(edge.pwrite(0, bytes(512), { flags: RequestFlag.fua })).rejects.toThrow(
      "flush failed",
    );
    expect(node.io.flushedGeneration).toBe(0);
  });

  it("keep only the flags that the driver knows", async () => {
    const { driver, log } = loggedDisk(
      { size: 4096 },
      { flags: { read: 0, write: RequestFlag.writeUnchanged, zeroes: 0, truncateZero: true } },
    );
    const flags = RequestFlag.writeUnchanged | RequestFlag.mayUnmap | RequestFlag.serialising;
    await rootEdge(rigNode({ driver: () => driver })).pwrite(0, bytes(512), { flags });
    expect(log).toEqual(["pwrite 0+512 flags=64"]);
  });

  it.each([
    [
      "compressed, by a driver that cannot",
      RequestFlag.compressed,
      0,
      "Driver 'x-test' does not support compressed writes",
    ],
    [
      "without fallback, not aligned",
      RequestFlag.noFallback,
      10,
      "512 bytes at 10 are not aligned to 512",
    ],
  ])("%s, are ENOTSUP", async (_title, flags, offset, message) => {
    const { node } = diskNode({ size: 4096, limits: { requestAlignment: 512 } });
    await expect(rootEdge(node).pwrite(offset, bytes(512), { flags })).rejects.toMatchObject({
      code: "ENOTSUP",
      message,
      context: { node: "node0", operation: "pwrite", offset, length: 512 },
    });
  });

  it("to a driver that only reads are ENOTSUP", async () => {
    const { driver } = loggedDisk({ size: 4096 }, { pwrite: undefined });
    await expect(
      rootEdge(rigNode({ driver: () => driver })).pwrite(0, bytes(512)),
    ).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Driver 'x-test' does not support writes",
    });
  });

  it("beyond the end make the node longer and tell its parents", async () => {
    const { node, disk } = diskNode({
      size: 4096,
      growing: true,
      limits: { requestAlignment: 512 },
    });
    const sizes: number[] = [];
    const edge = rootEdge(node, 15, {
      kind: "other",
      describe: () => "x",
      resized: (e) => sizes.push(e.size),
    });
    await edge.pwrite(4096, bytes(512));
    await edge.pwriteZeroes(4608, 1000);
    expect(node.size).toBe(5632);
    expect(disk.size).toBe(5632);
    expect(sizes).toEqual([4608, 5632]);
    expect(node.io.highestWriteOffset).toBe(5632);
  });

  it("remember the highest offset also when they fail", async () => {
    const driver = new ScriptedDriver({ size: 4096 });
    const node = rigNode({ driver: () => driver });
    driver.failNth("pwrite");
    await expect(rootEdge(node).pwrite(1024, bytes(512))).rejects.toMatchObject({ code: "EIO" });
    expect(node.io.highestWriteOffset).toBe(1536);
    expect(node.io.writeGeneration).toBe(1);
  });

  it.each([
    ["off", 0, "pwrite 0+512"],
    ["on", 0, "pwriteZeroes 0+512"],
    ["unmap", 0, "pwriteZeroes 0+512 flags=4"],
    ["on", 1, "pwrite 0+512"],
  ] as const)(
    "of zeroes with detect-zeroes %s and last byte %d are %s",
    async (detectZeroes, last, expected) => {
      const { driver, log } = loggedDisk({ size: 4096 });
      const node = rigNode({ driver: () => driver, generic: { detectZeroes } });
      const buffer = new Uint8Array(512);
      buffer[511] = last;
      await rootEdge(node).pwrite(0, buffer);
      expect(log).toEqual([expected]);
    },
  );

  it("find zeroes at every alignment of the buffer", async () => {
    const { driver, log } = loggedDisk({ size: 4096 });
    const edge = rootEdge(rigNode({ driver: () => driver, generic: { detectZeroes: "on" } }));
    const memory = new Uint8Array(64);
    for (let start = 0; start < 9; start += 1) {
      for (let length = 1; length < 20; length += 1) {
        log.length = 0;
        await edge.pwrite(0, memory.subarray(start, start + length));
        expect(log).toEqual([`pwriteZeroes 0+${length}`]);
        for (let at = start; at < start + length; at += 1) {
          memory[at] = 1;
          log.length = 0;
          await edge.pwrite(0, memory.subarray(start, start + length));
          expect(log).toEqual([`pwrite 0+${length}`]);
          memory[at] = 0;
        }
      }
    }
  });
});
