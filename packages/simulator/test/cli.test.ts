import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readCliOptions } from "../src/cli-options.ts";

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

describe("the command", () => {
  it("prints one line for each world, and what happened in it", () => {
    const { status, out } = sim("--seeds", "20");
    expect(out).toMatch(/^request-layer: 20 seeds, \d+ seeds\/s, \d+ events, 0 failures$/m);
    expect(out).toMatch(/^backup: 20 seeds, \d+ seeds\/s, \d+ events, 0 failures$/m);
    expect(out).toMatch(/^ {2}in \d+ lives: a backup succeeded$/m);
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
    {
      args: ["--world", "nowhere"],
      message: "there is no world 'nowhere'; there are: request-layer, backup",
    },
    { args: ["--seed", "1"], message: "--seed needs one --world" },
    { args: ["--wrong"], message: "--wrong" },
  ])("refuses $args", ({ args, message }) => {
    const { status, err } = sim(...args);
    expect(err).toContain(message);
    expect(err).toContain("Exit code 0");
    expect(status).toBe(2);
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
      seed: undefined,
      shrink: false,
      canaries: false,
    });
  });

  it.each([
    { args: ["--seeds", "many"], message: "--seeds many is not a number of 0 or more" },
    { args: ["--from=-1"], message: "--from -1 is not a number of 0 or more" },
    { args: ["--seed", "1.5"], message: "--seed 1.5 is not a number of 0 or more" },
  ])("refuse $args", ({ args, message }) => {
    expect(() => readCliOptions(args)).toThrow(new RangeError(message));
  });
});
