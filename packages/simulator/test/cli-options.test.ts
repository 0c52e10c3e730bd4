import { availableParallelism } from "node:os";
import { describe, expect, it } from "vitest";
import { readCliOptions } from "../src/cli-options.ts";
import { readRecorded } from "../src/command/recorded.ts";
import { placeOf } from "../src/command/replay.ts";

const DEFAULTS = {
  help: false,
  list: false,
  worlds: [],
  seeds: 1000,
  from: 1,
  seconds: undefined,
  jobs: availableParallelism(),
  lifeMs: undefined,
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
};

describe("options of the command", () => {
  it.each([
    { args: [], options: {} },
    { args: ["--", "--seeds", "5"], options: { seeds: 5 } },
    { args: ["-h"], options: { help: true } },
    { args: ["--help", "--seeds", "5", "--seed", "1"], options: { help: true, seeds: 5, seed: 1 } },
    { args: ["--world", "a", "--world", "b", "--world", "a"], options: { worlds: ["a", "b"] } },
    { args: ["--canary", "a", "--canary", "a"], options: { canary: ["a"] } },
    { args: ["--time", "0.5"], options: { seconds: 0.5, seeds: 2 ** 32 - 1 } },
    { args: ["--from", "4294967295"], options: { from: 2 ** 32 - 1, seeds: 1 } },
    { args: ["--from", "0", "--seeds", "4294967296"], options: { from: 0, seeds: 2 ** 32 } },
    { args: ["--world", "a", "--seed", "0"], options: { worlds: ["a"], seed: 0 } },
    { args: ["--canary", "a", "--seed", "007"], options: { canary: ["a"], seed: 7 } },
    { args: ["--decisions", "f", "--shrink"], options: { decisions: "f", shrink: true } },
    {
      args: ["--night", "--hours", "8", "--out", "f", "--life", "2"],
      options: { night: true, hours: 8, out: "f", lifeMs: 2000 },
    },
  ])("are read: $args", ({ args, options }) => {
    expect(readCliOptions(args)).toEqual({ ...DEFAULTS, ...options });
  });

  const seedRange = "is not a whole number from 0 to 4294967295";
  it.each([
    {
      args: ["--seeds", "many"],
      message: "--seeds many is not a whole number from 1 to 4294967296",
    },
    { args: ["--seeds", "0"], message: "--seeds 0 is not a whole number from 1 to 4294967296" },
    { args: ["--seeds", ""], message: "--seeds is empty" },
    { args: ["--world", ""], message: "--world is empty" },
    { args: ["--out=", "--night"], message: "--out is empty" },
    { args: ["--jobs", "0"], message: "--jobs 0 is not a whole number from 1 to 1024" },
    { args: ["--from=-1"], message: `--from -1 ${seedRange}` },
    { args: ["--from", "0x10"], message: `--from 0x10 ${seedRange}` },
    {
      args: ["--from", "4294967295", "--seeds", "2"],
      message: "--from 4294967295 --seeds 2 goes beyond the last seed 4294967295",
    },
    { args: ["--seed", "1"], message: "--seed needs one --world" },
    { args: ["--world", "a", "--seed", "1.5"], message: `--seed 1.5 ${seedRange}` },
    { args: ["--world", "a", "--seed", "1e3"], message: `--seed 1e3 ${seedRange}` },
    { args: ["--world", "a", "--seed", "4294967296"], message: `--seed 4294967296 ${seedRange}` },
    { args: ["--world", "a", "--world", "b", "--seed", "1"], message: "--seed needs one --world" },
    {
      args: ["--canary", "a", "--canary", "b", "--seed", "1"],
      message: "--seed needs one --canary at most",
    },
    {
      args: ["--world", "a", "--world", "b", "--decisions", "f"],
      message: "--decisions needs one --world",
    },
    { args: ["--seed", "1", "--seeds", "2"], message: "--seed and --seeds exclude each other" },
    { args: ["--seed", "1", "--from", "2"], message: "--seed and --from exclude each other" },
    {
      args: ["--seed", "1", "--decisions", "f"],
      message: "--seed and --decisions exclude each other",
    },
    { args: ["--night", "--canaries"], message: "--night and --canaries exclude each other" },
    { args: ["--shrink"], message: "--shrink needs --seed or --decisions" },
    { args: ["--hours", "1"], message: "--hours needs --night" },
    { args: ["--out", "f"], message: "--out needs --night" },
    { args: ["--time", "0"], message: "--time 0 is not a number above 0" },
    { args: ["--night", "--hours", "soon"], message: "--hours soon is not a number above 0" },
    { args: ["--life", "1e1"], message: "--life 1e1 is not a number above 0" },
  ])("are refused: $args", ({ args, message }) => {
    expect(() => readCliOptions(args)).toThrow(new RangeError(message));
  });
});

describe("a life in a file", () => {
  it.each([
    { text: "[1,2]", life: { source: [1, 2] } },
    { text: "[\n  1,\n  2\n]\n", life: { source: [1, 2] } },
    { text: '{"world":"backup","decisions":[3]}\n', life: { world: "backup", source: [3] } },
    { text: '{\n"decisions": [3],\n"seed": 5}', life: { source: [3] } },
    { text: '{"world":"jobs","seed":7,"message":"x"}', life: { world: "jobs", source: 7 } },
    { text: '{"decisions":[3]}\n{"decisions":[4]}\n', life: { source: [4] } },
    { text: 'shrunk:\n[4]\n{"world":"x","message":"no life"}\n\n', life: { source: [4] } },
  ])("is read: $text", ({ text, life }) => {
    expect(readRecorded(text)).toEqual(life);
  });

  it.each(["", "{}", '["a"]', "[-1]", "5", '{"seed":4294967296}', "null", "[1.5]"])(
    "is refused: %s",
    (text) => {
      expect(() => readRecorded(text)).toThrow("there is no life: a list of whole numbers");
    },
  );
});

it.each([
  { stack: undefined, place: undefined },
  { stack: "Error: x\nmore of it", place: undefined },
  {
    stack:
      "Error: x\n    at Simulation.fail (file:///a/packages/simulator/src/simulation.ts:53:5)\n    at look (file:///a/packages/jobs/src/job.ts:1:2)",
    place: "at look (packages/jobs/src/job.ts:1:2)",
  },
  {
    stack: "Error: x\n    at step (file:///a/packages/simulator/src/world-scheduler.ts:5:1)",
    place: "at step (packages/simulator/src/world-scheduler.ts:5:1)",
  },
])("the place of a finding is $place", ({ stack, place }) => {
  expect(placeOf(stack)).toBe(place);
});
