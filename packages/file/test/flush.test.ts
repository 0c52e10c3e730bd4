import { describe, expect, it } from "vitest";
import { errorOf, openFile, systemError, temporaryFile, testSystem, WAYS } from "./harness.ts";

/** A disk whose flushes a test answers one by one. */
async function heldFlushes(ffi: boolean, generic = {}) {
  const test = await testSystem({ ffi });
  const host = await openFile(temporaryFile(), { system: test.system, generic });
  const answers: { resolve(): void; reject(error: Error): void }[] = [];
  test.replace(
    "fdatasync",
    () => new Promise((resolve, reject) => answers.push({ resolve, reject })),
  );
  return { ...test, host, answers, driver: host.driver };
}

async function turns(): Promise<void> {
  for (let count = 0; count < 20; count += 1) await Promise.resolve();
}

describe.each(WAYS)("flush %s", (_name, ffi) => {
  it("asks the operating system to make data stable", async () => {
    const { system, calls } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system });
    await host.driver.pwrite?.(0, new Uint8Array(10));
    await host.driver.flush?.();
    expect(calls.filter((name) => name === "fdatasync")).toHaveLength(1);
  });

  it("of a file that was opened for reading does nothing", async () => {
    const { system, calls } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system, generic: { readOnly: true } });
    await host.driver.flush?.();
    expect(calls).not.toContain("fdatasync");
  });

  it("that comes while one runs is covered by a call that begins after it came", async () => {
    const { host, driver, answers } = await heldFlushes(ffi);
    const done: string[] = [];
    const flush = (name: string): Promise<unknown> | undefined =>
      driver.flush?.().then(() => done.push(name));
    const flushes = [flush("first")];
    await turns();
    flushes.push(flush("second"), flush("third"));
    await turns();
    expect(answers).toHaveLength(1);
    answers[0]?.resolve();
    await turns();
    // The two that came meanwhile share the second call.
    expect(done).toEqual(["first"]);
    expect(answers).toHaveLength(2);
    flushes.push(flush("fourth"));
    answers[1]?.resolve();
    await turns();
    expect(done).toEqual(["first", "second", "third"]);
    answers[2]?.resolve();
    await Promise.all(flushes);
    expect(answers).toHaveLength(3);
    const closing = host.close();
    await turns();
    answers[3]?.resolve();
    await closing;
  });

  it.each(["EIO", "ENOSPC"])(
    "that failed with %s fails with it ever after, also at close",
    async (code) => {
      const { system, replace, open } = await testSystem({ ffi });
      const host = await openFile(temporaryFile(), { system });
      replace("fdatasync", () => Promise.reject(systemError(code)));
      expect(await errorOf(host.driver.flush?.())).toMatchObject({
        code,
        message: expect.stringMatching(/^flush failed: /),
        context: { node: "test", operation: "flush" },
      });
      replace("fdatasync", undefined);
      // Writes are taken, but nobody is told that they are stable.
      await host.driver.pwrite?.(0, new Uint8Array(10));
      for (let count = 0; count < 3; count += 1) {
        expect(await errorOf(host.driver.flush?.())).toMatchObject({
          code,
          message: expect.stringMatching(/^an earlier flush failed: /),
          hint: expect.stringContaining("open the file anew"),
        });
      }
      expect(await errorOf(host.driver.close())).toMatchObject({ code });
      expect(open.size).toBe(0);
    },
  );

  it("that waits while another fails reports the failure too", async () => {
    const { host, driver, answers, open } = await heldFlushes(ffi);
    const first = errorOf(driver.flush?.());
    await turns();
    const second = errorOf(driver.flush?.());
    answers[0]?.reject(systemError("EIO"));
    expect(await first).toMatchObject({ code: "EIO" });
    expect(await second).toMatchObject({ code: "EIO" });
    expect(answers).toHaveLength(1);
    await errorOf(host.driver.close());
    expect(open.size).toBe(0);
  });

  it.each(["fsync", "fdatasync"] as const)(
    "fails ever after a truncation whose %s failed: the error is told only once",
    async (name) => {
      const { system, replace } = await testSystem({ ffi });
      const host = await openFile(temporaryFile(), { system });
      await host.driver.pwrite?.(0, new Uint8Array(10));
      replace(name, () => Promise.reject(systemError("EIO")));
      const grown = errorOf(host.driver.truncate?.(2 ** 21, { preallocation: "full" }));
      const isUsed = (await grown) !== undefined;
      replace(name, undefined);
      expect(await errorOf(host.driver.flush?.())).toEqual(
        isUsed ? expect.objectContaining({ code: "EIO" }) : undefined,
      );
      await errorOf(host.close());
    },
  );

  it("may succeed after a failure when the page cache is bypassed", async () => {
    const { system, replace } = await testSystem({ ffi });
    await using host = await openFile(temporaryFile(), { system, generic: { cacheDirect: true } });
    replace("fdatasync", () => Promise.reject(systemError("EIO")));
    expect(await errorOf(host.driver.flush?.())).toMatchObject({ code: "EIO" });
    replace("fdatasync", undefined);
    expect(await errorOf(host.driver.flush?.())).toBeUndefined();
  });
});
