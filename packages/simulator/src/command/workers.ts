import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { Task, TaskResult } from "./tasks.ts";

type Answer = { readonly result: TaskResult } | { readonly error: string };

/** Processes that live lives side by side. A seed lives alike in each of them. */
export class Workers {
  readonly #processes: ChildProcess[];
  readonly #idle: ChildProcess[];
  readonly #waiting: ((child: ChildProcess) => void)[] = [];

  /** @param count - 1 or more */
  constructor(count: number) {
    const file = join(import.meta.dirname, "worker-process.ts");
    const execArgv = ["--conditions=@blocklayer/source"];
    this.#processes = Array.from({ length: count }, () =>
      fork(file, { execArgv, serialization: "advanced" }),
    );
    this.#idle = [...this.#processes];
  }

  get count(): number {
    return this.#processes.length;
  }

  /** Waits for a process, and for its answer. @throws Error the process has ended, or the task could not be done */
  async run(task: Task): Promise<TaskResult> {
    const child = await this.#take();
    try {
      return await answerOf(child, task);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#idle.push(child);
      else next(child);
    }
  }

  /** Lets the processes end, whatever they do. */
  close(): void {
    for (const child of this.#processes) child.kill("SIGKILL");
  }

  #take(): Promise<ChildProcess> {
    const child = this.#idle.pop();
    if (child !== undefined) return Promise.resolve(child);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

function answerOf(child: ChildProcess, task: Task): Promise<TaskResult> {
  return new Promise((resolve, reject) => {
    const ended = (): void => {
      child.off("message", answered);
      reject(new Error(`a worker has ended in ${JSON.stringify(task)}`));
    };
    const answered = (message: unknown): void => {
      child.off("exit", ended);
      const answer = message as Answer;
      if ("result" in answer) resolve(answer.result);
      else reject(new Error(answer.error));
    };
    child.once("message", answered);
    child.once("exit", ended);
    if (child.exitCode === null && child.signalCode === null) child.send(task);
    else ended();
  });
}
