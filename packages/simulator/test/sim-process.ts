import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";

export interface SimResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}

export interface SimOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Puts the toy in the place of the world `hbitmap`. */
  readonly isToy?: boolean;
  /** Told of all that was printed so far, to either place, whenever there is more. */
  readonly onText?: (text: string, child: ChildProcess) => void;
}

/** Runs the command to its end. */
export function sim(args: readonly string[], options: SimOptions = {}): Promise<SimResult> {
  const { cwd = import.meta.dirname, env = {}, isToy = false, onText } = options;
  const file = join(import.meta.dirname, "../src/cli.ts");
  const hook = join(import.meta.dirname, "toy-world-hook.ts");
  const toy = isToy ? { NODE_OPTIONS: `--import=${hook}` } : {};
  const child = spawn(process.execPath, ["--conditions=@blocklayer/source", file, ...args], {
    cwd,
    env: { ...process.env, ...toy, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
    onText?.(out + err, child);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
    onText?.(out + err, child);
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, out, err }));
  });
}
