import { BlockError } from "@blocklayer/errors";
import type { BackupRequest } from "./backup-options.ts";

/**
 * Refuses a full backup whose target has less room than the source holds, where both are known: better now than
 * after hours. Compressed targets and the other sync modes need less than can be told beforehand.
 *
 * @throws BlockError `ENOSPC`, with both figures
 */
export async function checkRoom({ options, source, target }: BackupRequest): Promise<void> {
  if (options.sync !== "full" || options.compress === true) return;
  const [needed, held, free] = [
    await known(source.io.allocatedSize()),
    await known(target.io.allocatedSize()),
    await known(target.io.freeSpace()),
  ];
  if (needed === undefined || held === undefined || free === undefined) return;
  // A file can occupy more than its length, which is all that is copied.
  const length = Math.min(needed, source.size);
  if (length <= held + free) return;
  throw new BlockError(
    "ENOSPC",
    `target '${target.name}' has room for ${held + free} bytes, source '${source.name}' holds ${length} bytes`,
    { node: target.name, operation: "backup", needed: length, held, free },
    { hint: "free space for the target, or compress" },
  );
}

/** A disk that can not tell its figure is no reason not to back it up. */
async function known(figure: Promise<number | undefined>): Promise<number | undefined> {
  try {
    return await figure;
  } catch {
    return undefined;
  }
}
