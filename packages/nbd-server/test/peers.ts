import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { expect } from "vitest";

/** What a program said and how it ended. */
export interface PeerResult {
  readonly status: number | null;
  readonly output: string;
}

const running = new Set<ChildProcess>();

/**
 * Whether the named programs are installed. Without them tests are skipped with the reason printed, unless
 * `BLOCKLAYER_REQUIRE_PEERS=1` says that they must be there.
 */
export function peersMissing(names: readonly string[]): string | undefined {
  const missing = names.filter((name) => spawnSync("which", [name]).status !== 0);
  if (missing.length === 0) return undefined;
  const { BLOCKLAYER_REQUIRE_PEERS: isRequired } = process.env;
  const reason = `not installed: ${missing.join(", ")}`;
  if (isRequired === "1") throw new Error(reason);
  process.stderr.write(`interop tests of nbd-server skipped, ${reason}\n`);
  return reason;
}

/** Runs a program to its end. */
export function run(command: string, args: readonly string[], input = ""): Promise<PeerResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "pipe" });
    running.add(child);
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (status) => {
      running.delete(child);
      resolve({ status, output });
    });
    child.stdin.end(input);
  });
}

/** The same, and it must succeed. */
export async function runWell(command: string, args: readonly string[]): Promise<string> {
  const { status, output } = await run(command, args);
  expect(status, output).toBe(0);
  return output;
}

/** Ends what a failed test has left running. */
export function endPeers(): void {
  for (const child of running) child.kill("SIGKILL");
}
