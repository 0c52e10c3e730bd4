import { execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { killAtExit } from "../command/children.ts";
import type { DecisionSource } from "../decisions.ts";
import type { Canary } from "./canary.ts";
import type { Hunt } from "./hunt.ts";

/** Milliseconds that a hunt may take, which takes seconds as a rule: a planted bug may loop without end. */
const HUNT_MS_MAX = 600_000;

/**
 * Hunts a canary in a process of its own, which ends when the signal is aborted.
 *
 * @throws Error the process failed, with what it printed
 */
export async function huntInProcess(
  canary: Canary,
  findings: number,
  shrinkRunsMax: number,
  signal?: AbortSignal,
): Promise<Hunt> {
  const args = argumentsOf("hunt-process.ts", canary, findings, shrinkRunsMax);
  const stdout = await new Promise<string>((resolve, reject) => {
    const limits = { timeout: HUNT_MS_MAX, killSignal: "SIGKILL" } as const;
    const options = signal === undefined ? limits : { ...limits, signal };
    const child = execFile(process.execPath, args, options, (error, printed) => {
      if (error === null) resolve(printed);
      else reject(error);
    });
    killAtExit(child);
  });
  return JSON.parse(stdout) as Hunt;
}

/**
 * Replays a life with a planted bug, in a process of its own that prints it.
 *
 * @param shrinkRunsMax - runs to shrink it with, 0 for none
 * @returns its exit code
 */
export function replayInProcess(
  canary: Canary,
  source: DecisionSource,
  shrinkRunsMax: number,
): Promise<number> {
  const args = argumentsOf("replay-process.ts", canary, shrinkRunsMax);
  const child = spawn(process.execPath, args, { stdio: ["pipe", "inherit", "inherit"] });
  // Lists may be longer than arguments can be. That nobody reads them is heard by the end.
  child.stdin.on("error", () => undefined).end(JSON.stringify(source));
  killAtExit(child);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 1));
  });
}

function argumentsOf(file: string, canary: Canary, ...rest: (string | number)[]): string[] {
  const path = join(import.meta.dirname, file);
  return ["--conditions=@blocklayer/source", path, canary.id, ...rest.map(String)];
}

/** Returns the middle value, the upper one of two. */
export function median(values: readonly number[]): number | undefined {
  return values.toSorted((one, two) => one - two)[Math.floor(values.length / 2)];
}

/** One line about a hunt, and the shrunk decisions. */
export function describeHunt({ id, invariant }: Canary, result: Hunt): string {
  const seeds = median(result.seeds);
  if (seeds === undefined) return `${id} (${invariant}): NOT FOUND`;
  const sizes = (pair: readonly [number, number] | undefined): string =>
    pair === undefined ? "?" : `${pair[0]} (${pair[1]} not 0)`;
  const times = `${result.seeds.length} ${result.seeds.length === 1 ? "time" : "times"}`;
  const found = `found ${times}, median ${seeds} ${seeds === 1 ? "seed" : "seeds"}`;
  const line = `${id} (${invariant}): ${found}; ${result.kind ?? ""}`;
  if (result.decisions === undefined) return line;
  const shrunk = `${sizes(result.before)} -> ${sizes(result.after)} decisions in ${result.shrinkRuns ?? 0} runs`;
  return `${line}\n  ${shrunk}: [${result.decisions.join(",")}]`;
}
