import { patternBytes, reference, scriptedDefinition } from "@blocklayer/driver-tests";
import { manualEnv } from "@blocklayer/env";
import { memory } from "@blocklayer/memory";
import { raw } from "@blocklayer/raw";
import { describe, expect, it } from "vitest";
import type { WritableBackend } from "../src/backend-handles.ts";
import { Graph } from "../src/graph.ts";

const SIZE = 64 * 1024;

const KINDS: readonly (readonly [string, Readonly<Record<string, unknown>>])[] = [
  ["memory", { driver: "memory", size: SIZE }],
  ["raw over memory", { driver: "raw", file: { driver: "memory", size: SIZE } }],
  [
    "a window of raw over memory",
    { driver: "raw", offset: 512, size: SIZE, file: { driver: "memory", size: 2 * SIZE } },
  ],
  ["the reference disk", { driver: "x-blocklayer-reference", size: SIZE }],
  [
    "the reference disk of blocks of 512 bytes",
    {
      driver: "x-blocklayer-reference",
      size: SIZE,
      "request-alignment": 512,
      "max-transfer": 4096,
    },
  ],
  [
    "the reference disk of blocks of 4 KiB",
    {
      driver: "x-blocklayer-reference",
      size: SIZE,
      "request-alignment": 4096,
      "max-transfer": 8192,
    },
  ],
  [
    "raw over the reference disk of blocks of 4 KiB",
    {
      driver: "raw",
      file: { driver: "x-blocklayer-reference", size: SIZE, "request-alignment": 4096 },
    },
  ],
  ["the scripted disk", { driver: "x-blocklayer-scripted", size: SIZE }],
];

async function withDisk(
  options: Readonly<Record<string, unknown>>,
  work: (disk: WritableBackend) => Promise<void>,
): Promise<void> {
  const drivers = [memory, raw, reference, scriptedDefinition()] as const;
  const graph = new Graph({ env: manualEnv(), drivers });
  const node = await graph.open({ ...options, "node-name": "disk", discard: "unmap" } as never);
  const disk = await graph.createBackend({ node, perm: ["consistent-read", "write"] });
  try {
    await work(disk);
    expect(disk.inFlight).toBe(0);
    expect(node.io.inFlight).toBe(0);
  } finally {
    await disk.close();
    await graph.close();
  }
}

describe.each(KINDS)("%s", (_kind, options) => {
  it.each([
    [0, 1],
    [1, 510],
    [511, 2],
    [100, 5000],
    [4095, 8194],
    [SIZE - 1, 1],
    [SIZE - 5000, 5000],
    [0, SIZE],
  ])("at %d takes %d bytes, aligned or not", (offset, length) =>
    withDisk(options, async (disk) => {
      const content = patternBytes(SIZE, 1);
      await disk.write(0, content);
      await disk.write(offset, patternBytes(length, 2));
      content.set(patternBytes(length, 2), offset);
      const third = Math.floor(length / 3);
      await disk.writeZeroes(offset, third);
      content.fill(0, offset, offset + third);
      const seen = new Uint8Array(SIZE);
      await disk.read(0, seen);
      expect(seen).toEqual(content);
      const part = new Uint8Array(length);
      await disk.read(offset, part);
      expect(part).toEqual(content.subarray(offset, offset + length));
    }),
  );

  it.each([
    [-2, 2],
    [SIZE, 1],
    [SIZE - 1, 2],
    [SIZE + 4096, 4096],
  ])("past the end, at %d of %d bytes, is EIO and changes nothing", (offset, length) =>
    withDisk(options, async (disk) => {
      await disk.write(0, patternBytes(SIZE, 1));
      const requests = [
        disk.read(offset, new Uint8Array(length)),
        disk.write(offset, new Uint8Array(length)),
        disk.writev(offset, [new Uint8Array(length)]),
        disk.writeZeroes(offset, length),
        disk.discard(offset, length),
      ];
      for (const result of await Promise.allSettled(requests)) {
        expect(result).toMatchObject({ status: "rejected", reason: { code: "EIO" } });
      }
      const seen = new Uint8Array(SIZE);
      await disk.read(0, seen);
      expect(seen).toEqual(patternBytes(SIZE, 1));
      expect(disk.size).toBe(SIZE);
    }),
  );

  it("takes nothing anywhere inside", () =>
    withDisk(options, async (disk) => {
      for (const offset of [0, 1, SIZE]) {
        await disk.read(offset, new Uint8Array(0));
        await disk.write(offset, new Uint8Array(0));
        await disk.writeZeroes(offset, 0);
        await disk.discard(offset, 0);
      }
    }));

  it("discards inside the range alone", () =>
    withDisk(options, async (disk) => {
      await disk.write(0, patternBytes(SIZE, 1));
      await disk.discard(100, 30_000);
      const seen = new Uint8Array(SIZE);
      await disk.read(0, seen);
      expect(seen.subarray(0, 100)).toEqual(patternBytes(SIZE, 1).subarray(0, 100));
      expect(seen.subarray(30_100)).toEqual(patternBytes(SIZE, 1).subarray(30_100));
    }));

  it("has a block status that tiles it and says zero only of zeroes", () =>
    withDisk(options, async (disk) => {
      await disk.write(10_000, patternBytes(5000, 1));
      const seen = new Uint8Array(SIZE);
      await disk.read(0, seen);
      let offset = 0;
      while (offset < SIZE) {
        const { flags, length } = await disk.blockStatus(offset, SIZE - offset);
        expect(length).toBeGreaterThan(0);
        const run = seen.subarray(offset, offset + length);
        if ((flags & 2) !== 0) expect(run.every((byte) => byte === 0)).toBe(true);
        offset += length;
      }
      expect(offset).toBe(SIZE);
    }));
});
