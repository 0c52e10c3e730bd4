import { resolve } from "node:path";

/** What the user asks for. */
export interface DemoArguments {
  /** A raw disk of the user's, an absolute path; without it the demo makes one. */
  readonly disk: string | undefined;
  /** Read the user's disk where it is, instead of working on a copy. It is never written to. */
  readonly inPlace: boolean;
  /** To the end without questions. */
  readonly once: boolean;
  /** Leave the results. */
  readonly keep: boolean;
  readonly help: boolean;
}

export type ParsedArguments =
  | { readonly ok: true; readonly value: DemoArguments }
  | { readonly ok: false; readonly message: string };

const OPTIONS = {
  "--once": "once",
  "--in-place": "inPlace",
  "--keep": "keep",
  "--help": "help",
  "-h": "help",
} as const;

type FlagName = (typeof OPTIONS)[keyof typeof OPTIONS];

const ALLOWED = "allowed are --once, --in-place, --keep, --help and the path of one raw disk";

export const HELP: string = `A live backup of a disk that is being written to.

  npm start                            with a disk made for the occasion, step by step
  npm start -- --once                  to the end without questions
  npm start -- /path/to/disk.raw       with a copy of a raw disk of yours

  --in-place   do not copy your disk: read it where it is; what the writer writes stays in memory
  --once       no questions (so too where input or output is no terminal)
  --keep       keep the results, and say where they are
  --help       this text

Your disk is never written to. Everything else is in one private folder in TMPDIR, and removed at the end, after
Ctrl-C and after a signal too. Exit code 0: all checks have passed; 1: one has failed, or something went wrong;
2: wrong arguments; 128 and the number of the signal that ended it.
`;

/**
 * Reads the command line.
 *
 * @param args - without the program's own name
 * @param folder - where relative paths start
 */
export function parseArguments(args: readonly string[], folder: string): ParsedArguments {
  const flags = new Set<FlagName>();
  const paths: string[] = [];
  let onlyPaths = false;
  for (const [index, arg] of args.entries()) {
    if (onlyPaths || !arg.startsWith("-") || arg === "-") {
      paths.push(arg);
    } else if (arg === "--") {
      // A runner may pass on its own separator as the first argument; after another one everything is a path.
      onlyPaths = index > 0;
    } else if (Object.hasOwn(OPTIONS, arg)) {
      flags.add(OPTIONS[arg as keyof typeof OPTIONS]);
    } else {
      return wrong(`unknown option '${arg}'`);
    }
  }
  const has = (name: FlagName): boolean => flags.has(name);
  const fault = faultOf(paths, has("inPlace") && !has("help"));
  if (fault !== undefined) return wrong(fault);
  const [path] = paths;
  const disk = path === undefined ? undefined : resolve(folder, path);
  const value = {
    disk,
    inPlace: has("inPlace"),
    once: has("once"),
    keep: has("keep"),
    help: has("help"),
  };
  return { ok: true, value };
}

function faultOf([path, second]: readonly string[], needsPath: boolean): string | undefined {
  if (second !== undefined) return `one disk at most, not '${path}' and '${second}'`;
  if (path === "" || path === "-") return `'${path}' is no path of a disk`;
  return needsPath && path === undefined ? "--in-place needs the path of a disk" : undefined;
}

function wrong(what: string): ParsedArguments {
  return { ok: false, message: `${what}; ${ALLOWED}` };
}
