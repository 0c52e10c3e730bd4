import { completed } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import {
  errorOf,
  hasNative,
  nextTurn,
  openFile,
  pattern,
  readBytes,
  steppedEnv,
  temporaryFile,
  testSystem,
  WAYS,
} from "./harness.ts";

const PAGE = 4096;

describe("a disk that is measured", () => {
  /** Opens a disk whose calls take as long as a test says. */
  async function measuredDisk() {
    const { env, clock } = steppedEnv();
    const test = await testSystem({ ffi: false });
    const { write, writeNow, read, readNow } = test.system;
    const took = { pooledMs: 0.1, nowMs: 0.01 };
    const now = <T>(result: T): T => {
      clock.nowMs += took.nowMs;
      return result;
    };
    const pooled = <T>(result: T): T => {
      clock.nowMs += took.pooledMs;
      return result;
    };
    test.replace("writeNow", (...args) => now(writeNow(...args)));
    test.replace("readNow", (...args) => now(readNow(...args)));
    test.replace("write", async (...args) => pooled(await write(...args)));
    test.replace("read", async (...args) => pooled(await read(...args)));
    const host = await openFile(temporaryFile(), { system: test.system, env });
    /** Makes requests and counts those that went to the thread pool. */
    const pooledOf = async (count: number, request: () => Promise<void> | undefined) => {
      let pooledCount = 0;
      for (let index = 0; index < count; index += 1) {
        const promise = request();
        if (promise !== completed) pooledCount += 1;
        await promise;
        await nextTurn();
      }
      return pooledCount;
    };
    return {
      host,
      took,
      write: (count: number, length = PAGE) =>
        pooledOf(count, () => host.driver.pwrite?.(0, new Uint8Array(length))),
      read: (count: number) => pooledOf(count, () => host.driver.pread(0, new Uint8Array(PAGE))),
    };
  }

  it.each(["write", "read"] as const)(
    "is used by %s within the call once it is known to be fast",
    async (operation) => {
      const disk = await measuredDisk();
      expect(await disk[operation](100)).toBe(8);
      await disk.host.close();
    },
  );

  it.each(["write", "read"] as const)(
    "is never used by %s within the call while it is slow",
    async (operation) => {
      const disk = await measuredDisk();
      disk.took.pooledMs = 3;
      expect(await disk[operation](100)).toBe(100);
      await disk.host.close();
    },
  );

  it.each(["pwrite", "pread"] as const)(
    "is known to be fast by its calls of %s, not by how long they waited for their turn",
    async (operation) => {
      const disk = await measuredDisk();
      disk.took.pooledMs = 0.5;
      const request = () => disk.host.driver[operation]?.(0, new Uint8Array(PAGE));
      // The last of them waits for 50 ms.
      await Promise.all(Array.from({ length: 100 }, request));
      await nextTurn();
      expect(request()).toBe(completed);
      await disk.host.close();
    },
  );

  it("is not thought slow because of a long request that takes its time", async () => {
    const disk = await measuredDisk();
    await disk.write(8);
    disk.took.pooledMs = 30;
    expect(await disk.write(1, 32 * 2 ** 20)).toBe(1);
    expect(await disk.write(10)).toBe(0);
    disk.took.pooledMs = 100;
    expect(await disk.write(1, 32 * 2 ** 20)).toBe(1);
    expect(await disk.write(10)).toBe(10);
    await disk.host.close();
  });

  it("is left to the thread pool for the rest of a turn that has taken long", async () => {
    const disk = await measuredDisk();
    await disk.write(8);
    disk.took.nowMs = 0.15;
    const inCall = Array.from({ length: 50 }, () =>
      disk.host.driver.pwrite?.(0, new Uint8Array(PAGE)),
    );
    // Calls of 0.15 ms fill the 4 ms of a turn, and the bytes they move count too.
    expect(inCall.filter((promise) => promise === completed)).toHaveLength(26);
    await Promise.all(inCall);
    await disk.host.close();
  });

  it("is left to the thread pool after one very slow call, for longer each time", async () => {
    const disk = await measuredDisk();
    expect(await disk.write(20)).toBe(8);
    disk.took.nowMs = 41;
    expect(await disk.write(1)).toBe(0);
    disk.took.nowMs = 0.01;
    expect(await disk.write(100)).toBe(64);
    disk.took.nowMs = 41;
    expect(await disk.write(1)).toBe(0);
    disk.took.nowMs = 0.01;
    expect(await disk.write(200)).toBe(128);
    await disk.host.close();
  });

  it("may be slow now and then, a twentieth of all time, and not more often", async () => {
    const disk = await measuredDisk();
    await disk.write(8);
    const slowAfter = async (count: number): Promise<void> => {
      disk.took.nowMs = 0.1;
      expect(await disk.write(count)).toBe(0);
      disk.took.nowMs = 10;
      await disk.write(1);
    };
    // 10 ms in each 210 ms.
    for (let round = 0; round < 20; round += 1) await slowAfter(2000);
    // 10 ms in each 110 ms use up what was saved.
    for (let round = 0; round < 7; round += 1) await slowAfter(1000);
    disk.took.nowMs = 0.1;
    expect(await disk.write(10)).toBe(10);
    await disk.host.close();
  });

  it("is tried again although a pooled call in a hundred is slow, as on a busy machine", async () => {
    const disk = await measuredDisk();
    await disk.write(8);
    disk.took.nowMs = 41;
    await disk.write(1);
    disk.took.nowMs = 0.01;
    for (let count = 0; count < 4; count += 1) {
      disk.took.pooledMs = 10;
      await disk.write(1);
      disk.took.pooledMs = 0.1;
      await disk.write(99);
    }
    expect(await disk.write(10)).toBe(0);
    await disk.host.close();
  });

  it("is left to the thread pool when calls are slow on average", async () => {
    const disk = await measuredDisk();
    await disk.write(8);
    disk.took.nowMs = 1;
    expect(await disk.write(10)).toBeGreaterThanOrEqual(5);
    await disk.host.close();
  });

  it("is written in whole pages only within the call", async () => {
    const disk = await measuredDisk();
    await disk.write(8);
    expect(await disk.write(10, 512)).toBe(10);
    expect(await disk.write(10)).toBe(0);
    await disk.host.close();
  });

  it("is not written within the call while a call on the thread pool stalls", async () => {
    const { env, clock } = steppedEnv();
    const { system, calls, replace } = await testSystem({ ffi: false });
    await using host = await openFile(temporaryFile(), { system, env });
    for (let count = 0; count < 10; count += 1) await host.driver.pwrite?.(0, pattern(PAGE));
    let answer: () => void = () => undefined;
    replace("fdatasync", () => new Promise((resolve) => (answer = resolve)));
    const flush = host.driver.flush?.();
    expect(host.driver.pwrite?.(0, pattern(PAGE))).toBe(completed);
    clock.nowMs += 50;
    calls.length = 0;
    await host.driver.pwrite?.(0, pattern(PAGE));
    expect(calls).toEqual(["write"]);
    answer();
    await flush;
    replace("fdatasync", undefined);
  });
});

describe("one turn of the event loop", () => {
  it("moves a bounded number of bytes, and the next turn goes on", async () => {
    const { system, replace } = await testSystem();
    replace("statfs", () => Promise.resolve({ type: 0x01021994, available: 0 }));
    await using host = await openFile(temporaryFile(), { system });
    await nextTurn();
    const buffer = new Uint8Array(2 ** 18);
    const isInCall = (): boolean => {
      const promise = host.driver.pread(0, buffer);
      pending.push(promise);
      return promise === completed;
    };
    const pending: Promise<void>[] = [];
    const inCall = Array.from({ length: 20 }, isInCall);
    expect(inCall.filter(Boolean)).toHaveLength(16);
    await Promise.all(pending);
    await nextTurn();
    expect(isInCall()).toBe(true);
  });
});

describe.each(WAYS)("a hanging disk %s", (_name, ffi) => {
  it("keeps its share of the thread pool and leaves other requests alone", async () => {
    const { system, replace } = await testSystem({ ffi, native: { readNoWait: () => -11 } });
    const good = await openFile(temporaryFile(), { ffi });
    const bad = await openFile(temporaryFile(), { system });
    const { read } = system;
    const answers: (() => void)[] = [];
    let running = 0;
    replace("read", (fd, buffer, offset) => {
      running += 1;
      return new Promise((resolve, reject) => {
        answers.push(() => read(fd, buffer, offset).then(resolve, reject));
      });
    });
    const hanging = Array.from({ length: 10 }, () => bad.driver.pread(0, new Uint8Array(PAGE)));
    await nextTurn();
    expect(running).toBe(system.poolSize - 1);
    for (let count = 0; count < 50; count += 1) {
      await good.driver.pwrite?.(count * 100, pattern(100));
      expect(await readBytes(good.driver, count * 100, 100)).toEqual(pattern(100));
    }
    while (answers.length > 0) {
      for (const answer of answers.splice(0)) answer();
      await new Promise((resolve) => setImmediate(resolve));
      await Promise.race([Promise.all(hanging), nextTurn()]);
    }
    replace("read", undefined);
    await Promise.all(hanging);
    await bad.close();
    await good.close();
  });

  it.runIf(ffi && hasNative)("keeps no more of it with all kinds of requests", async () => {
    let running = 0;
    const answers: (() => void)[] = [];
    const hang = <T>(result: T) => {
      running += 1;
      return new Promise<T>((resolve) => answers.push(() => resolve(result)));
    };
    const { system, replace } = await testSystem({
      native: {
        readNoWait: () => -11,
        fallocate: () => hang(0),
        seek: () => hang(-6),
        copyRange: (_from, _at, _to, _offset, length) => hang(length),
      },
    });
    replace("read", () => hang(PAGE));
    const host = await openFile(temporaryFile(), { system });
    const { driver } = host;
    const requests = Array.from({ length: 4 }, () => [
      driver.pread(0, new Uint8Array(PAGE)),
      driver.pwriteZeroes?.(0, PAGE),
      driver.pdiscard?.(0, PAGE),
      driver.blockStatus?.(0, PAGE),
      driver.copyRangeTo?.(driver, 0, PAGE, PAGE),
    ]).flat();
    await nextTurn();
    // The threads of native calls are those of the pool.
    expect(running).toBe(system.poolSize - 1);
    const done = Promise.all(requests);
    let isDone = false;
    void done.then(() => {
      isDone = true;
    });
    while (!isDone) {
      for (const answer of answers.splice(0)) answer();
      await nextTurn();
    }
    replace("read", undefined);
    await host.close();
  });

  it("lets a request that waits be aborted, and none that runs", async () => {
    const { system, replace } = await testSystem({ ffi, native: { readNoWait: () => -11 } });
    const host = await openFile(temporaryFile(), { system });
    const answers: ((count: number) => void)[] = [];
    replace("read", () => new Promise((resolve) => answers.push(resolve)));
    const controller = new AbortController();
    const { signal } = controller;
    const requests = Array.from({ length: system.poolSize }, () =>
      errorOf(host.driver.pread(0, new Uint8Array(PAGE), { signal })),
    );
    controller.abort("enough");
    expect(await requests.at(-1)).toBe("enough");
    for (const answer of answers) answer(PAGE);
    expect(await Promise.all(requests.slice(0, -1))).toEqual(
      Array.from({ length: system.poolSize - 1 }, () => undefined),
    );
    await host.close();
  });
});
