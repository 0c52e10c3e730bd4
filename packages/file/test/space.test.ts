import { statSync } from "node:fs";
import { RequestFlag, StatusFlag } from "@blocklayer/driver";
import type { NativeCalls } from "@blocklayer/file";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  hasNative,
  openFile,
  readBytes,
  systemError,
  temporaryFile,
  testSystem,
} from "./harness.ts";

const KIB = 1024;
const MAY_UNMAP = { flags: RequestFlag.mayUnmap };
const HOLE = StatusFlag.zero | StatusFlag.offsetValid;
const DATA = StatusFlag.data | StatusFlag.offsetValid;
const ONES = new Uint8Array(256 * KIB).fill(1);

/** Names of fallocate modes. */
const MODES: Readonly<Record<number, string>> = { 0: "allocate", 3: "punch", 16: "zero" };

/** A system whose fallocate answers what a test says and notes what it was asked. */
async function withAnswers(answers: Readonly<Record<string, number>>) {
  const asked: string[] = [];
  const real = await testSystem();
  const fallocate: NativeCalls["fallocate"] = (fd, mode, offset, length) => {
    const name = MODES[mode] ?? String(mode);
    asked.push(name);
    const answer = answers[name];
    if (answer !== undefined) return Promise.resolve(answer);
    return real.system.native?.fallocate(fd, mode, offset, length) ?? Promise.resolve(-38);
  };
  return { ...(await testSystem({ native: { fallocate } })), asked };
}

describe.runIf(hasNative)("write-zeroes", () => {
  it.each<
    [string, Record<string, number>, number, "ignore" | "unmap", string[], string | undefined]
  >([
    ["keeps space", {}, 0, "unmap", ["zero"], undefined],
    ["makes a hole when it may", {}, RequestFlag.mayUnmap, "unmap", ["punch"], undefined],
    [
      "keeps space when discards are ignored",
      {},
      RequestFlag.mayUnmap,
      "ignore",
      ["zero"],
      undefined,
    ],
    [
      "does without zero-range",
      { zero: -95 },
      0,
      "unmap",
      ["zero", "punch", "allocate"],
      undefined,
    ],
    [
      "does without zero-range for this range",
      { zero: -22 },
      0,
      "unmap",
      ["zero", "punch", "allocate"],
      undefined,
    ],
    [
      "does without holes",
      { punch: -95 },
      RequestFlag.mayUnmap,
      "unmap",
      ["punch", "zero"],
      undefined,
    ],
    [
      "does without a hole that is busy",
      { punch: -16 },
      RequestFlag.mayUnmap,
      "unmap",
      ["punch", "zero"],
      undefined,
    ],
    [
      "does without a hole for this range",
      { punch: -22 },
      RequestFlag.mayUnmap,
      "unmap",
      ["punch", "zero"],
      undefined,
    ],
    [
      "is not supported without any of them",
      { zero: -95, punch: -95 },
      0,
      "unmap",
      ["zero", "punch"],
      "ENOTSUP",
    ],
    [
      "is not supported by holes that cannot be allocated",
      { zero: -95, allocate: -95 },
      0,
      "unmap",
      ["zero", "punch", "allocate"],
      "ENOTSUP",
    ],
    ["reports a full disk", { zero: -28 }, 0, "unmap", ["zero"], "ENOSPC"],
    ["reports a failing disk", { punch: -5 }, RequestFlag.mayUnmap, "unmap", ["punch"], "EIO"],
  ])("%s", async (_name, answers, flags, discard, expected, code) => {
    const { system, asked } = await withAnswers(answers);
    await using host = await openFile(temporaryFile(ONES), { system, generic: { discard } });
    const error = await errorOf(host.driver.pwriteZeroes?.(4096, 8192, { flags }));
    expect(asked).toEqual(expected);
    if (code !== undefined) {
      expect(error).toMatchObject({ code, context: { node: "test", offset: 4096, length: 8192 } });
      return;
    }
    expect(error).toBeUndefined();
    expect(await readBytes(host.driver, 4096, 8192)).toEqual(new Uint8Array(8192));
    expect(await readBytes(host.driver, 0, 4096)).toEqual(ONES.subarray(0, 4096));
    expect(await readBytes(host.driver, 12_288, 4096)).toEqual(ONES.subarray(0, 4096));
  });

  it("does not try again what is not supported, and what refused one range it does", async () => {
    const { system, asked } = await withAnswers({ zero: -95, punch: -22 });
    await using host = await openFile(temporaryFile(ONES), { system });
    await errorOf(host.driver.pwriteZeroes?.(0, 4096));
    await errorOf(host.driver.pwriteZeroes?.(0, 4096));
    expect(asked).toEqual(["zero", "punch", "punch"]);
  });

  it("tries again what was interrupted", async () => {
    let tries = 0;
    const fallocate = (): Promise<number> => {
      tries += 1;
      return Promise.resolve(tries < 3 ? -4 : 0);
    };
    const { system } = await testSystem({ native: { fallocate } });
    await using host = await openFile(temporaryFile(ONES), { system });
    await host.driver.pwriteZeroes?.(0, 4096);
    expect(tries).toBe(3);
  });

  it.each([0, RequestFlag.mayUnmap])(
    "makes the file longer beyond the end (flags %i)",
    async (flags) => {
      await using host = await openFile(temporaryFile(10 * KIB));
      await host.driver.pwriteZeroes?.(8 * KIB, 64 * KIB, { flags });
      expect(host.driver.size).toBe(72 * KIB);
      expect(await readBytes(host.driver, 8 * KIB, 64 * KIB)).toEqual(new Uint8Array(64 * KIB));
      await host.driver.activate?.();
      expect(host.driver.size).toBe(72 * KIB);
    },
  );

  it("makes the file longer where nothing but writing works", async () => {
    const { system } = await withAnswers({ zero: -95, punch: -95, allocate: -95 });
    const path = temporaryFile(10 * KIB);
    await using host = await openFile(path, { system });
    await host.driver.pwriteZeroes?.(16 * KIB, 4 * KIB);
    expect(statSync(path).size).toBe(20 * KIB);
    expect(await readBytes(host.driver, 10 * KIB, 10 * KIB)).toEqual(new Uint8Array(10 * KIB));
  });

  it("does not cut off what was written behind it meanwhile", async () => {
    const { system } = await withAnswers({ zero: -95, allocate: -95 });
    const path = temporaryFile(4 * KIB);
    await using host = await openFile(path, { system });
    const zeroes = host.driver.pwriteZeroes?.(4 * KIB, 4 * KIB, MAY_UNMAP);
    const write = host.driver.pwrite?.(8 * KIB, ONES.subarray(0, 4 * KIB));
    await Promise.all([zeroes, write]);
    expect(await readBytes(host.driver, 8 * KIB, 4 * KIB)).toEqual(ONES.subarray(0, 4 * KIB));
  });

  it("reports a file that cannot grow", async () => {
    const { system, replace } = await withAnswers({ zero: -95, punch: -95, allocate: -95 });
    await using host = await openFile(temporaryFile(4 * KIB), { system });
    replace("write", () => Promise.reject(systemError("ENOSPC")));
    expect(await errorOf(host.driver.pwriteZeroes?.(4 * KIB, 4 * KIB))).toMatchObject({
      code: "ENOSPC",
      context: { operation: "pwriteZeroes" },
    });
  });

  it("is left to the graph without native calls", async () => {
    await using host = await openFile(temporaryFile(4 * KIB), { ffi: false });
    expect(host.driver.zeroes).toBe("emulated");
    expect(host.driver.pwriteZeroes).toBeUndefined();
    expect(host.driver.pdiscard).toBeUndefined();
    expect(host.driver.copyRangeTo).toBeUndefined();
  });
});

describe.runIf(hasNative)("discard", () => {
  it("gives space back, and counts", async () => {
    const path = temporaryFile(ONES);
    await using host = await openFile(path);
    const before = await host.driver.allocatedSize?.();
    await host.driver.pdiscard?.(64 * KIB, 128 * KIB);
    expect(await host.driver.allocatedSize?.()).toBeLessThan(before ?? 0);
    expect(await readBytes(host.driver, 64 * KIB, 128 * KIB)).toEqual(new Uint8Array(128 * KIB));
    expect(host.driver).toMatchObject({
      stats: { discardsOk: 1, discardsFailed: 0, discardedBytes: 128 * KIB },
    });
    expect(host.driver.size).toBe(256 * KIB);
  });

  it.each([
    [-95, "ENOTSUP"],
    [-22, "ENOTSUP"],
    [-5, "EIO"],
  ])("that fails with %i is %s, and is counted", async (answer, code) => {
    const { system } = await withAnswers({ punch: answer });
    await using host = await openFile(temporaryFile(ONES), { system });
    expect(await errorOf(host.driver.pdiscard?.(0, 4096))).toMatchObject({ code });
    expect(host.driver).toMatchObject({ stats: { discardsFailed: 1, discardsOk: 0 } });
  });
});

describe.runIf(hasNative)("block status", () => {
  async function sparse() {
    const host = await openFile(temporaryFile(0));
    await host.driver.truncate?.(1024 * KIB);
    await host.driver.pdiscard?.(0, 4 * KIB);
    await host.driver.pwrite?.(256 * KIB, ONES.subarray(0, 64 * KIB));
    return host;
  }

  it.each([
    ["a hole before data", 0, 1024, HOLE, 256],
    ["a part of a hole", 16, 8, HOLE, 8],
    ["data before a hole", 256, 1024, DATA, 64],
    ["the middle of data", 272, 1024, DATA, 48],
    ["the hole at the end", 320, 704, HOLE, 704],
    ["the last bytes", 1020, 4, HOLE, 4],
  ])("of %s", async (_name, offsetKib, lengthKib, flags, expectedKib) => {
    await using host = await sparse();
    // The first answers come from the thread pool, later ones within the call.
    for (let count = 0; count < 12; count += 1) {
      expect(await host.driver.blockStatus?.(offsetKib * KIB, lengthKib * KIB)).toEqual({
        flags,
        length: expectedKib * KIB,
        offset: offsetKib * KIB,
      });
    }
  });

  it("is data when nobody wants to know of zeroes", async () => {
    await using host = await sparse();
    expect(await host.driver.blockStatus?.(0, 1024 * KIB, { wantZero: false })).toEqual({
      flags: DATA,
      length: 1024 * KIB,
      offset: 0,
    });
  });

  it("is data without native calls", async () => {
    await using host = await openFile(temporaryFile(0), { ffi: false });
    await host.driver.truncate?.(1024 * KIB);
    expect(await host.driver.blockStatus?.(0, 1024 * KIB)).toMatchObject({ flags: DATA });
  });

  it.each([
    ["data that cannot be found", [-5, 0]],
    ["a hole that cannot be found", [0, -5]],
    ["a file that changed between the questions", [0, 0]],
  ])("of %s is data", async (_name, [data, hole]) => {
    const seek: NativeCalls["seek"] = (_fd, _offset, target) =>
      Promise.resolve((target === "data" ? data : hole) ?? 0);
    const { system } = await testSystem({ native: { seek } });
    await using host = await openFile(temporaryFile(64 * KIB), { system });
    expect(await host.driver.blockStatus?.(0, 64 * KIB)).toEqual({
      flags: DATA,
      length: 64 * KIB,
      offset: 0,
    });
  });

  it("rounds data at an unaligned end up when the page cache is bypassed", async () => {
    const path = temporaryFile(ONES.subarray(0, 5000));
    await using host = await openFile(path, { generic: { cacheDirect: true } });
    const { requestAlignment = 1 } = host.driver.limits ?? {};
    const status = await host.driver.blockStatus?.(0, 8192);
    expect((status?.length ?? 0) % requestAlignment).toBe(0);
    expect(status?.length).toBeGreaterThanOrEqual(5000);
  });
});

describe.runIf(hasNative)("copying within the operating system", () => {
  async function twoFiles(native: Partial<NativeCalls> = {}) {
    const { system } = await testSystem({ native });
    const source = await openFile(temporaryFile(ONES), { system });
    const target = await openFile(temporaryFile(4 * KIB), { system });
    const close = async (): Promise<void> => {
      await source.close();
      await target.close();
    };
    const copy = (offset: number, targetOffset: number, length: number) =>
      target.driver.copyRangeTo?.(source.driver, offset, targetOffset, length);
    return { source, target, copy, [Symbol.asyncDispose]: close };
  }

  it("moves bytes between two files, and makes the target longer", async () => {
    await using files = await twoFiles();
    await files.copy(8 * KIB, 16 * KIB, 100 * KIB);
    expect(files.target.driver.size).toBe(116 * KIB);
    expect(await readBytes(files.target.driver, 16 * KIB, 100 * KIB)).toEqual(
      ONES.subarray(0, 100 * KIB),
    );
    expect(await readBytes(files.target.driver, 4 * KIB, 12 * KIB)).toEqual(
      new Uint8Array(12 * KIB),
    );
  });

  it("starts at the source and ends at the target's edge", async () => {
    await using files = await twoFiles();
    const asked: unknown[] = [];
    const child = {
      copyRangeTo: (...args: unknown[]) => {
        asked.push(args);
        return Promise.resolve();
      },
    };
    await files.source.driver.copyRangeFrom?.(1, child as never, 2, 3);
    expect(asked).toEqual([[files.source.driver, 1, 2, 3, undefined]]);
  });

  it("goes on after a part and after an interruption", async () => {
    const answers = [1000, -4, 3096];
    const seen: number[] = [];
    await using files = await twoFiles({
      copyRange: (_fd, sourceOffset) => {
        seen.push(sourceOffset);
        return Promise.resolve(answers.shift() ?? 0);
      },
    });
    await files.copy(0, 0, 4096);
    expect(seen).toEqual([0, 1000, 1000]);
  });

  it.each([
    ["no progress", 0, "ENOTSUP"],
    ["another file system", -18, "ENOTSUP"],
    ["a file system that cannot", -95, "ENOTSUP"],
    ["a kernel that cannot", -38, "ENOTSUP"],
    ["overlapping ranges", -22, "ENOTSUP"],
    ["a full disk", -28, "ENOSPC"],
    ["a failing disk", -5, "EIO"],
  ])("answers %s (%i) with %s", async (_name, answer, code) => {
    await using files = await twoFiles({ copyRange: () => Promise.resolve(answer) });
    expect(await errorOf(files.copy(0, 0, 4096))).toMatchObject({
      code,
      context: { node: "test", operation: "copyRange", offset: 0, length: 4096 },
    });
  });

  it("is not possible from a node that is no file", async () => {
    await using files = await twoFiles();
    const attempt = files.target.driver.copyRangeTo?.({} as never, 0, 0, 10);
    expect(await errorOf(attempt)).toMatchObject({ code: "ENOTSUP" });
  });
});
