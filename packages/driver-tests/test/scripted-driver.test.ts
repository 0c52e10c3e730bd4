import { completed } from "@blocklayer/driver";
import { ScriptedDriver, scriptedDefinition, TestHost } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { describe, expect, it } from "vitest";

function bytes(value: number): Uint8Array {
  return new Uint8Array(4).fill(value);
}

describe("a request that is held", () => {
  it("is carried out when it is released, in the order of the releases", async () => {
    const disk = new ScriptedDriver({ size: 16, hold: true });
    const works = [disk.pwrite(0, bytes(1)), disk.pwrite(0, bytes(2)), disk.pwrite(8, bytes(3))];
    expect(disk.held.map(({ index, offset }) => [index, offset])).toEqual([
      [0, 0],
      [1, 0],
      [2, 8],
    ]);
    disk.release(1);
    disk.release();
    expect([...disk.bytes.subarray(0, 4)]).toEqual([1, 1, 1, 1]);
    disk.releaseAll();
    await Promise.all(works);
    expect(disk.log.map(({ state }) => state)).toEqual(["done", "done", "done"]);
    expect(disk.pwrite(0, bytes(4))).toBe(completed);
  });

  it("uses the buffer when it is released, so a changed buffer shows", async () => {
    const disk = new ScriptedDriver({ size: 16, hold: true });
    const buffer = bytes(1);
    const work = disk.pwrite(0, buffer);
    buffer.fill(9);
    disk.release();
    await work;
    expect(disk.bytes[0]).toBe(9);
  });

  it("fails as the script says and leaves nothing", async () => {
    const disk = new ScriptedDriver({ size: 16, hold: true });
    const works = [disk.pwrite(0, bytes(1)), disk.flushToDisk()];
    const error = new Error("of the test");
    disk.fail(0, error);
    disk.fail(1, "ENOSPC");
    await expect(works[0]).rejects.toBe(error);
    await expect(works[1]).rejects.toMatchObject({
      code: "ENOSPC",
      message: "the script let the request fail with ENOSPC",
    });
    expect(disk.bytes[0]).toBe(0);
    expect(disk.log.map(({ state }) => state)).toEqual(["failed", "failed"]);
  });

  it.each([
    ["release", (disk: ScriptedDriver) => disk.release(0)],
    ["release of the oldest", (disk: ScriptedDriver) => disk.release()],
    ["fail", (disk: ScriptedDriver) => disk.fail(7)],
  ])("has to be there for %s", async (_title, act) => {
    const disk = new ScriptedDriver({ size: 16 });
    await disk.pwrite(0, bytes(1));
    expect(() => act(disk)).toThrow(/request -?\d+ is not held/);
  });

  it("is of the operations that are held, the others go on", () => {
    const disk = new ScriptedDriver({ size: 16 });
    disk.hold("flush");
    expect(disk.pwrite(0, bytes(1))).toBe(completed);
    const flush = disk.flushToDisk();
    expect(flush).not.toBe(completed);
    disk.unhold();
    expect(disk.held.length).toBe(1);
    disk.release();
    return flush;
  });

  it("carries its flags and its signal in the log", () => {
    const disk = new ScriptedDriver({ size: 16 });
    const { signal } = new AbortController();
    disk.pread(4, bytes(0), { flags: 1, signal }).catch(() => undefined);
    expect(disk.log).toEqual([
      { index: 0, operation: "pread", offset: 4, length: 4, flags: 1, signal, state: "done" },
    ]);
  });
});

describe("waitFor", () => {
  it("finds what is there and what comes", async () => {
    const disk = new ScriptedDriver({ size: 16, hold: true });
    const coming = disk.waitFor();
    const flush = disk.flushToDisk();
    expect((await coming).operation).toBe("flush");
    expect((await disk.waitFor()).index).toBe(0);
    const write = disk.waitFor(({ operation }) => operation === "pwrite");
    const work = disk.pwrite(8, bytes(1));
    expect((await write).offset).toBe(8);
    disk.releaseAll();
    await Promise.all([flush, work]);
  });
});

describe("completion", () => {
  it("is within the call, or in a later turn", async () => {
    const disk = new ScriptedDriver({ size: 16, completion: "later-turn" });
    let isDone = false;
    const work = disk.pwrite(0, bytes(1)).then(() => {
      isDone = true;
    });
    await Promise.resolve();
    expect([isDone, disk.bytes[0]]).toEqual([false, 0]);
    await settleTurn();
    await work;
    expect(disk.bytes[0]).toBe(1);
    disk.completion = "same-turn";
    expect(disk.pwrite(0, bytes(2))).toBe(completed);
  });
});

describe("failures by number", () => {
  const run = async (disk: ScriptedDriver): Promise<string> => {
    let text = "";
    for (let count = 0; count < 5; count += 1) {
      text += await disk.pwrite(0, bytes(1)).then(
        () => ".",
        (error: { code: string }) => (error.code === "EIO" ? "x" : "y"),
      );
    }
    return text;
  };

  it.each([
    ["x....", (disk: ScriptedDriver) => disk.failNth("pwrite")],
    ["..y..", (disk: ScriptedDriver) => disk.failNth("pwrite", 3, "ENOSPC")],
    [".xxxx", (disk: ScriptedDriver) => disk.failNth("pwrite", 2, "EIO", { persistent: true })],
    [".....", (disk: ScriptedDriver) => disk.failNth("pread")],
  ])("give %s", async (expected, script) => {
    for (const completion of ["same-turn", "later-turn"] as const) {
      const disk = new ScriptedDriver({ size: 16, completion });
      script(disk);
      expect(await run(disk)).toBe(expected);
    }
  });

  it("are forgotten by clearFailures", async () => {
    const disk = new ScriptedDriver({ size: 16 });
    disk.failNth("pwrite", 1, "EIO", { persistent: true });
    disk.clearFailures();
    expect(await run(disk)).toBe(".....");
  });

  it.each([
    ["blockStatus", (disk: ScriptedDriver) => disk.blockStatus(0, 4)],
    ["truncate", (disk: ScriptedDriver) => disk.truncate(4)],
    ["pdiscard", (disk: ScriptedDriver) => disk.pdiscard(0, 4)],
    ["pwriteZeroes", (disk: ScriptedDriver) => disk.pwriteZeroes(0, 4)],
    ["pread", (disk: ScriptedDriver) => disk.pread(0, bytes(0))],
    ["flush", (disk: ScriptedDriver) => disk.flushToDisk()],
  ] as const)("are there for %s", async (operation, work) => {
    const disk = new ScriptedDriver({ size: 16 });
    disk.failNth(operation);
    await expect(work(disk)).rejects.toMatchObject({ code: "EIO" });
    await work(disk);
  });
});

describe("the definition", () => {
  it("gives the disks that it opened by node name, and tells of them", async () => {
    const told: string[] = [];
    const definition = scriptedDefinition({
      hold: true,
      onOpen: (driver, nodeName) => told.push(`${nodeName} ${driver.size}`),
    });
    const host = await TestHost.open(definition, { nodeName: "a", options: { size: 512 } });
    expect(definition.instance("a")).toBe(host.driver);
    expect(told).toEqual(["a 512"]);
    expect(() => definition.instance("b")).toThrow("no scripted disk was opened as b");
    const work = host.driver.pwrite?.(0, bytes(1));
    definition.instance("a").release();
    await work;
  });
});
