import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { worlds } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { readCliOptions } from "../src/cli-options.ts";
import { readDecisions } from "../src/command/replay.ts";

interface Result {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

function sim(...args: readonly string[]): Result {
  const file = join(import.meta.dirname, "../src/cli.ts");
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["--conditions=@blocklayer/source", file, ...args],
    { encoding: "utf8" },
  );
  return { status, out: stdout, err: stderr };
}

describe("the command", { timeout: 120_000 }, () => {
  it("prints one line for each world, and what happened in it", () => {
    const { status, out } = sim("--seeds", "4", "--jobs", "2");
    for (const { name } of worlds) {
      expect(out).toMatch(
        new RegExp(
          `^${name}: 4 seeds, \\d+ seeds/s, \\d+ events, median \\S+ ms, p99 \\S+ ms, hash [0-9a-f]{16}, 0 failures$`,
          "m",
        ),
      );
    }
    expect(out).toMatch(/^ {2}in \d+ lives: /m);
    expect(out).toMatch(new RegExp(`^all worlds: ${4 * worlds.length} seeds, `, "m"));
    expect(status).toBe(0);
  });

  it("gives the same hash with one process and with several", () => {
    const hash = (jobs: string): string | undefined =>
      /hash ([0-9a-f]{16})/.exec(
        sim("--world", "range-lock", "--seeds", "50", "--jobs", jobs).out,
      )?.[1];
    expect(hash("1")).toMatch(/^[0-9a-f]{16}$/);
    expect(hash("2")).toBe(hash("1"));
  });

  it("stops when its time is over", () => {
    const { status, out } = sim("--world", "range-lock", "--time", "0.3", "--jobs", "1");
    expect(out).toMatch(/^range-lock: \d+ seeds, /m);
    expect(status).toBe(0);
  });

  it("replays a seed with its trace, the same each time", () => {
    const { status, out } = sim("--world", "backup", "--seed", "5");
    expect(out).toMatch(/^0 ms: /m);
    expect(out).toMatch(
      /backup seed 5: \d+ events, \d+ decisions, hash [0-9a-f]{16}, no failure\n$/,
    );
    expect(status).toBe(0);
    expect(sim("--world", "backup", "--seed", "5").out).toBe(out);
  });

  it.each([
    { args: ["--world", "nowhere"], message: "there is no world 'nowhere'; there are: hbitmap, " },
    { args: ["--wrong"], message: "--wrong" },
  ])("refuses $args", ({ args, message }) => {
    const { status, err } = sim(...args);
    expect(err).toContain(message);
    expect(err).toContain("Exit code 0");
    expect(status).toBe(2);
  });

  it("replays decisions from a file", () => {
    const directory = mkdtempSync(join(tmpdir(), "blocklayer-sim-"));
    const file = join(directory, "decisions.json");
    writeFileSync(file, "[0,0,1]");
    const { status, out } = sim("--world", "range-lock", "--decisions", file);
    rmSync(directory, { recursive: true });
    expect(out).toMatch(/range-lock 3 given decisions: \d+ events, .*, no failure\n$/);
    expect(status).toBe(0);
  });

  it("explains itself", () => {
    const { status, out } = sim("--help");
    expect(out).toContain("sim --canaries");
    expect(status).toBe(0);
  });
});

describe("its options", () => {
  it("have defaults", () => {
    expect(readCliOptions([])).toEqual({
      help: false,
      worlds: [],
      seeds: 1000,
      from: 1,
      seconds: undefined,
      jobs: availableParallelism(),
      seed: undefined,
      decisions: undefined,
      shrink: false,
      canaries: false,
      canary: [],
      exhaustive: false,
      sweeps: false,
      night: false,
      hours: undefined,
      out: "sim-night.jsonl",
    });
  });

  it.each([
    { args: ["--seeds", "many"], message: "--seeds many is not a number of 0 or more" },
    { args: ["--from=-1"], message: "--from -1 is not a number of 0 or more" },
    { args: ["--seed", "1"], message: "--seed needs one --world" },
    { args: ["--time", "0"], message: "--time 0 is not a number above 0" },
    { args: ["--hours", "soon"], message: "--hours soon is not a number above 0" },
    { args: ["--decisions", "file"], message: "--decisions needs one --world" },
    { args: ["--seed", "1.5"], message: "--seed 1.5 is not a number of 0 or more" },
  ])("refuse $args", ({ args, message }) => {
    expect(() => readCliOptions(args)).toThrow(new RangeError(message));
  });
});

describe("decisions in a file", () => {
  it.each([
    { text: "[1,2]", list: [1, 2] },
    { text: '{"world":"backup","decisions":[3]}\n', list: [3] },
    { text: '{"decisions":[3]}\n{"decisions":[4]}\n', list: [4] },
  ])("are read: $text", ({ text, list }) => {
    expect(readDecisions(text)).toEqual(list);
  });

  it.each(["{}", '["a"]', "[-1]", "5"])("are refused: %s", (text) => {
    expect(() => readDecisions(text)).toThrow("there are no decisions");
  });
});
