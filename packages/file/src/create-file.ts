import { constants } from "node:fs";
import { ALL_PERMISSIONS, type CreateContext, Permissions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { CallQueue } from "./call-queue.ts";
import { Descriptor } from "./descriptor.ts";
import { deviceSize } from "./device-size.ts";
import type { FileKind } from "./file-opener.ts";
import type { FileCreateOptions } from "./file-options.ts";
import { ImageLocks, isLockingUnsupported } from "./image-locks.ts";
import { codeOf, ioError } from "./io-error.ts";
import type { OperatingSystem } from "./operating-system.ts";
import { resizeFile } from "./resize.ts";
import { Space } from "./space.ts";

const FILE_MODE = 0o644;

/**
 * Makes a file of a length, empty; a file that is there already is emptied first. For a device it only looks
 * whether the length fits.
 *
 * @throws BlockError `EAGAIN` another program uses the file; `EINVAL` a device is too small; `ENOSPC`, `ENOENT`,
 *   `EACCES`, … from the operating system. A file that was not there before is removed again.
 */
export async function createFile(
  system: OperatingSystem,
  kind: FileKind,
  options: FileCreateOptions,
  { env, signal }: CreateContext,
): Promise<void> {
  signal?.throwIfAborted();
  const { filename } = options;
  const { fd, isNew } = await openForCreation(system, kind, filename);
  const descriptor = new Descriptor(system, fd, true);
  const calls = new CallQueue(env.clock, 1);
  try {
    const stat = await descriptor.hold(() => system.fstat(fd));
    if (stat.kind !== kind.accepts) {
      const text = `'${kind.driverName}' driver requires '${filename}' to be ${kind.expectation}`;
      throw new BlockError("EINVAL", text, { fileName: filename });
    }
    if (stat.kind === "block") {
      const size = await deviceSize(system, fd, stat, undefined);
      if (options.size <= size) return;
      throw new BlockError("EINVAL", "Cannot grow device files", { fileName: filename, size });
    }
    const release = lockForCreation(system, fd, filename);
    try {
      await calls.run(() => descriptor.hold(() => system.ftruncate(fd, 0)));
      // Hints: a file system that does not know them works without.
      if (options.nocow) system.native?.setNoCopyOnWrite(fd);
      if (options["extent-size-hint"] > 0) {
        system.native?.setExtentSizeHint(fd, options["extent-size-hint"]);
      }
      const space = new Space(system, {
        calls,
        nodeName: filename,
        isDevice: false,
        isDirect: false,
      });
      const sync = (): Promise<void> => calls.run(() => descriptor.hold(() => system.fsync(fd)));
      const target = { system, calls, space, descriptor, sync, name: filename };
      const { preallocation } = options;
      const settings = signal === undefined ? { preallocation } : { preallocation, signal };
      await resizeFile(target, 0, options.size, settings);
    } finally {
      release();
    }
  } catch (error) {
    if (isNew) await removeAgain(system, filename, error);
    throw ioErrorUnlessAborted(error, signal, filename);
  } finally {
    await descriptor.retire();
  }
}

function ioErrorUnlessAborted(
  error: unknown,
  signal: AbortSignal | undefined,
  fileName: string,
): unknown {
  if (signal?.aborted === true && error === signal.reason) return error;
  return ioError(error, `Could not create '${fileName}'`, { fileName });
}

async function openForCreation(
  system: OperatingSystem,
  kind: FileKind,
  fileName: string,
): Promise<{ readonly fd: number; readonly isNew: boolean }> {
  const { O_RDWR, O_CREAT, O_EXCL, O_NONBLOCK } = constants;
  try {
    if (kind.accepts === "file") {
      try {
        const fd = await system.open(fileName, O_RDWR | O_CREAT | O_EXCL, FILE_MODE);
        return { fd, isNew: true };
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw error;
      }
    }
    // A named pipe must not make the call wait; what it is is looked at afterwards.
    return { fd: await system.open(fileName, O_RDWR | O_NONBLOCK), isNew: false };
  } catch (error) {
    throw ioError(error, `Could not create '${fileName}'`, { fileName });
  }
}

/** Keeps other programs out while the length changes. @returns what lets them in again */
function lockForCreation(system: OperatingSystem, fd: number, fileName: string): () => void {
  if (system.native === undefined) return () => undefined;
  const locks = new ImageLocks(system.native, fd, fileName, fileName);
  try {
    const shared = ALL_PERMISSIONS & ~Permissions.resize;
    locks.prepare(Permissions.write | Permissions.resize, shared);
  } catch (error) {
    if (!isLockingUnsupported(error)) throw error;
  }
  return () => locks.release();
}

async function removeAgain(
  system: OperatingSystem,
  fileName: string,
  failure: unknown,
): Promise<void> {
  try {
    await system.unlink(fileName);
  } catch (error) {
    // The failure is what is told; that the file stays is said with it.
    if (failure instanceof Error && failure.cause === undefined) failure.cause = error;
  }
}
