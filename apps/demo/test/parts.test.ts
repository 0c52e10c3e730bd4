import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Graph } from "@blocklayer/block-graph";
import { manualEnv } from "@blocklayer/env";
import { memory } from "@blocklayer/memory";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { copySparse } from "../src/disk/sparse-copy.ts";
import { formatBytes, formatMs, formatShare } from "../src/scenario/quantities.ts";
import { slow } from "../src/scenario/slow-driver.ts";
import { LineStage } from "../src/terminal/line-stage.ts";
import { ScreenStage } from "../src/terminal/screen-stage.ts";
import { digestOfFile } from "../src/witness/digest.ts";
import { shellLine } from "../src/witness/quoting.ts";
import { restore } from "../src/witness/restore.ts";
import { FioReports } from "../src/writer/fio-writer.ts";

const { signal } = new AbortController();
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "blocklayer-demo-test-"));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

describe("quantities", () => {
  it.each([
    [512, "512 bytes"],
    [1536, "1.5 KiB"],
    [256 * 2 ** 20, "256 MiB"],
    [5 * 2 ** 50, "5120 TiB"],
  ])("%d bytes are %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it.each([
    [0, "0"],
    [0.123, "0.12 ms"],
    [1.25, "1.3 ms"],
    [42.4, "42 ms"],
    [2700, "2.7 s"],
    [12_345, "12 s"],
  ])("%d ms are %s", (ms, text) => expect(formatMs(ms)).toBe(text));

  it("shares are per cent", () => expect(formatShare(21, 256)).toBe("8.2 %"));
});

describe("files", () => {
  it("copies are equal, and their zeroes are holes", async () => {
    const from = join(folder, "from");
    const to = join(folder, "to");
    const content = Buffer.concat([Buffer.alloc(8 * 2 ** 20), randomBytes(5000)]);
    await writeFile(from, content);
    await copySparse({ from, to, signal });
    expect(content.equals(await readFile(to))).toBe(true);
    expect((await stat(to)).blocks * 512).toBeLessThan(2 ** 21);
  });

  it("are restored from a full backup and the extents of an increment", async () => {
    const [full, increment, restored] = ["full", "increment", "restored"].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    await writeFile(full, "aaaaaaaa");
    await writeFile(increment, "__bb__b_");
    const extents = [
      { offset: 2, length: 2 },
      { offset: 6, length: 1 },
    ];
    await restore({ full, increment, extents, restored, signal });
    expect(await readFile(restored, "utf8")).toBe("aabbaaba");
    const digest = createHash("sha256").update("aabbaaba").digest("hex");
    expect(await digestOfFile(restored, { signal })).toBe(digest);
  });
});

describe("the slow target", () => {
  it("lets requests pass one after the other, and at once when somebody ends", async () => {
    const env = manualEnv();
    const graph = new Graph({ env, drivers: [memory, slow] });
    const line = { "bytes-per-second": 1000, "latency-ms": 5 };
    const file = { driver: "memory", size: 65536 } as const;
    const node = await graph.open({ driver: "x-demo-slow", "node-name": "slow", ...line, file });
    const backend = await graph.createBackend({ node, perm: ["write"] });
    const ended: number[] = [];
    const buffer = new Uint8Array(1000);
    const writes = [0, 1, 2].map((index) =>
      backend.write(index * 1024, buffer).then(() => ended.push(index)),
    );
    await env.clock.advance(1004);
    expect(ended).toEqual([]);
    await env.clock.advance(1);
    expect(ended).toEqual([0]);
    await env.clock.advance(1000);
    expect(ended).toEqual([0, 1]);
    node.driver.cancelInFlight?.();
    await Promise.all(writes);
    expect(ended).toEqual([0, 1, 2]);
    await backend.close();
    await graph.close();
  });
});

describe("what fio prints", () => {
  it("is taken apart into reports, however it is cut", async () => {
    const reports = new FioReports();
    const first = reports.next();
    const second = reports.next();
    const report = (a: number, b: number) =>
      `{\n  "jobs" : [\n    { "write" : { "total_ios" : ${a} } },\n    { "write" : { "total_ios" : ${b} } }\n  ]\n}\n`;
    for (const letter of `\nfio: note\n${report(1, 2)}${report(30, 40)}`) reports.push(letter);
    expect((await first).writes).toBe(3);
    expect((await second).writes).toBe(70);
  });
});

describe("commands", () => {
  it("are quoted for a shell", () => {
    expect(shellLine(["sum", "/a b/c", "it's", "nbd+unix:///x?socket=%2Fy"])).toBe(
      "sum '/a b/c' 'it'\\''s' 'nbd+unix:///x?socket=%2Fy'",
    );
  });
});

describe("stages", () => {
  const advance = { what: "full backup", total: 2 ** 20, detail: "1 MiB/s" };

  it("show progress as lines, the end once", () => {
    const lines: string[] = [];
    const stage = new LineStage((line) => lines.push(line));
    for (const done of [0, 2 ** 19, 2 ** 20, 2 ** 20]) stage.progressed({ ...advance, done });
    expect(lines).toEqual([
      "   full backup: 0 % (0 bytes of 1.0 MiB, 1 MiB/s)",
      "   full backup: 100 % (1.0 MiB of 1.0 MiB, 1 MiB/s)",
    ]);
  });

  it("show progress as a bar in a terminal, and go on below it", () => {
    let text = "";
    const output = { columns: 100, write: (more: string) => (text += more) };
    const stage = new ScreenStage({ output, input: process.stdin, asks: false });
    stage.progressed({ ...advance, done: 0 });
    stage.progressed({ ...advance, done: 2 ** 20 });
    stage.fact("done");
    expect(text).toContain(`${"█".repeat(28)} full backup: 100 %`);
    expect(text.endsWith("\n   done\n")).toBe(true);
  });
});
