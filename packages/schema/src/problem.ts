/**
 * One thing that is wrong with a value: where, what, and what would be right.
 *
 * Problems are data for a person and for the program above; they are returned, never thrown.
 */
export interface Problem {
  /** Where: `file.filename`, `children[0].driver` (JSON) or `children.0.driver` (dotted); `""` is the value itself. */
  readonly path: string;
  /** A sentence for a person; the reference's own text where it reports the same condition. */
  readonly message: string;
  /** What is allowed or what to do about it. */
  readonly hint?: string;
  /** The type that would be right, as the message names it. */
  readonly expected?: string;
  /** The value that was found. */
  readonly received?: unknown;
}

/** What a parse returns: the value, or every problem found in it, first one first. */
export type ParseResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/**
 * Returns the sentence that goes into an error message: the first problem's message.
 *
 * The reference reports one problem, the first; so does this. Hints stay in the problems.
 *
 * @param problems - as a parse returned them
 * @returns `""` for an empty list
 */
export function describeProblems(problems: readonly Problem[]): string {
  return problems[0]?.message ?? "";
}
