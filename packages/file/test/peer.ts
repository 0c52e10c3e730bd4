import { type ChildProcess, spawn, spawnSync } from "node:child_process";

/** Whether programs of the reference may be missing. */
const { BLOCKLAYER_REQUIRE_PEERS } = process.env;
const isRequired = BLOCKLAYER_REQUIRE_PEERS === "1";

/** Whether a program is installed. Says so when it is not; throws when it must be. */
export function hasPeer(program: string): boolean {
  const isThere = spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;
  if (!isThere && isRequired) throw new Error(`${program} is not installed`);
  if (!isThere) process.stderr.write(`tests against ${program} are skipped: it is not installed\n`);
  return isThere;
}

/** Runs a program to its end. @returns its exit code and everything it said */
export function run(
  program: string,
  args: readonly string[],
): { code: number | null; text: string } {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8" });
  return { code: status, text: stdout + stderr };
}

/** Starts `qemu-io` on an image and waits until it has opened it. */
export async function holdWithQemuIo(args: readonly string[]): Promise<{ close(): Promise<void> }> {
  const child = spawn("qemu-io", args, { stdio: ["pipe", "pipe", "pipe"] });
  child.stdin.write("length\n");
  await firstOutput(child);
  return {
    close: () => {
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      child.stdin.end("quit\n");
      return ended;
    },
  };
}

function firstOutput(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (/\d (bytes|[KMG]iB)/.test(text)) resolve();
    });
    child.once("exit", () => reject(new Error(`qemu-io ended: ${text}`)));
  });
}
