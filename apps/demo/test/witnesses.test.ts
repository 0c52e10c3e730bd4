import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LastResort } from "../src/cleanup/last-resort.ts";
import { findProgram, Programs } from "../src/cleanup/programs.ts";
import { Workplace } from "../src/cleanup/workplace.ts";
import { FoundPrograms } from "../src/witness/found-programs.ts";
import { askFsck, askQemuImg } from "../src/witness/outside-witnesses.ts";

const { signal } = new AbortController();
const lastResort = new LastResort();
const programs = new FoundPrograms(new Programs(lastResort), signal);
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "blocklayer-demo-test-"));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

describe("witnesses object", () => {
  it.runIf(findProgram("fsck.ext4") !== undefined)("to a broken file system", async () => {
    const disk = join(folder, "disk");
    await writeFile(disk, Buffer.alloc(2 ** 20));
    const { testimony, command } = await askFsck(programs, disk, undefined);
    expect(testimony.outcome).toBe("failed");
    expect(testimony.detail).toMatch(/^exit code \d+: /);
    expect(command?.line).toContain(`fsck.ext4 -fn ${disk}`);
  });

  it.runIf(findProgram("qemu-img") !== undefined)("to a disk that differs", async () => {
    const [restored, frozen] = [join(folder, "restored"), join(folder, "frozen")];
    await writeFile(restored, Buffer.alloc(4096, 1));
    await writeFile(frozen, Buffer.alloc(4096, 2));
    const { testimony } = await askQemuImg(programs, restored, frozen, undefined);
    expect(testimony).toMatchObject({
      outcome: "failed",
      detail: "exit code 1: Content mismatch at offset 0!",
    });
  });

  it("to nothing when there is a reason not to be asked", async () => {
    const { testimony, command } = await askFsck(programs, "disk", "it holds no ext4 file system");
    expect(testimony).toMatchObject({ outcome: "skipped", detail: "it holds no ext4 file system" });
    expect(command).toBeUndefined();
  });
});

describe("the workplace", () => {
  it("says what is missing before anything is copied", async () => {
    const place = await Workplace.make(lastResort);
    try {
      await expect(place.checkRoom(2 ** 60, "a copy of this disk")).rejects.toThrow(
        /^no room in .*: a copy of this disk needs 1048576 TiB there, .* are free; set TMPDIR to a folder with more room$/,
      );
    } finally {
      await place.remove();
    }
  });
});
