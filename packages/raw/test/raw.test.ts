import { completed, RequestFlag, StatusFlag } from "@blocklayer/driver";
import { patternBytes, ReferenceDisk, TestHost, testChild } from "@blocklayer/driver-tests";
import { MAX_LENGTH } from "@blocklayer/offsets";
import { raw } from "@blocklayer/raw";
import { describe, expect, it } from "vitest";

const MIB = 1024 * 1024;

function open(
  options: object,
  file: ReferenceDisk = new ReferenceDisk({ size: MIB }),
): Promise<TestHost> {
  return TestHost.open(raw, { options, children: { file } });
}

describe("the window", () => {
  it.each([
    [{}, MIB],
    [{ offset: 0 }, MIB],
    [{ offset: 1000 }, MIB - 1000],
    [{ offset: MIB }, 0],
    [{ size: 0 }, 0],
    [{ size: 4096 }, 4096],
    [{ offset: MIB - 512, size: 512 }, 512],
  ])("%j of a MiB shows %i bytes", async (options, size) => {
    const { driver } = await open(options);
    expect(driver.size).toBe(size);
  });

  it.each([
    [
      { offset: 2 * MIB },
      "Offset (2097152) cannot be greater than size of the containing file (1048576)",
    ],
    [
      { offset: 2 * MIB, size: 1000 },
      "Offset (2097152) cannot be greater than size of the containing file (1048576)",
    ],
    [
      { offset: 524288, size: MIB },
      "The sum of offset (524288) and size (1048576) has to be smaller or equal to the  actual size of the containing file (1048576)",
    ],
    [
      { offset: 1000, size: 1048000 },
      "The sum of offset (1000) and size (1048000) has to be smaller or equal to the  actual size of the containing file (1048576)",
    ],
    [{ offset: 524288, size: 1000 }, "Specified size is not multiple of 512"],
  ])("%j of a MiB is refused in the words of the reference", async (options, message) => {
    await expect(open(options)).rejects.toMatchObject({
      code: "EINVAL",
      message,
      context: { node: "test", fileSize: MIB },
    });
  });

  it.each([
    [{}, 2 * MIB, 2 * MIB],
    [{}, 100, 100],
    [{ offset: 4096 }, 5000, 904],
    [{ offset: 4096 }, 4000, 0],
    [{ offset: 4096, size: 8192 }, 2 * MIB, 8192],
    [{ offset: 4096, size: 8192 }, 5000, 904],
    [{ offset: 4096, size: 8192 }, 100, 0],
  ])("%j of a file that now has %i bytes shows %i", async (options, fileSize, size) => {
    const file = new ReferenceDisk({ size: MIB });
    const { driver } = await open(options, file);
    await file.truncate(fileSize);
    expect(driver.size).toBe(size);
  });

  it("moves every request by its offset", async () => {
    const file = new ReferenceDisk({ size: 16384 });
    file.bytes.set(patternBytes(16384, 1));
    const before = file.bytes.slice();
    const { driver } = await open({ offset: 1000, size: 8192 }, file);
    const buffer = new Uint8Array(10);
    await driver.pread(5, buffer);
    expect(buffer).toEqual(before.slice(1005, 1015));
    await driver.pwrite?.(0, new Uint8Array(2).fill(9));
    await driver.pwritev?.(2, [new Uint8Array(1).fill(8), new Uint8Array(1).fill(7)]);
    await driver.pwriteZeroes?.(100, 3);
    await driver.pdiscard?.(200, 3);
    before.set([9, 9, 8, 7], 1000);
    before.fill(0, 1100, 1103);
    before.fill(0, 1200, 1203);
    expect(file.bytes).toEqual(before);
  });

  it.each([
    ["pread", "EINVAL"],
    ["pwrite", "ENOSPC"],
    ["pwritev", "ENOSPC"],
    ["pwriteZeroes", "ENOSPC"],
    ["pdiscard", "ENOSPC"],
    ["copyRangeFrom", "EINVAL"],
    ["copyRangeTo", "ENOSPC"],
  ] as const)("%s beyond a fixed size is %s", async (operation, code) => {
    const { driver } = await open({ size: 4096 });
    await expect(outside(driver, operation, 4000, 100)).rejects.toMatchObject({
      code,
      message: expect.stringContaining("of 100 bytes at 4000 goes beyond a window of 4096 bytes"),
      context: { node: "test", offset: 4000, length: 100 },
    });
  });

  it.each(["pread", "pwrite", "pwriteZeroes", "pdiscard"] as const)(
    "%s whose place in the file is beyond every offset is EINVAL",
    async (operation) => {
      const { driver } = await open({ offset: 512 });
      await expect(outside(driver, operation, MAX_LENGTH - 512, 1)).rejects.toMatchObject({
        code: "EINVAL",
        message: `${operation} of 1 bytes at ${MAX_LENGTH - 512} goes beyond the largest offset`,
      });
    },
  );

  it("lets the file grow by a write when its size is not fixed", async () => {
    const file = new ReferenceDisk({ size: 4096, growing: true });
    const { driver } = await open({ offset: 512 }, file);
    await driver.pwrite?.(3584, new Uint8Array(100).fill(1));
    expect([file.size, driver.size]).toEqual([4196, 3684]);
  });
});

type Operation =
  | "pread"
  | "pwrite"
  | "pwritev"
  | "pwriteZeroes"
  | "pdiscard"
  | "copyRangeFrom"
  | "copyRangeTo";

function outside(
  driver: TestHost["driver"],
  operation: Operation,
  offset: number,
  length: number,
): Promise<void> | undefined {
  const other = new ReferenceDisk({ size: 4096 });
  const bytes = new Uint8Array(length);
  switch (operation) {
    case "pread":
      return driver.pread(offset, bytes);
    case "pwrite":
      return driver.pwrite?.(offset, bytes);
    case "pwritev":
      return driver.pwritev?.(offset, [bytes]);
    case "pwriteZeroes":
      return driver.pwriteZeroes?.(offset, length);
    case "pdiscard":
      return driver.pdiscard?.(offset, length);
    case "copyRangeFrom":
      return driver.copyRangeFrom?.(offset, testChild(other), 0, length);
    case "copyRangeTo":
      return driver.copyRangeTo?.(other, 0, offset, length);
  }
}

describe("the request path", () => {
  it.each([{}, { offset: 512 }, { offset: 512, size: 4096 }])(
    "with %j returns the child's promise",
    async (options) => {
      const { driver } = await open(options);
      const buffer = new Uint8Array(512);
      expect(driver.pread(0, buffer)).toBe(completed);
      expect(driver.pwrite?.(0, buffer)).toBe(completed);
      expect(driver.flags).toBe(driver.flags);
      expect(driver.limits).toBe(driver.limits);
    },
  );

  it("hands flags and the signal on as they are", async () => {
    const file = new ReferenceDisk({ size: 4096 });
    const seen: unknown[] = [];
    file.pwrite = (...request): Promise<void> => {
      seen.push(request[2 as never]);
      return completed;
    };
    const { driver } = await open({}, file);
    const options = { flags: RequestFlag.fua, signal: new AbortController().signal };
    await driver.pwrite?.(0, new Uint8Array(1), options);
    expect(seen).toEqual([options]);
  });

  it("declares the child's flags that it hands on, and write-unchanged always", async () => {
    const file = new ReferenceDisk({ size: 4096 });
    const { fua, mayUnmap, noFallback, writeUnchanged, compressed, copyOnRead, prefetch } =
      RequestFlag;
    Object.assign(file, {
      flags: {
        read: copyOnRead | prefetch,
        write: fua | compressed,
        zeroes: fua | mayUnmap | noFallback,
        truncateZero: false,
      },
    });
    const { driver } = await open({}, file);
    expect(driver.flags).toEqual({
      read: prefetch,
      write: fua | writeUnchanged,
      zeroes: fua | mayUnmap | noFallback | writeUnchanged,
      truncateZero: false,
    });
    Object.assign(file, { flags: { read: 0, write: 0, zeroes: 0, truncateZero: true } });
    expect(driver.flags).toEqual({
      read: 0,
      write: writeUnchanged,
      zeroes: writeUnchanged,
      truncateZero: true,
    });
  });

  it.each(["native", "emulated", "none"] as const)("over zeroes %s", async (zeroes) => {
    const file = Object.assign(new ReferenceDisk({ size: 512 }), { zeroes });
    const { driver } = await open({}, file);
    expect(driver.zeroes).toBe(zeroes === "none" ? "none" : "native");
  });

  it("sends whoever asks for the status to its place in the file", async () => {
    const host = await open({ offset: 512 });
    expect(await host.driver.blockStatus?.(100, 1000)).toEqual({
      flags: StatusFlag.raw | StatusFlag.offsetValid,
      length: 1000,
      offset: 612,
      child: host.children.get("file"),
    });
  });

  it("copies ranges through the file", async () => {
    const file = new ReferenceDisk({ size: 4096 });
    const seen: unknown[] = [];
    Object.assign(file, {
      copyRangeFrom: (offset: number, _target: unknown, targetOffset: number, length: number) => {
        seen.push(["from", offset, targetOffset, length]);
        return completed;
      },
      copyRangeTo: (_source: unknown, sourceOffset: number, offset: number, length: number) => {
        seen.push(["to", sourceOffset, offset, length]);
        return completed;
      },
    });
    const { driver } = await open({ offset: 1024 }, file);
    const other = new ReferenceDisk({ size: 4096 });
    await driver.copyRangeFrom?.(10, testChild(other), 20, 30);
    await driver.copyRangeTo?.(other, 20, 10, 30);
    expect(seen).toEqual([
      ["from", 1034, 20, 30],
      ["to", 20, 1034, 30],
    ]);
  });

  it("tells what the file tells of itself", async () => {
    const file = new ReferenceDisk({ size: 4096 });
    Object.assign(file, { getInfo: () => Promise.resolve({ clusterSize: 4096 }) });
    const { driver } = await open({}, file);
    expect(await driver.getInfo?.()).toEqual({ clusterSize: 4096 });
    expect(await driver.allocatedSize?.()).toBe(4096);
  });
});

describe("truncate", () => {
  it.each([
    [{}, 4096, 4096],
    [{ offset: 1000 }, 4096, 5096],
  ])("with %j to %i makes the file %i bytes long", async (options, size, fileSize) => {
    const file = new ReferenceDisk({ size: MIB });
    const { driver } = await open(options, file);
    await driver.truncate?.(size);
    expect([driver.size, file.size]).toEqual([size, fileSize]);
  });

  it("is refused for a window of fixed size", async () => {
    const { driver } = await open({ size: 4096 });
    await expect(driver.truncate?.(8192)).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Cannot resize fixed-size raw disks",
      context: { node: "test", operation: "truncate", size: 8192 },
    });
  });

  it("is refused when the file would end beyond every offset", async () => {
    const { driver } = await open({ offset: 512 });
    await expect(driver.truncate?.(MAX_LENGTH)).rejects.toMatchObject({
      code: "EINVAL",
      message: `a disk of ${MAX_LENGTH} bytes at offset 512 ends beyond ${MAX_LENGTH}`,
      context: { size: MAX_LENGTH },
    });
  });
});

describe("the format", () => {
  const env = new TestHost().env;

  it("recognises everything, less surely than anybody else", () => {
    expect(raw.probe?.(new Uint8Array(512))).toBe(1);
  });

  it.each([
    [1000, 1024],
    [4096, 4096],
    [0, 0],
  ])("is created with %i bytes as a file of %i", async (size, fileSize) => {
    const file = new ReferenceDisk({ size: 0 });
    const options = raw.createSchema?.parse({ size });
    await raw.create?.(options?.ok === true ? options.value : {}, { env, file: testChild(file) });
    expect(file.size).toBe(fileSize);
  });

  it("is created with preallocation by the file", async () => {
    const file = new ReferenceDisk({ size: 0 });
    const seen: unknown[] = [];
    file.truncate = (...request): Promise<void> => {
      seen.push(request);
      return completed;
    };
    await raw.create?.({ size: 512, preallocation: "full" }, { env, file: testChild(file) });
    expect(seen).toEqual([[512, { preallocation: "full" }]]);
  });

  it("is not created in nothing", async () => {
    await expect(raw.create?.({ size: 512, preallocation: "off" }, { env })).rejects.toMatchObject({
      code: "EINVAL",
      message: "a raw image needs a file to be created in",
      context: { length: 512 },
    });
  });

  it.each([
    [{ size: 1000 }, undefined, 1024],
    [{}, 1000, 1024],
    [undefined, MIB, MIB],
  ])("measures %j of a source of %s bytes as %i", async (options, sourceSize, size) => {
    const source =
      sourceSize === undefined ? undefined : testChild(new ReferenceDisk({ size: sourceSize }));
    expect(await raw.measure?.(options, source)).toEqual({ required: size, fullyAllocated: size });
  });

  it("measures nothing of nothing", async () => {
    await expect(raw.measure?.({}, undefined)).rejects.toMatchObject({
      code: "EINVAL",
      message: "Either --size N or one filename must be specified.",
    });
  });
});
