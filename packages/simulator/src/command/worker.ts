import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { CampaignReport } from "../campaign.ts";
import type { DecisionSource } from "../decisions.ts";
import { killAtExit } from "./children.ts";
import type { Task, TaskResult, WorkerMessage } from "./tasks.ts";

/** Milliseconds that a process may take until its first life begins. */
const START_MS = 60_000;
/** The longest time that a timer takes. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** How work at a task came to its end. All but `done` and `refused` are the end of the process too. */
export type Ending =
  | { readonly kind: "done"; readonly result: TaskResult }
  /** The task could not be done. */
  | { readonly kind: "refused"; readonly error: string }
  /** A life took longer than a life may take. */
  | { readonly kind: "endless" }
  /** The process ended by itself. */
  | { readonly kind: "ended"; readonly how: string }
  /** Its time was over, or it was told to stop. */
  | { readonly kind: "stopped" };

export interface WorkLimits {
  /** Milliseconds that one life may take. */
  readonly lifeMs: number;
  /** Milliseconds for the task; infinite for none. */
  readonly limitMs: number;
  readonly signal: AbortSignal | undefined;
  readonly onLived: (report: CampaignReport) => void;
}

/** A process that does one task at a time. */
export class Worker {
  readonly #child: ChildProcess;
  #life: DecisionSource | undefined;

  constructor() {
    const file = join(import.meta.dirname, "worker-process.ts");
    const execArgv = ["--conditions=@blocklayer/source"];
    this.#child = fork(file, [String(process.pid)], { execArgv, serialization: "advanced" });
    // It ends by itself when it can not be told anything: that is heard by its end.
    this.#child.on("error", () => undefined);
    killAtExit(this.#child);
  }

  /** The life that began last in the task. */
  get life(): DecisionSource | undefined {
    return this.#life;
  }

  /** Ends the process, whatever it does. */
  close(): void {
    this.#child.kill("SIGKILL");
  }

  /** Does a task, as far as it gets. */
  work(task: Task, { lifeMs, limitMs, signal, onLived }: WorkLimits): Promise<Ending> {
    const child = this.#child;
    this.#life = undefined;
    if (!child.connected) return Promise.resolve({ kind: "ended", how: endOf(child) });
    return new Promise((resolve) => {
      const watch = (ms: number): NodeJS.Timeout =>
        setTimeout(() => settle({ kind: "endless" }), Math.min(ms, TIMER_MS_MAX));
      let life = watch(START_MS);
      const limit = setTimeout(() => stop(), Math.min(limitMs, TIMER_MS_MAX));
      const settle = (ending: Ending): void => {
        clearTimeout(life);
        clearTimeout(limit);
        signal?.removeEventListener("abort", stop);
        child.off("message", hear).off("exit", end);
        if (ending.kind === "endless" || ending.kind === "stopped") this.close();
        resolve(ending);
      };
      const stop = (): void => settle({ kind: "stopped" });
      const end = (): void => settle({ kind: "ended", how: endOf(child) });
      const hear = (heard: unknown): void => {
        const message = heard as WorkerMessage;
        if ("begins" in message) {
          if (this.#life === undefined) {
            clearTimeout(life);
            life = watch(lifeMs);
          } else life.refresh();
          this.#life = message.begins;
        } else if ("lived" in message) onLived(message.lived);
        else if ("result" in message) settle({ kind: "done", result: message.result });
        else settle({ kind: "refused", error: message.error });
      };
      child.on("message", hear).once("exit", end);
      signal?.addEventListener("abort", stop, { once: true });
      if (signal?.aborted === true) stop();
      else child.send(task);
    });
  }
}

function endOf({ exitCode, signalCode }: ChildProcess): string {
  return signalCode === null ? `with exit code ${exitCode ?? "unknown"}` : `by ${signalCode}`;
}
