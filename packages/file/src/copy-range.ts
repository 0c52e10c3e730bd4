import { BlockError, type BlockErrorContext } from "@blocklayer/errors";
import type { CallQueue } from "./call-queue.ts";
import type { Descriptor } from "./descriptor.ts";
import { nativeError } from "./io-error.ts";
import { Errno, type NativeCalls } from "./native-calls.ts";

/** Bytes of one call: an upper bound on how long a call that copies for real can take. */
const STEP = 16 * 2 ** 20;

/** Answers that mean "not between these two files" and not "the disk is broken". */
const NOT_POSSIBLE: readonly number[] = [
  -Errno.ENOSYS,
  -Errno.ENOTSUP,
  -Errno.EXDEV,
  -Errno.EINVAL,
];

const IMPOSSIBLE = "copying within the operating system is not possible here";

interface Place {
  readonly descriptor: Descriptor;
  readonly offset: number;
}

/**
 * Copies a range inside the kernel, by shared extents where the file system has them.
 *
 * @param source - `undefined` when the source is no file of this package
 * @throws BlockError `ENOTSUP` not possible between the two, some of it may have been copied; others from the
 *   operating system
 */
export async function copyRange(
  settings: {
    readonly native: NativeCalls | undefined;
    readonly calls: CallQueue;
    readonly nodeName: string;
    readonly signal: AbortSignal | undefined;
  },
  source: Place | undefined,
  target: Place,
  length: number,
): Promise<void> {
  const { native, calls, nodeName, signal } = settings;
  const context = { node: nodeName, operation: "copyRange", offset: target.offset, length };
  if (native === undefined || source === undefined) {
    throw new BlockError("ENOTSUP", IMPOSSIBLE, context);
  }
  await source.descriptor.hold((sourceFd) =>
    target.descriptor.hold(async (fd) => {
      for (let done = 0; done < length; ) {
        const begin = done;
        const step = Math.min(STEP, length - begin);
        const count = await calls.run(
          () => native.copyRange(sourceFd, source.offset + begin, fd, target.offset + begin, step),
          signal,
        );
        if (count <= 0) refuse(count, context);
        else done += count;
      }
    }),
  );
}

/** Throws what an answer without progress means; an interruption means nothing. */
function refuse(answer: number, context: BlockErrorContext): void {
  if (answer === -Errno.EINTR) return;
  // No progress: the source ends here, or a file system that cannot says so in this way.
  if (answer === 0 || NOT_POSSIBLE.includes(answer)) {
    throw new BlockError("ENOTSUP", IMPOSSIBLE, context);
  }
  throw nativeError(answer, "copying failed", context);
}
