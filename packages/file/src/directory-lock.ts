import { constants } from "node:fs";
import { join } from "node:path";
import type { DirectoryLock } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { codeOf, nativeError } from "./io-error.ts";
import { Errno, type NativeCalls } from "./native-calls.ts";
import type { OperatingSystem } from "./operating-system.ts";

const { O_RDWR, O_CREAT, O_EXCL } = constants;

/** Names of the files that stand for locks without native calls: name, number of the process, number of the lock. */
export const PROCESS_LOCK: RegExp = /^(.+)\.lock-(\d+)-(\d+)$/;

/**
 * Takes an exclusive lock that ends with the process.
 *
 * With native calls it is a lock of the operating system on the file `name`, which is made if need be and stays.
 *
 * Without, everybody who wants the lock makes a file that has the number of its process in its name, and then looks
 * for others: one who sees another living process' file takes its own away again. Of two who come at once
 * none may get it, but never both. Files of processes that have ended are removed.
 *
 * The two kinds do not see each other, so all users of a directory are of one kind; and numbers of processes
 * mean nothing on another machine or in another container.
 *
 * @throws BlockError `EAGAIN` somebody else holds it
 */
export function takeLock(
  system: OperatingSystem,
  directory: string,
  name: string,
): Promise<DirectoryLock> {
  return system.native === undefined
    ? takeProcessLock(system, directory, name)
    : takeSystemLock(system, system.native, join(directory, name));
}

function heldByOther(path: string): BlockError {
  return new BlockError("EAGAIN", `'${path}' is locked by somebody else`, { path });
}

async function takeSystemLock(
  system: OperatingSystem,
  native: NativeCalls,
  path: string,
): Promise<DirectoryLock> {
  const fd = await system.open(path, O_RDWR | O_CREAT, 0o644);
  const result = native.setLock(fd, "exclusive", 0, 0);
  if (result < 0) {
    await system.close(fd);
    if (result === -Errno.EAGAIN || result === -Errno.EACCES) throw heldByOther(path);
    throw nativeError(result, `locking '${path}' failed`, { path });
  }
  // Closing the only descriptor of the open file drops its locks.
  return lockReleasedBy(() => system.close(fd));
}

let lastLock = 0;

async function takeProcessLock(
  system: OperatingSystem,
  directory: string,
  name: string,
): Promise<DirectoryLock> {
  lastLock += 1;
  const ownName = `${name}.lock-${system.processId}-${lastLock}`;
  const ownPath = join(directory, ownName);
  await system.close(await system.open(ownPath, O_RDWR | O_CREAT | O_EXCL, 0o644));
  try {
    for (const other of await system.list(directory)) {
      if (other === ownName || !(await isInTheWay(system, directory, name, other))) continue;
      throw heldByOther(join(directory, name));
    }
  } catch (error) {
    await system.unlink(ownPath);
    throw error;
  }
  return lockReleasedBy(() => system.unlink(ownPath));
}

/** Whether a file stands for the lock and its process lives; removes it when the process does not. */
async function isInTheWay(
  system: OperatingSystem,
  directory: string,
  name: string,
  other: string,
): Promise<boolean> {
  const [, lockName, owner] = PROCESS_LOCK.exec(other) ?? [];
  if (lockName !== name) return false;
  if (system.isProcessAlive(Number(owner))) return true;
  try {
    await system.unlink(join(directory, other));
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  return false;
}

function lockReleasedBy(release: () => Promise<void>): DirectoryLock {
  let releasing: Promise<void> | undefined;
  const releaseOnce = (): Promise<void> => {
    releasing ??= release();
    return releasing;
  };
  return { release: releaseOnce, [Symbol.asyncDispose]: releaseOnce };
}
