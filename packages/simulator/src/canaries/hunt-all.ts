import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Canary } from "./canary.ts";
import type { Hunt } from "./hunt.ts";

const execute = promisify(execFile);

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
  const file = join(import.meta.dirname, "hunt-process.ts");
  const args = [file, canary.id, String(findings), String(shrinkRunsMax)];
  const { stdout } = await execute(
    process.execPath,
    ["--conditions=@blocklayer/source", ...args],
    signal === undefined ? {} : { signal },
  );
  return JSON.parse(stdout) as Hunt;
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
  const line = `${id} (${invariant}): median ${seeds} of ${result.seeds.length}, ${result.kind ?? ""}`;
  if (result.decisions === undefined) return line;
  const shrunk = `${sizes(result.before)} -> ${sizes(result.after)} decisions in ${result.shrinkRuns ?? 0} runs`;
  return `${line}\n  ${shrunk}: [${result.decisions.join(",")}]`;
}
