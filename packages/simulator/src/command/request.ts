import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Canary } from "../canaries/canary.ts";
import { canaries } from "../canaries/canary-list.ts";
import type { CliOptions } from "../cli-options.ts";
import type { DecisionSource } from "../decisions.ts";
import { findSpace } from "../exhaustive/all-spaces.ts";
import type { World } from "../simulation.ts";
import { findWorld, worlds } from "../worlds/all-worlds.ts";
import { readRecorded } from "./recorded.ts";

/** What was asked for, with everything that it names. */
export interface Request {
  readonly options: CliOptions;
  /** Worlds; the one of a replay. */
  readonly chosen: readonly World[];
  readonly planted: readonly Canary[];
  /** A life to be replayed. */
  readonly source: DecisionSource | undefined;
}

/** @throws Error there is no world, planted bug, file or life of a name, or they do not fit */
export function readRequest(options: CliOptions): Request {
  const { decisions, seed, worlds: names } = options;
  const planted = options.canaries ? canaries : options.canary.map(findCanary);
  if (seed === undefined && decisions === undefined) {
    const chosen = names.length === 0 ? worlds : names.map(findWorld);
    return { options, planted, chosen, source: undefined };
  }
  const recorded =
    decisions === undefined ? { source: seed as number } : fromFile(callersPath(decisions));
  const asked = oneName(names[0], planted[0]);
  const world = oneWorld(asked, recorded.world, decisions);
  const isOther = decisions !== undefined && planted.length === 0;
  const chosen = [(isOther ? findSpace(world) : undefined) ?? findWorld(world)];
  return { options, planted, chosen, source: recorded.source };
}

/**
 * Returns the absolute path of a file that the caller named: a package manager runs scripts in another directory than
 * the one it was started in.
 */
export function callersPath(path: string): string {
  const { npm_lifecycle_event: script = "", INIT_CWD: directory = "" } = process.env;
  return /^sim(:|$)/.test(script) ? resolve(directory, path) : resolve(path);
}

/** @throws RangeError there is no planted bug of that name */
function findCanary(id: string): Canary {
  const canary = canaries.find((one) => one.id === id);
  if (canary !== undefined) return canary;
  throw new RangeError(`there is no canary '${id}'; sim --list has their names`);
}

function fromFile(path: string): ReturnType<typeof readRecorded> {
  try {
    return readRecorded(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Error(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function oneName(world: string | undefined, canary: Canary | undefined): string | undefined {
  if (canary === undefined || world === undefined || world === canary.world) {
    return world ?? canary?.world;
  }
  throw new RangeError(`the world of canary '${canary.id}' is '${canary.world}', not '${world}'`);
}

function oneWorld(
  asked: string | undefined,
  recorded: string | undefined,
  file: string | undefined,
): string {
  if (asked !== undefined && recorded !== undefined && asked !== recorded) {
    throw new RangeError(`${file ?? ""}: its world is '${recorded}', not '${asked}'`);
  }
  const world = asked ?? recorded;
  if (world !== undefined) return world;
  throw new RangeError(`${file ?? ""}: it names no world, --world has to`);
}
