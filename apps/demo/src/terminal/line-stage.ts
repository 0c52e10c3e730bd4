import type { Advance, Command, GuestWriteMeasure, Stage, Testimony } from "../scenario/stage.ts";
import { progressText, tableLines } from "./texts.ts";

/** Time between two lines about one thing, milliseconds. */
const PROGRESS_EVERY_MS = 500;

/** Shows the scenario as plain lines: for logs, pipes and files. Asks nothing. */
export class LineStage implements Stage {
  readonly #print: (line: string) => void;
  #progressOf: string = "";
  #progressAtMs: number = 0;
  #isProgressOver: boolean = false;

  /** @param print - takes a line without its end */
  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  phase(title: string): void {
    this.#print("");
    this.#print(`== ${title}`);
  }

  fact(text: string): void {
    this.#print(`   ${text}`);
  }

  progressed(advance: Advance): void {
    const nowMs = performance.now();
    const isNew = advance.what !== this.#progressOf;
    const isEnd = advance.done >= advance.total;
    if (!isNew && (this.#isProgressOver || !(isEnd || this.#isTime(nowMs)))) return;
    this.#progressOf = advance.what;
    this.#isProgressOver = isEnd;
    this.#progressAtMs = nowMs;
    this.#print(`   ${progressText(advance)}`);
  }

  measured(rows: readonly GuestWriteMeasure[]): void {
    for (const line of tableLines(rows)) this.#print(`   ${line}`);
  }

  testified({ who, outcome, detail }: Testimony): void {
    const mark = { passed: "[ok]  ", failed: "[FAIL]", skipped: "[skip]" }[outcome];
    this.#print(`   ${mark} ${who}: ${detail}`);
  }

  commands(list: readonly Command[]): void {
    for (const { purpose, line } of list) {
      this.#print(`   # ${purpose}`);
      this.#print(`   ${line}`);
    }
  }

  verdict(_passed: boolean, text: string): void {
    this.#print("");
    this.#print(text);
  }

  ask(_question: string, _signal: AbortSignal): Promise<void> {
    return Promise.resolve();
  }

  #isTime(nowMs: number): boolean {
    return nowMs - this.#progressAtMs >= PROGRESS_EVERY_MS;
  }
}
