import {
  type BlockChild,
  type DriverDefinition,
  defineDriver,
  type MeasureResult,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { object, optional, size } from "@blocklayer/schema";
import { createFile } from "./create-file.ts";
import type { FileKind } from "./file-opener.ts";
import {
  type FileCreateOptions,
  type FileOptions,
  fileCreateSchema,
  fileOptionsSchema,
} from "./file-options.ts";
import { operatingSystem } from "./node-system.ts";
import { openFile } from "./open-file.ts";
import type { OperatingSystem } from "./operating-system.ts";

/** How the drivers of this package reach the operating system. */
export interface FileDefinitionOptions {
  /**
   * Whether to use native calls where they can be had. Default: `true`, unless the environment variable
   * `BLOCKLAYER_FFI` is `off`. Not looked at when `system` is given.
   */
  readonly ffi?: boolean;
  /** The operating system; for tests and simulations. Default: the real one. */
  readonly system?: OperatingSystem;
}

const FILE: FileKind = {
  driverName: "file",
  accepts: "file",
  expectation: "a regular file",
};

const HOST_DEVICE: FileKind = {
  driverName: "host_device",
  accepts: "block",
  expectation: "a block device",
};

/** Returns the definition of the driver `file`: a disk in a regular file. */
export function fileDefinition(
  options: FileDefinitionOptions = {},
): DriverDefinition<"file", FileOptions, never> {
  return definition("file", FILE, options);
}

/** Returns the definition of the driver `host_device`: a disk that is a block device. */
export function hostDeviceDefinition(
  options: FileDefinitionOptions = {},
): DriverDefinition<"host_device", FileOptions, never> {
  return definition("host_device", HOST_DEVICE, options);
}

/** The driver `file`. */
export const file: DriverDefinition<"file", FileOptions, never> = fileDefinition();

/** The driver `host_device`. */
export const hostDevice: DriverDefinition<"host_device", FileOptions, never> =
  hostDeviceDefinition();

function definition<Name extends FileKind["driverName"]>(
  driverName: Name,
  kind: FileKind,
  options: FileDefinitionOptions,
): DriverDefinition<Name, FileOptions, never> {
  const system = async (): Promise<OperatingSystem> =>
    options.system ?? operatingSystem(options.ffi === undefined ? {} : { ffi: options.ffi });
  const prefix = `${driverName}:`;
  return defineDriver({
    driverName,
    schema: fileOptionsSchema,
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    open: async (host, fileOptions, env) => openFile(await system(), kind, host, fileOptions, env),
    createSchema: fileCreateSchema,
    // Parsed by the schema above.
    create: async (createOptions, context) =>
      createFile(await system(), kind, createOptions as FileCreateOptions, context),
    measure,
    parseFilename: (fileName) =>
      fileName.startsWith(prefix) ? { filename: fileName.slice(prefix.length) } : undefined,
    reopenable: ["locking"],
  });
}

const measureSchema = object({ size: optional(size()) });

/** A file needs what the disk is long. @throws BlockError `EINVAL` neither a size nor a source */
function measure(options: unknown, source: BlockChild | undefined): Promise<MeasureResult> {
  const parsed = measureSchema.parse(options ?? {});
  const bytes = source?.size ?? (parsed.ok ? parsed.value.size : undefined);
  return bytes === undefined
    ? Promise.reject(new BlockError("EINVAL", "measure needs a size or a source"))
    : Promise.resolve({ required: bytes, fullyAllocated: bytes });
}
