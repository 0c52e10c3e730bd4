import type { ChildProcess } from "node:child_process";
import { signalGroup } from "../cleanup/last-resort.ts";
import { endOf } from "../cleanup/programs.ts";

/** Bytes of complaints that are kept. */
const COMPLAINTS_MAX = 2000;
/** A writer that was asked to end is killed after this time, milliseconds. */
const PATIENCE_MS = 1000;

/** The process of a writer: notices when it ends too early, and ends it. */
export class WriterProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly #name: string;
  readonly #ended: Promise<void>;
  readonly #whenFailed: ((error: Error) => void)[] = [];
  #complaints: string = "";
  #failure: string | undefined;
  #isStopping: boolean = false;

  constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.child = child;
    this.pid = child.pid ?? 0;
    // A client whose server is gone may complain without end: what is beyond the limit is read and dropped.
    child.stderr?.on("data", (chunk: Buffer) => {
      if (this.#complaints.length < COMPLAINTS_MAX) this.#complaints += chunk.toString();
    });
    this.#ended = endOf(child).then(
      (code) => this.#end(`exit code ${code}`),
      (error: Error) => this.#end(error.message),
    );
  }

  /** Why it ended before it was stopped. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Settles as `answer` does, but rejects if the process ends before. */
  async whileAlive<T>(answer: Promise<T>): Promise<T> {
    if (this.#failure !== undefined) throw new Error(this.#failure);
    return await Promise.race([
      answer,
      new Promise<never>((_, reject) => this.#whenFailed.push(reject)),
    ]);
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    this.#isStopping = true;
    signalGroup(this.child, signal);
    const timer = setTimeout(() => signalGroup(this.child, "SIGKILL"), PATIENCE_MS);
    await this.#ended;
    clearTimeout(timer);
  }

  #end(how: string): void {
    const said = this.#complaints.trim().slice(0, COMPLAINTS_MAX);
    const text = `the writer ${this.#name} ended by itself (${how})${said === "" ? "" : `: ${said}`}`;
    if (!this.#isStopping) this.#failure = text;
    for (const reject of this.#whenFailed) reject(new Error(text));
    this.#whenFailed.length = 0;
  }
}
