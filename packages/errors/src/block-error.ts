import { errnoOf } from "./errno.ts";

/** Where an error happened. For logs and for people; never matched on. */
export interface BlockErrorContext {
  /** Name of the node that failed. */
  readonly node?: string;
  /** The operation in the words of the API, such as `"pwrite"`. */
  readonly operation?: string;
  /** Bytes from the start of the node. */
  readonly offset?: number;
  /** Bytes. */
  readonly length?: number;
  /** Whatever else names the thing, the limit and the value. */
  readonly [detail: string]: unknown;
}

export interface BlockErrorOptions {
  /** What was underneath. */
  readonly cause?: unknown;
  /** What to do about it, a sentence. */
  readonly hint?: string;
  /** The QMP error class. Default `"GenericError"`. */
  readonly errorClass?: string;
}

const BRAND = "@blocklayer/BlockError";

/**
 * The one error of the block layer: an errno-like code to match on, a sentence for a person, and the
 * place where it happened.
 *
 * `code` is stable within a major version, `message` is not. `instanceof` holds across two installed
 * copies of this package. Not to be subclassed: a new situation is a new message, rarely a new code.
 *
 * @see CONTRIBUTING.md; docs/design.md section 8 for messages that a reference program words first
 */
export class BlockError extends Error {
  override readonly name: string = "BlockError";
  /** An errno name: `"EIO"`, `"ENOSPC"`, … Names outside the promised set are passed on unchanged. */
  readonly code: string;
  /** The negative error number of `code`, for NBD and QMP. */
  readonly errno: number;
  readonly context: BlockErrorContext;
  readonly hint: string | undefined;
  /** The QMP error class. */
  readonly errorClass: string;
  readonly brand: string = BRAND;

  constructor(
    code: string,
    message: string,
    context: BlockErrorContext = {},
    options: BlockErrorOptions = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.errno = errnoOf(code);
    this.context = context;
    this.hint = options.hint;
    this.errorClass = options.errorClass ?? "GenericError";
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && "brand" in value && value.brand === BRAND;
  }
}

/**
 * Returns `error` as a `BlockError`, wrapping what is not one yet: an operating system's error keeps
 * its code, anything else becomes `EIO`. A `BlockError` is returned as it is.
 *
 * @param error - whatever was thrown
 * @param message - the sentence of the wrapper; the message of `error` is appended
 * @param context - where it happened, used when wrapping
 */
export function toBlockError(
  error: unknown,
  message: string,
  context: BlockErrorContext = {},
): BlockError {
  if (error instanceof BlockError) return error;
  const code =
    error instanceof Error &&
    "code" in error &&
    typeof error.code === "string" &&
    /^E[A-Z0-9]+$/.test(error.code)
      ? error.code
      : "EIO";
  const text = error instanceof Error ? error.message : String(error);
  return new BlockError(code, `${message}: ${text}`, context, { cause: error });
}
