/**
 * What an oracle has found. `kind` names the class of the finding without numbers, so that a shrunk run can be
 * compared with the one it came from.
 */
export class SimulationFailure extends Error {
  override readonly name: string = "SimulationFailure";
  readonly kind: string;

  /** The kind comes before the message, unless it says nothing more. */
  constructor(kind: string, message: string) {
    super(kind === withoutNumbers(message) ? message : `${kind}: ${message}`);
    this.kind = kind;
  }

  /** Returns what ended a run as a failure: an error that no oracle has thrown is one of the program. */
  static of(error: unknown): SimulationFailure {
    if (error instanceof SimulationFailure) return error;
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    const failure = new SimulationFailure(withoutNumbers(text), text);
    if (error instanceof Error && error.stack !== undefined) failure.stack = error.stack;
    return failure;
  }
}

function withoutNumbers(text: string): string {
  return text.replaceAll(/\d+/g, "#");
}
