import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

interface Result {
  readonly code: number | null;
  readonly out: string;
  /** Files that were written. */
  readonly files: readonly string[];
}

/** Runs a night of one small world, and tells it to stop when it has said that it began. */
function night(args: readonly string[], stop?: "SIGINT" | "SIGTERM"): Promise<Result> {
  const directory = mkdtempSync(join(tmpdir(), "blocklayer-night-"));
  const file = join(import.meta.dirname, "../src/cli.ts");
  const base = ["--conditions=@blocklayer/source", file, "--night", "--world", "range-lock"];
  const child = spawn(process.execPath, [...base, "--jobs", "2", ...args], { cwd: directory });
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
    // Twice would end it without a word.
    if (stop !== undefined && !child.killed) child.kill(stop);
  });
  return new Promise((resolve) => {
    child.on("close", (code) => {
      const files = readdirSync(directory);
      rmSync(directory, { recursive: true });
      resolve({ code, out, files });
    });
  });
}

describe("a night", { timeout: 120_000 }, () => {
  it("ends when its hours are over, with a line about all of it", async () => {
    const { code, out, files } = await night(["--hours", "0.0003"]);
    expect(out).toMatch(/^night: 2 processes, from seed \d+, failures go to sim-night.jsonl$/m);
    expect(out).toMatch(
      /^\d\.\d min: seeds [1-9]\d* lives in \d+ s, 0 failures; novelty [1-9]\d* lives .*; seen: range-lock \d+ \(\d+ kept\)$/m,
    );
    expect({ code, files }).toEqual({ code: 0, files: [] });
  });

  it.each(["SIGINT", "SIGTERM"] as const)("ends when it is told by %s", async (signal) => {
    const { code, out } = await night([], signal);
    expect(out).toMatch(/^\d\.\d min: seeds /m);
    expect(code).toBe(0);
  });
});
