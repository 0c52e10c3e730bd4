import { BlockError, type BlockErrorContext, nameOfErrno, textOfErrno } from "@blocklayer/errors";

/**
 * Returns what the operating system reported as a `BlockError`: `what` and the text of the error.
 *
 * @param what - what failed, as the start of a sentence
 */
export function ioError(error: unknown, what: string, context: BlockErrorContext): BlockError {
  if (error instanceof BlockError) return error;
  const code = codeOf(error);
  const text =
    code === undefined
      ? error instanceof Error
        ? error.message
        : String(error)
      : textOfErrno(code);
  return new BlockError(code ?? "EIO", `${what}: ${text}`, context, { cause: error });
}

/** Returns what a native call answered as a `BlockError`. @param errno - negative */
export function nativeError(errno: number, what: string, context: BlockErrorContext): BlockError {
  const code = nameOfErrno(errno) ?? "EIO";
  return new BlockError(code, `${what}: ${textOfErrno(code)}`, { ...context, errno });
}

/** Returns the errno name of an error of the operating system, `undefined` for any other. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  // A number that Node has no name for comes with a made-up code.
  if ("code" in error && typeof error.code === "string" && /^E[A-Z0-9]+$/.test(error.code)) {
    return error.code.startsWith("ERR_") ? undefined : error.code;
  }
  return "errno" in error && typeof error.errno === "number" ? nameOfErrno(error.errno) : undefined;
}

/** How often a call that was interrupted is made again. */
const RETRY_MAX = 1000;

/** Makes a call again when it was interrupted or told to try again. */
export async function retried<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call();
    } catch (error) {
      const code = codeOf(error);
      if ((code !== "EINTR" && code !== "EAGAIN") || attempt === RETRY_MAX) throw error;
    }
  }
}
