import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";

/** What the command was asked for. */
export interface CliOptions {
  readonly help: boolean;
  readonly list: boolean;
  /** Names of worlds; empty for all of them. */
  readonly worlds: readonly string[];
  readonly seeds: number;
  readonly from: number;
  /** Seconds for all worlds together. */
  readonly seconds: number | undefined;
  /** Processes. */
  readonly jobs: number;
  /** Milliseconds that one life may take. `undefined`: as long as is usual. */
  readonly lifeMs: number | undefined;
  /** One seed to replay with its trace. */
  readonly seed: number | undefined;
  /** File with decisions to replay. */
  readonly decisions: string | undefined;
  readonly shrink: boolean;
  readonly canaries: boolean;
  /** Names of planted bugs to look for; of the one that a replay lives with. */
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
sim [--world NAME] --decisions FILE [--shrink]
                                        one life from recorded decisions: a list, or a line of a night;
                                        the world may be one of the small spaces
sim --canaries | --canary ID... [--jobs N]
                                        finds the planted bugs, each in a process of its own
sim --canary ID --seed N | --decisions FILE [--shrink]
                                        one life with a planted bug, with its trace
sim --exhaustive                        every life of small spaces
sim --sweeps                            every operation of every disk fails, one at a time
sim --night [--hours N] [--out FILE] [--world NAME]... [--jobs N]
                                        all of it, until told; failures go to a file (sim-night.jsonl)
sim --list                              names of worlds, small spaces and planted bugs
sim --help                              this

--jobs: processes, by default as many as there are processors. --life SECONDS: what one life may take (60).
Exit code 0: nothing found. 1: failures, or a canary that was not found. 2: wrong arguments.
130, 143: told to stop by SIGINT, SIGTERM. 141: nobody reads the output.
`;

/** One more than the largest seed. */
const SEEDS = 2 ** 32;
const DEFAULT_SEEDS = 1000;
const JOBS_MAX = 1024;

const OPTIONS = {
  help: { type: "boolean", short: "h" },
  list: { type: "boolean" },
  world: { type: "string", multiple: true },
  seeds: { type: "string" },
  from: { type: "string" },
  time: { type: "string" },
  jobs: { type: "string" },
  life: { type: "string" },
  seed: { type: "string" },
  decisions: { type: "string" },
  shrink: { type: "boolean" },
  canaries: { type: "boolean" },
  canary: { type: "string", multiple: true },
  exhaustive: { type: "boolean" },
  sweeps: { type: "boolean" },
  night: { type: "boolean" },
  hours: { type: "string" },
  out: { type: "string" },
} as const;

type Name = keyof typeof OPTIONS;
type Values = ReturnType<typeof parse>;

/** Options that say what is to be done, and what goes with each; the first one that is given counts. */
const MODES: readonly (readonly [mode: Name, others: readonly Name[]])[] = [
  ["list", []],
  ["night", ["hours", "out", "world", "jobs", "life"]],
  ["exhaustive", []],
  ["sweeps", []],
  ["seed", ["world", "canary", "shrink"]],
  ["decisions", ["world", "canary", "shrink"]],
  ["canaries", ["jobs"]],
  ["canary", ["jobs"]],
];

/** What else these options need, when none of the modes that they go with is given. */
const NEEDS: readonly (readonly [name: Name, needed: string])[] = [
  ["shrink", "--seed or --decisions"],
  ["hours", "--night"],
  ["out", "--night"],
];

/**
 * Reads arguments, a leading `--` aside, which some package managers pass on.
 *
 * @throws TypeError an option that there is not; RangeError a value that is none, or options that do not go together
 */
export function readCliOptions(args: readonly string[]): CliOptions {
  const values = parse(args[0] === "--" ? args.slice(1) : args);
  if (values.help !== true) requireFit(values);
  const worlds = [...new Set(values.world ?? [])];
  const canary = [...new Set(values.canary ?? [])];
  const from = whole("from", values.from, 0, SEEDS - 1) ?? 1;
  const options: CliOptions = {
    help: values.help ?? false,
    list: values.list ?? false,
    worlds,
    seeds: seedsOf(values, from),
    from,
    seconds: positive("time", values.time),
    jobs: whole("jobs", values.jobs, 1, JOBS_MAX) ?? availableParallelism(),
    lifeMs: thousand(positive("life", values.life)),
    seed: whole("seed", values.seed, 0, SEEDS - 1),
    decisions: values.decisions,
    shrink: values.shrink ?? false,
    canaries: values.canaries ?? false,
    canary,
    exhaustive: values.exhaustive ?? false,
    sweeps: values.sweeps ?? false,
    night: values.night ?? false,
    hours: positive("hours", values.hours),
    out: values.out ?? "sim-night.jsonl",
  };
  if (!options.help) requireOneLife(options);
  return options;
}

function parse(args: readonly string[]) {
  return parseArgs({ args: [...args], options: OPTIONS }).values;
}

/** @throws RangeError as {@link readCliOptions} */
function requireFit(values: Values): void {
  const given = (Object.keys(OPTIONS) as Name[]).filter((name) => values[name] !== undefined);
  for (const name of given) {
    if ([values[name]].flat().includes("")) throw new RangeError(`--${name} is empty`);
  }
  const mode = MODES.find(([name]) => given.includes(name));
  if (mode !== undefined) {
    const [name, others] = mode;
    const wrong = given.find((one) => one !== name && !others.includes(one));
    if (wrong !== undefined) throw new RangeError(`--${name} and --${wrong} exclude each other`);
    return;
  }
  const need = NEEDS.find(([name]) => given.includes(name));
  if (need !== undefined) throw new RangeError(`--${need[0]} needs ${need[1]}`);
}

/** A replay is one life in one world. @throws RangeError as {@link readCliOptions} */
function requireOneLife({ seed, decisions, worlds, canary }: CliOptions): void {
  const name = seed === undefined ? "decisions" : "seed";
  if (seed === undefined && decisions === undefined) return;
  if (canary.length > 1) throw new RangeError(`--${name} needs one --canary at most`);
  if (worlds.length > 1) throw new RangeError(`--${name} needs one --world`);
  // A file may say itself which world it is about, and a canary does.
  if (seed !== undefined && worlds.length + canary.length === 0) {
    throw new RangeError("--seed needs one --world");
  }
}

/** @throws RangeError as {@link readCliOptions} */
function seedsOf(values: Values, from: number): number {
  const rest = SEEDS - from;
  const seeds = whole("seeds", values.seeds, 1, SEEDS);
  if (seeds !== undefined && seeds > rest) {
    throw new RangeError(`--from ${from} --seeds ${seeds} goes beyond the last seed ${SEEDS - 1}`);
  }
  // With a time the seeds are as many as fit in.
  return seeds ?? (values.time === undefined ? Math.min(DEFAULT_SEEDS, rest) : rest);
}

function whole(
  name: Name,
  text: string | undefined,
  least: number,
  most: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  throw new RangeError(`--${name} ${text} is not a whole number from ${least} to ${most}`);
}

function positive(name: Name, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && Number.isFinite(value) && value > 0) return value;
  throw new RangeError(`--${name} ${text} is not a number above 0`);
}

function thousand(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value * 1000;
}
