import { parseArgs } from "node:util";

/** What the command was asked for. */
export interface CliOptions {
  readonly help: boolean;
  /** Names of worlds; empty for all of them. */
  readonly worlds: readonly string[];
  readonly seeds: number;
  readonly from: number;
  /** One seed to replay with its trace. */
  readonly seed: number | undefined;
  readonly shrink: boolean;
  readonly canaries: boolean;
}

export const USAGE = `sim [--world NAME]... [--seeds N] [--from N]   lives of the worlds, from N seeds each (1000)
sim --world NAME --seed N [--shrink]           one life, with its trace; shrunk if it fails
sim --canaries                                 finds the planted bugs, each in a process of its own

Exit code 0: nothing found. 1: failures, or a canary that was not found. 2: wrong arguments.
`;

/** @throws TypeError an option that there is not; RangeError a number that is none */
export function readCliOptions(args: readonly string[]): CliOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: "boolean", default: false },
      world: { type: "string", multiple: true, default: [] },
      seeds: { type: "string", default: "1000" },
      from: { type: "string", default: "1" },
      seed: { type: "string" },
      shrink: { type: "boolean", default: false },
      canaries: { type: "boolean", default: false },
    },
  });
  const { help, world, shrink, canaries } = values;
  const seed = values.seed === undefined ? undefined : count("seed", values.seed);
  if (seed !== undefined && world.length !== 1) {
    throw new RangeError("--seed needs one --world");
  }
  return {
    help,
    worlds: world,
    seeds: count("seeds", values.seeds),
    from: count("from", values.from),
    seed,
    shrink,
    canaries,
  };
}

function count(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`--${name} ${text} is not a number of 0 or more`);
}
