import { mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type SimOptions, type SimResult, sim } from "./sim-process.ts";

let directory = "";

beforeEach(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "blocklayer-night-")));
});

afterEach(() => rmSync(directory, { recursive: true }));

/** Runs a night of one small world. */
function night(args: readonly string[], options: SimOptions = {}): Promise<SimResult> {
  const base = ["--night", "--world", "range-lock", "--jobs", "2"];
  return sim([...base, ...args], { cwd: directory, ...options });
}

describe("a night", { timeout: 120_000 }, () => {
  it("ends when its hours are over, with a line about all of it", async () => {
    const { code, out } = await night(["--hours", "0.0003"]);
    const file = join(directory, "sim-night.jsonl");
    expect(out).toMatch(/^night: 2 processes, from seed \d+, failures go to \//m);
    expect(out).toContain(`failures go to ${file}\n`);
    expect(out).toMatch(
      /^\d\.\d min: seeds [1-9]\d* lives in \d+ s, 0 failures; novelty [1-9]\d* lives .*; seen: range-lock \d+ \(\d+ kept\)$/m,
    );
    expect({ code, files: readdirSync(directory) }).toEqual({
      code: 0,
      files: ["sim-night.jsonl"],
    });
  });

  it.each(["SIGINT", "SIGTERM"] as const)("ends when it is told by %s", async (signal) => {
    const { code, out } = await night([], {
      // Twice would end it without a word.
      onText: (_, child) => void (child.killed || child.kill(signal)),
    });
    expect(out).toMatch(/^\d\.\d min: seeds /m);
    expect(code).toBe(0);
  });

  it("does not begin when its file can not be written to", async () => {
    const { code, out, err } = await night(["--out", "nowhere/file"]);
    expect(err).toContain("ENOENT");
    expect({ code, out }).toEqual({ code: 2, out: "" });
  });

  it("writes where its caller is when a script of a package manager runs it elsewhere", async () => {
    const env = { INIT_CWD: directory, npm_lifecycle_event: "sim:night" };
    const { err } = await night(["--out", "nowhere/file"], { cwd: "/", env });
    expect(err).toContain(join(directory, "nowhere/file"));
  });
});
