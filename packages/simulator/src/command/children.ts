import type { ChildProcess } from "node:child_process";
import { Worker } from "node:worker_threads";

const children = new Set<ChildProcess>();

function killAll(): void {
  for (const child of children) child.kill("SIGKILL");
}

/** Ends a child with this process, however this one calls its end. */
export function killAtExit(child: ChildProcess): void {
  if (!process.listeners("exit").includes(killAll)) process.on("exit", killAll);
  children.add(child);
  child.once("exit", () => children.delete(child));
}

/** Looks for the parent. */
const WATCH = `
  const parent = require("node:worker_threads").workerData;
  setInterval(() => {
    if (process.ppid !== parent) process.kill(process.pid, "SIGKILL");
  }, 500);
`;

/**
 * Ends this process soon after its parent, which may have been killed: a thread looks, so that no endless loop is in
 * its way.
 *
 * @param parent - its number. Default: who is the parent now
 */
export function endWithParent(parent: number = process.ppid): void {
  new Worker(WATCH, { eval: true, execArgv: [], workerData: parent }).unref();
}
