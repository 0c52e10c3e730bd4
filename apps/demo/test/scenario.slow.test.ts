import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { findProgram } from "../src/cleanup/programs.ts";
import { DemoProcess } from "./demo-process.ts";

const TIMEOUT_MS = 60_000;
const isLinux = existsSync("/proc/self/environ");

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** A disk whose content is no file system: every page has its number. */
function numberedDisk(size: number): Buffer {
  const disk = Buffer.alloc(size);
  for (let offset = 0; offset < size; offset += 4096) disk.writeUInt32LE(offset / 4096 + 1, offset);
  return disk;
}

describe.concurrent("the whole scenario", () => {
  it.each(["-", "own client"])(
    "passes all checks and leaves nothing, writer %s",
    async (writer) => {
      using run = new DemoProcess(["--once"], writer);
      expect(await run.ended, run.output).toBe(0);
      expect(run.output).toContain("[ok]   sha256 of the restored disk and of the frozen view");
      for (const [program, line] of [
        ["qemu-img", "[ok]   qemu-img compare"],
        ["fsck.ext4", "[ok]   fsck.ext4 -fn"],
      ] as const) {
        if (findProgram(program) !== undefined) expect(run.output).toContain(line);
      }
      expect(run.output).not.toContain("[FAIL]");
      expect(run.leftovers()).toEqual([]);
      if (isLinux) expect(run.processes()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it(
    "passes where no other program is installed, and says what was left out",
    async () => {
      using run = new DemoProcess(["--once"], "alone");
      expect(await run.ended, run.output).toBe(0);
      expect(run.output).toContain("disk: generated data");
      expect(run.output).toContain("writer: our own client");
      expect(run.output).toContain("[skip] qemu-img compare");
      expect(run.output).toContain("[skip] fsck.ext4 -fn");
      expect(run.output).toContain("[ok]   sha256 of the restored disk and of the frozen view");
      expect(run.leftovers()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it.runIf(findProgram("qemu-io") !== undefined)(
    "passes with qemu-io as the writer",
    async () => {
      using run = new DemoProcess(["--once"], "qemu-io");
      expect(await run.ended, run.output).toBe(0);
      expect(run.leftovers()).toEqual([]);
    },
    TIMEOUT_MS,
  );
});

describe.concurrent("a disk of the user's", () => {
  it.each([[[]], [["--in-place"]]])(
    "is not touched, with %j",
    async (options) => {
      using run = new DemoProcess(["--once", "disk.raw", ...options]);
      const disk = join(run.folder, "disk.raw");
      writeFileSync(disk, numberedDisk(8 * 2 ** 20));
      const before = sha256(disk);
      expect(await run.ended, run.output).toBe(0);
      expect(run.output).toContain("your file");
      expect(run.output).toContain(options.length === 0 ? "a copy" : "read in place");
      expect(sha256(disk)).toBe(before);
      expect(run.leftovers()).toEqual(["disk.raw"]);
    },
    TIMEOUT_MS,
  );

  it.each([
    ["nothing.raw", undefined, "can not be used: it does not exist"],
    ["short.raw", Buffer.alloc(1000), "has 1000 bytes; a raw disk of 1 MiB or more"],
    ["image.qcow2", Buffer.from("QFI\xfb more", "latin1"), "is a qcow2 image and not raw"],
    [".", undefined, "is not a regular file"],
  ])(
    "%s is refused before anything is made",
    async (name, content, message) => {
      using run = new DemoProcess([name, "--once"]);
      if (content !== undefined) writeFileSync(join(run.folder, name), content);
      expect(await run.ended).toBe(1);
      expect(run.output).toContain(message);
      expect(run.leftovers()).toEqual(content === undefined ? [] : [name]);
    },
    TIMEOUT_MS,
  );
});

describe("results", () => {
  it(
    "stay with --keep, and nothing else does",
    async () => {
      using run = new DemoProcess(["--once", "--keep"]);
      expect(await run.ended, run.output).toBe(0);
      const [folder = ""] = run.leftovers();
      expect(run.output).toContain(`The results are in ${join(run.folder, folder)}`);
      const files = readdirSync(join(run.folder, folder)).toSorted();
      expect(files).toEqual([
        "disk.raw",
        "frozen.raw",
        "full.raw",
        "increment.json",
        "increment.raw",
        "restored.raw",
      ]);
      const [frozen, restored] = ["frozen.raw", "restored.raw"].map((name) =>
        sha256(join(run.folder, folder, name)),
      );
      expect(frozen).toBe(restored);
    },
    TIMEOUT_MS,
  );
});

describe("wrong arguments", () => {
  it("end with exit code 2 and touch nothing", async () => {
    using run = new DemoProcess(["--once", "--fast"]);
    expect(await run.ended).toBe(2);
    expect(run.output).toContain("unknown option '--fast'");
    expect(run.leftovers()).toEqual([]);
  });
});

describe.runIf(isLinux).concurrent("a signal", () => {
  it.each([
    ["process", "SIGINT", 130],
    ["A disk", "SIGTERM", 143],
    ["disk: ", "SIGTERM", 143],
    ["writer: ", "SIGINT", 130],
    ["full backup: 0 %", "SIGHUP", 129],
    ["slow, direct: 0 %", "SIGINT", 130],
    ["slow, fleecing: 0 %", "SIGTERM", 143],
    ["incremental backup: 0 %", "SIGINT", 130],
    ["Witnesses", "SIGTERM", 143],
    ["[ok]", "SIGINT", 130],
  ] as const)(
    "after '%s' (%s) leaves no process, socket, lock or file",
    async (moment, signal, exitCode) => {
      using run = new DemoProcess(["--once"]);
      await run.says(moment);
      run.child.kill(signal);
      const code = await run.ended;
      // The last words may come too late to end anything before its time.
      expect(moment === "[ok]" ? [0, exitCode] : [exitCode], run.output).toContain(code);
      expect(run.leftovers()).toEqual([]);
      expect(run.processes()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it.runIf(findProgram("setpriv") !== undefined)(
    "that can not be handled ends the writer too",
    async () => {
      using run = new DemoProcess(["--once"]);
      await run.says("slow, direct: 0 %");
      run.child.kill("SIGKILL");
      await run.ended;
      expect(run.processes()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it(
    "that comes twice ends the process at once, and still leaves nothing",
    async () => {
      using run = new DemoProcess(["--once"]);
      await run.says("slow, direct: 0 %");
      run.child.kill("SIGTERM");
      const again = setTimeout(() => run.child.kill("SIGTERM"), 400);
      expect(await run.ended).toBe(143);
      clearTimeout(again);
      expect(run.leftovers()).toEqual([]);
      expect(run.processes()).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
