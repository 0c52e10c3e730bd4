import { constants } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  openFile,
  pattern,
  readBytes,
  systemError,
  temporaryFile,
  testSystem,
  WAYS,
} from "./harness.ts";

describe.runIf(constants.O_DIRECT !== undefined).each(WAYS)(
  "bypassing the page cache %s",
  (_name, ffi) => {
    const generic = { cacheDirect: true };

    it("asks for aligned requests and takes them from any buffer", async () => {
      await using host = await openFile(temporaryFile(3 * 2 ** 20), { ffi, generic });
      const alignment = host.driver.limits?.requestAlignment ?? 1;
      expect([512, 1024, 2048, 4096]).toContain(alignment);
      const bytes = pattern(2 ** 20 + alignment + 1).subarray(1);
      await host.driver.pwrite?.(alignment, bytes);
      await host.driver.pwritev?.(0, [pattern(100), pattern(alignment - 100, 4)]);
      expect(await readBytes(host.driver, alignment, bytes.length)).toEqual(bytes);
      expect(await readBytes(host.driver, 0, alignment)).toEqual(
        Uint8Array.from([...pattern(100), ...pattern(alignment - 100, 4)]),
      );
    });

    it("fills what lies beyond an unaligned end with zeroes", async () => {
      await using host = await openFile(temporaryFile(pattern(5000)), { ffi, generic });
      const bytes = await readBytes(host.driver, 4096, 4096);
      expect(bytes.subarray(0, 904)).toEqual(pattern(5000).subarray(4096));
      expect(bytes.subarray(904)).toEqual(new Uint8Array(3192));
    });

    it.each([
      [[], 4096, "everything succeeds, so nothing is learnt"],
      [[1], 512, "512 is the first to succeed"],
      [[1, 512], 1024, "1024 is the first to succeed"],
      [[1, 512, 1024, 2048], 4096, "4096 is the first to succeed"],
      [[1, 512, 1024, 2048, 4096], 4096, "nothing succeeds"],
    ])("finds out the alignment when reads of %j bytes fail: %i, %s", async (failing, expected) => {
      const { system, replace } = await testSystem({ ffi });
      replace("read", (_fd, buffer) =>
        failing.includes(buffer.length)
          ? Promise.reject(systemError("EINVAL"))
          : Promise.resolve(0),
      );
      await using host = await openFile(temporaryFile(), { system, generic });
      expect(host.driver.limits?.requestAlignment).toBe(expected);
    });

    it("writes a unit again that was taken in part", async () => {
      const { system, replace } = await testSystem({ ffi });
      await using host = await openFile(temporaryFile(2 ** 16), { system, generic });
      const { write } = system;
      const lengths: number[] = [];
      replace("write", async (fd, buffers, offset) => {
        const count = await write(fd, buffers, offset);
        lengths.push(count);
        return lengths.length === 1 ? count - 1 : count;
      });
      await host.driver.pwrite?.(0, pattern(16_384));
      expect(lengths).toHaveLength(2);
      expect(await readBytes(host.driver, 0, 16_384)).toEqual(pattern(16_384));
    });

    it("is refused where the file system cannot", async () => {
      const { system, replace, open } = await testSystem({ ffi });
      const real = system.open;
      replace("open", (name, flags, mode) =>
        (flags & constants.O_DIRECT) === 0
          ? real(name, flags, mode)
          : Promise.reject(systemError("EINVAL")),
      );
      const path = temporaryFile();
      expect(await errorOf(openFile(path, { system, generic }))).toMatchObject({
        code: "EINVAL",
        message: `Could not open '${path}': filesystem does not support O_DIRECT`,
      });
      expect(open.size).toBe(0);
    });
  },
);
