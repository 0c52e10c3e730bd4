import type { Advance, Command, GuestWriteMeasure, Stage, Testimony } from "../scenario/stage.ts";
import { LineStage } from "./line-stage.ts";
import { percentOf, progressText } from "./texts.ts";

const CLEAR_LINE = "\r\u001b[2K";
const BAR_WIDTH = 28;
const COLORS = { bold: 1, red: 31, green: 32, yellow: 33, dim: 2 } as const;
/** Time between two pictures of the bar, milliseconds. */
const DRAW_EVERY_MS = 80;

/** What is used of a terminal. */
export interface ScreenOutput {
  readonly columns?: number;
  write(text: string): unknown;
  hasColors?(): boolean;
}

export interface ScreenOptions {
  readonly output: ScreenOutput;
  readonly input: NodeJS.ReadableStream;
  /** Whether to ask questions. */
  readonly asks: boolean;
}

/** Shows the scenario in a terminal: a bar that moves, colours, and questions if wanted. */
export class ScreenStage implements Stage {
  readonly #output: ScreenOutput;
  readonly #input: NodeJS.ReadableStream;
  readonly #asks: boolean;
  readonly #lines: LineStage;
  #hasBar: boolean = false;
  #barOf: string = "";
  #isOver: boolean = false;
  #drawnAtMs: number = 0;

  constructor({ output, input, asks }: ScreenOptions) {
    this.#output = output;
    this.#input = input;
    this.#asks = asks;
    this.#lines = new LineStage((line) => this.#print(line));
  }

  phase(title: string): void {
    this.#print("");
    this.#print(this.#colored("bold", `== ${title}`));
  }

  fact(text: string): void {
    this.#lines.fact(text);
  }

  progressed(advance: Advance): void {
    const isEnd = advance.done >= advance.total;
    const nowMs = performance.now();
    const isNew = advance.what !== this.#barOf;
    if (!isNew && (this.#isOver || !(isEnd || nowMs - this.#drawnAtMs >= DRAW_EVERY_MS))) return;
    this.#barOf = advance.what;
    this.#isOver = isEnd;
    this.#drawnAtMs = nowMs;
    const filled = Math.round((percentOf(advance.done, advance.total) / 100) * BAR_WIDTH);
    const bar = "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled);
    const room = Math.max(20, (this.#output.columns ?? 80) - BAR_WIDTH - 6);
    this.#output.write(`${CLEAR_LINE}   ${bar} ${progressText(advance).slice(0, room)}`);
    this.#hasBar = true;
    if (isEnd) this.#endBar("\n");
  }

  measured(rows: readonly GuestWriteMeasure[]): void {
    this.#lines.measured(rows);
  }

  testified({ who, outcome, detail }: Testimony): void {
    const [mark, color] = (
      {
        passed: ["✔", "green"],
        failed: ["✘", "red"],
        skipped: ["–", "yellow"],
      } as const
    )[outcome];
    this.#print(`   ${this.#colored(color, mark)} ${who}: ${detail}`);
  }

  commands(list: readonly Command[]): void {
    for (const { purpose, line } of list) {
      this.#print(`   ${this.#colored("dim", `# ${purpose}`)}`);
      this.#print(`   ${line}`);
    }
  }

  verdict(passed: boolean, text: string): void {
    this.#print("");
    this.#print(this.#colored(passed ? "green" : "red", text));
  }

  async ask(question: string, signal: AbortSignal): Promise<void> {
    if (!this.#asks) return;
    this.#output.write(`   ${question} `);
    await this.#enter(signal);
  }

  /** Resolves at the next line of input, or at its end. */
  #enter(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        this.#input.removeListener("data", done).removeListener("end", done).pause();
        signal.removeEventListener("abort", abort);
      };
      const done = (): void => {
        stop();
        resolve();
      };
      const abort = (): void => {
        stop();
        reject(signal.reason);
      };
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      signal.addEventListener("abort", abort, { once: true });
      this.#input.once("data", done).once("end", done).resume();
    });
  }

  #print(line: string): void {
    this.#endBar(CLEAR_LINE);
    this.#output.write(`${line}\n`);
  }

  #endBar(end: string): void {
    if (!this.#hasBar) return;
    this.#hasBar = false;
    this.#output.write(end);
  }

  #colored(color: keyof typeof COLORS, text: string): string {
    if (!this.#output.hasColors?.()) return text;
    return `\u001b[${COLORS[color]}m${text}\u001b[0m`;
  }
}
