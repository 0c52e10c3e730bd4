import { BlockError } from "@blocklayer/errors";
import { HELP, parseArguments } from "./arguments.ts";
import { Interrupted, Interruption } from "./cleanup/interruption.ts";
import { LastResort } from "./cleanup/last-resort.ts";
import { Programs } from "./cleanup/programs.ts";
import { Workplace } from "./cleanup/workplace.ts";
import { inspectUserFile } from "./disk/user-disk.ts";
import { playScenario } from "./scenario/scenario.ts";
import { RESULTS } from "./scenario/scene.ts";
import type { Settings } from "./scenario/settings.ts";
import type { Stage } from "./scenario/stage.ts";
import { LineStage } from "./terminal/line-stage.ts";
import { ScreenStage } from "./terminal/screen-stage.ts";

/**
 * The whole program.
 *
 * @param args - the command line without the program's own name
 * @param folder - where relative paths start
 * @returns the exit code
 */
export async function demo(
  args: readonly string[],
  folder: string,
  settings: Settings,
): Promise<number> {
  const parsed = parseArguments(args, folder);
  if (!parsed.ok) {
    console.error(parsed.message);
    return 2;
  }
  const { disk, inPlace, once, keep, help } = parsed.value;
  if (help) {
    console.log(HELP);
    return 0;
  }
  using interruption = new Interruption();
  const { signal } = interruption;
  // A reader that has gone away (`npm start | head`) is a reason to end, not to crash.
  process.stdout.on("error", () => interruption.interrupt("a closed output", 1));
  const stage = stageFor(once);
  const lastResort = new LastResort();
  stage.fact(
    `process ${process.pid}: Ctrl-C or "kill ${process.pid}" ends it at any time and leaves nothing behind`,
  );
  try {
    if (disk !== undefined) await inspectUserFile(disk);
    const place = await Workplace.make(lastResort);
    let isKept = false;
    try {
      const programs = new Programs(lastResort, settings.find);
      const options = { stage, settings, place, programs, signal, usersDisk: disk, inPlace, keep };
      const passed = await playScenario(options);
      isKept = keep;
      stage.verdict(passed, verdictText(passed, place, keep));
      return passed ? 0 : 1;
    } finally {
      if (isKept) await place.keep(Object.values(RESULTS));
      else await place.remove();
    }
  } catch (error) {
    return failed(stage, signal.aborted ? signal.reason : error);
  }
}

function stageFor(once: boolean): Stage {
  const { stdin, stdout } = process;
  if (!stdout.isTTY) return new LineStage((line) => void stdout.write(`${line}\n`));
  return new ScreenStage({ output: stdout, input: stdin, asks: !once && stdin.isTTY });
}

function verdictText(passed: boolean, place: Workplace, keep: boolean): string {
  const result = passed ? "All checks have passed." : "A check has failed.";
  const rest = keep
    ? `The results are in ${place.path}`
    : "Everything was removed; with --keep the results stay, for the commands above.";
  return `${result} ${rest}`;
}

function failed(stage: Stage, error: unknown): number {
  const text = error instanceof Error ? error.message : String(error);
  const hint = error instanceof BlockError && error.hint !== undefined ? ` (${error.hint})` : "";
  stage.verdict(false, `${text}${hint}`);
  if (error instanceof Interrupted) return error.exitCode;
  return 1;
}
