import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";

/** What the command was asked for. */
export interface CliOptions {
  readonly help: boolean;
  /** Names of worlds; empty for all of them. */
  readonly worlds: readonly string[];
  readonly seeds: number;
  readonly from: number;
  /** Seconds for all worlds together. */
  readonly seconds: number | undefined;
  /** Processes. */
  readonly jobs: number;
  /** One seed to replay with its trace. */
  readonly seed: number | undefined;
  /** File with decisions to replay. */
  readonly decisions: string | undefined;
  readonly shrink: boolean;
  readonly canaries: boolean;
  /** Names of planted bugs to look for. */
  readonly canary: readonly string[];
  readonly exhaustive: boolean;
  readonly sweeps: boolean;
  readonly night: boolean;
  /** Hours that a night lasts. */
  readonly hours: number | undefined;
  /** File that a night writes failures to. */
  readonly out: string;
}

export const USAGE = `sim [--world NAME]... [--seeds N] [--from N] [--time SECONDS] [--jobs N]
                                        lives of the worlds, from N seeds each (1000)
sim --world NAME --seed N [--shrink]    one life, with its trace; shrunk if it fails
sim --world NAME --decisions FILE [--shrink]
                                        one life from recorded decisions
sim --canaries | --canary ID... [--jobs N]
                                        finds the planted bugs, each in a process of its own
sim --exhaustive                        every life of small spaces
sim --sweeps                            every operation of every disk fails, one at a time
sim --night [--hours N] [--out FILE] [--world NAME]... [--jobs N]
                                        all of it, until told; failures go to a file (sim-night.jsonl)

--jobs: processes, by default as many as there are processors.
Exit code 0: nothing found. 1: failures, or a canary that was not found. 2: wrong arguments.
`;

/** @throws TypeError an option that there is not; RangeError a number that is none */
export function readCliOptions(args: readonly string[]): CliOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: "boolean", default: false },
      world: { type: "string", multiple: true, default: [] },
      seeds: { type: "string", default: "" },
      from: { type: "string", default: "1" },
      time: { type: "string" },
      jobs: { type: "string", default: String(availableParallelism()) },
      seed: { type: "string" },
      decisions: { type: "string" },
      shrink: { type: "boolean", default: false },
      canaries: { type: "boolean", default: false },
      canary: { type: "string", multiple: true, default: [] },
      exhaustive: { type: "boolean", default: false },
      sweeps: { type: "boolean", default: false },
      night: { type: "boolean", default: false },
      hours: { type: "string" },
      out: { type: "string", default: "sim-night.jsonl" },
    },
  });
  const { help, world, shrink, canaries, canary, night, decisions, out } = values;
  const { exhaustive, sweeps } = values;
  const seed = values.seed === undefined ? undefined : count("seed", values.seed);
  if (seed !== undefined && world.length !== 1) throw new RangeError("--seed needs one --world");
  if (decisions !== undefined && world.length !== 1) {
    throw new RangeError("--decisions needs one --world");
  }
  // With a time the seeds are as many as fit in.
  const defaultSeeds = values.time === undefined ? "1000" : "1000000000";
  return {
    help,
    worlds: world,
    seeds: count("seeds", values.seeds === "" ? defaultSeeds : values.seeds),
    from: count("from", values.from),
    seconds: positive("time", values.time),
    jobs: Math.max(1, count("jobs", values.jobs)),
    seed,
    decisions,
    shrink,
    canaries,
    canary,
    exhaustive,
    sweeps,
    night,
    hours: positive("hours", values.hours),
    out,
  };
}

function count(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`--${name} ${text} is not a number of 0 or more`);
}

function positive(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new RangeError(`--${name} ${text} is not a number above 0`);
}
