import { demo } from "../src/demo.ts";
import type { Settings } from "../src/scenario/settings.ts";
import type { WriterKind } from "../src/writer/writer.ts";
import { SMALL } from "./small-settings.ts";

/**
 * The program with a small disk. The first argument chooses the writer: `-` leaves the choice to the program, `alone`
 * lets it find no other program at all.
 */
const [writer = "-", ...args] = process.argv.slice(2);

function settingsFor(choice: string): Settings {
  if (choice === "-") return SMALL;
  if (choice === "alone") return { ...SMALL, find: () => undefined };
  return { ...SMALL, writer: choice as WriterKind };
}

process.exitCode = await demo(args, process.cwd(), settingsFor(writer));
