import type { BlockDriver, NodeHost } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { Access } from "./access.ts";
import { BounceSlots } from "./bounce-slots.ts";
import { CallQueue } from "./call-queue.ts";
import type { Descriptor } from "./descriptor.ts";
import { deviceSize } from "./device-size.ts";
import { probeAlignment } from "./direct-io.ts";
import { Extents } from "./extents.ts";
import { FileDriver, NativeFileDriver } from "./file-driver.ts";
import { FileIo, type FileIoSettings } from "./file-io.ts";
import { type FileKind, FileOpener } from "./file-opener.ts";
import type { FileOptions } from "./file-options.ts";
import { type FileSystemKind, fileSystemKind } from "./file-system-kind.ts";
import { FlushLine } from "./flush-line.ts";
import { codeOf, ioError } from "./io-error.ts";
import type { OperatingSystem } from "./operating-system.ts";
import { Space } from "./space.ts";
import { TurnBudget } from "./turn-budget.ts";

/** One budget for all files of a process. */
const budgets = new WeakMap<OperatingSystem, TurnBudget>();

/** Answers that mean "readable, but not for writing". */
const READ_ONLY_CODES: readonly (string | undefined)[] = ["EACCES", "EROFS", "EPERM", "ETXTBSY"];

/**
 * Opens a file or device as a node.
 *
 * @throws BlockError `EINVAL` the path is something else than the driver is for; `ENOTSUP` locking or `cache.direct`
 *   cannot be had; `ENOENT`, `EACCES`, … from the operating system. Nothing stays open.
 */
export async function openFile(
  system: OperatingSystem,
  kind: FileKind,
  host: NodeHost,
  options: FileOptions,
  env: Env,
): Promise<BlockDriver> {
  const opener = await FileOpener.inspect(system, host, kind, options);
  await yieldToReadOnly(system, host, options.filename);
  // With auto-read-only nothing is opened for writing before somebody writes.
  const descriptor = await opener.open(!host.options.readOnly && !host.autoReadOnly);
  try {
    const openLocks = await opener.openLocks(options.locking);
    try {
      const isDevice = kind.accepts === "block";
      const base = await measureFile(system, host, options, env, { descriptor, isDevice });
      const access = new Access({ ...base, host, opener, locking: options.locking, openLocks });
      const parts = { ...base, system, host, options, isDevice, access };
      const Driver = system.native === undefined ? FileDriver : NativeFileDriver;
      return new Driver(kind.driverName, parts);
    } catch (error) {
      await openLocks?.close();
      throw error;
    }
  } catch (error) {
    await descriptor.retire();
    throw ioError(error, `Could not open '${options.filename}'`, {
      node: host.nodeName,
      fileName: options.filename,
    });
  }
}

/** With auto-read-only a node that cannot be written is read-only instead of an error. */
async function yieldToReadOnly(
  system: OperatingSystem,
  host: NodeHost,
  path: string,
): Promise<void> {
  if (host.options.readOnly || !host.autoReadOnly) return;
  try {
    await system.mayWrite(path);
  } catch (error) {
    if (!READ_ONLY_CODES.includes(codeOf(error))) {
      throw ioError(error, `Could not open '${path}'`, { node: host.nodeName, fileName: path });
    }
    host.becomeReadOnly(ioError(error, `'${path}' cannot be written`, {}).message);
  }
}

type Parts = Pick<
  ConstructorParameters<typeof FileDriver>[1],
  "calls" | "io" | "flushes" | "space" | "extents" | "alignment"
>;

/** Finds out how long the file is and how it is read, and makes the parts that depend on it. */
async function measureFile(
  system: OperatingSystem,
  host: NodeHost,
  options: FileOptions,
  env: Env,
  opened: { readonly descriptor: Descriptor; readonly isDevice: boolean },
): Promise<Parts> {
  const { descriptor, isDevice } = opened;
  const { nodeName } = host;
  const isDirect = host.options.cacheDirect;
  const share = Math.max(1, system.poolSize - 1);
  const calls = new CallQueue(env.clock, share);
  const stat = await descriptor.hold((fd) => system.fstat(fd));
  const fileSystem = isDevice ? "local" : await kindOfFileSystem(system, options.filename);
  const slots = isDirect ? new BounceSlots(share) : undefined;
  const alignment = slots === undefined ? 1 : await probeAlignment(system, descriptor.fd, slots);
  const size = isDevice ? await deviceSize(system, descriptor.fd, stat, slots) : stat.size;
  let budget = budgets.get(system);
  if (budget === undefined) {
    budget = new TurnBudget((callback) => system.onNextTurn(callback));
    budgets.set(system, budget);
  }
  const settings: FileIoSettings = {
    system,
    clock: env.clock,
    calls,
    budget,
    nodeName,
    ...waysOf(isDirect, fileSystem, system.native !== undefined),
    direct: slots === undefined ? undefined : { slots, alignment },
  };
  const io = new FileIo(settings, descriptor, size);
  const sync = (): Promise<void> =>
    calls.run(() => io.descriptor.hold((fd) => system.fdatasync(fd)));
  return {
    calls,
    io,
    alignment,
    flushes: new FlushLine(sync, nodeName, !isDirect),
    space: new Space(system, { calls, nodeName, isDevice, isDirect }),
    extents: new Extents({
      system,
      clock: env.clock,
      calls,
      budget,
      isMemory: fileSystem === "memory",
      alignment,
    }),
  };
}

async function kindOfFileSystem(system: OperatingSystem, path: string): Promise<FileSystemKind> {
  try {
    return fileSystemKind((await system.statfs(path)).type);
  } catch {
    // It says only how fast things are; what is not known is treated with care.
    return "remote";
  }
}

function waysOf(
  isDirect: boolean,
  fileSystem: FileSystemKind,
  hasNative: boolean,
): Pick<FileIoSettings, "reads" | "writes"> {
  if (isDirect || fileSystem === "remote") return { reads: "pool", writes: "pool" };
  if (fileSystem === "memory") return { reads: "now", writes: "now" };
  return { reads: hasNative ? "no-wait" : "measured", writes: "measured" };
}
