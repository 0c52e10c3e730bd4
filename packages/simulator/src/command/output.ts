import { constants } from "node:os";

/** Signal that ends what nobody reads any more. */
const EXIT_PIPE = 128 + constants.signals.SIGPIPE;

/** Prints a line. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Ends the process without a word, its children too, when nobody reads what it prints: `sim … | head`. */
export function stopWhenNobodyReads(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(EXIT_PIPE);
    throw error;
  });
}

/** Returns the exit code of a command that a signal has ended. */
export function exitCodeOf(signal: "SIGINT" | "SIGTERM"): number {
  return 128 + constants.signals[signal];
}
