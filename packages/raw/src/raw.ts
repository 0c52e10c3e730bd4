import {
  type BlockChild,
  type CreateContext,
  type DriverDefinition,
  defineDriver,
  type MeasureResult,
  type NodeHost,
  type Preallocation,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { alignUp, MAX_LENGTH } from "@blocklayer/offsets";
import { boolean, enumeration, object, optional, type Schema, size } from "@blocklayer/schema";
import { RawDriver } from "./raw-driver.ts";
import { roleOf } from "./role.ts";
import { type FormatProber, RAW_SCORE, SectorGuard } from "./sector-guard.ts";
import { checkWindow, type RawWindow } from "./window.ts";

/** Options of the driver `raw`. */
export interface RawOptions {
  /** Bytes from the start of the file at which the disk begins. Default 0. */
  readonly offset: number;
  /** Bytes, a multiple of 512. Default: to the end of the file. Fixes the length of the disk. */
  readonly size?: number;
  /** Set by whoever detected the format instead of being told: sector 0 is guarded. Default `false`. */
  readonly "x-blocklayer-probed": boolean;
}

/** Options of `create`. */
export interface RawCreateOptions {
  /** Bytes, rounded up to a multiple of 512. */
  readonly size: number;
  readonly preallocation: Exclude<Preallocation, "metadata">;
}

export interface RawDefinitionOptions {
  /** The probers of every other format that may be detected. A probed disk is guarded against those alone. */
  readonly otherFormats?: readonly FormatProber[];
}

const schema: Schema<RawOptions> = object({
  offset: optional(size({ max: MAX_LENGTH }), 0),
  size: optional(size({ max: MAX_LENGTH })),
  "x-blocklayer-probed": optional(boolean(), false),
});

const createSchema: Schema<RawCreateOptions> = object({
  size: size({ max: MAX_LENGTH }),
  preallocation: optional(enumeration("off", "falloc", "full"), "off"),
});

/** Returns the driver `raw` that knows which other formats a guest could forge on a probed disk. */
export function rawDefinition(
  settings: RawDefinitionOptions = {},
): DriverDefinition<"raw", RawOptions, "file"> {
  const otherFormats = settings.otherFormats ?? [];
  return defineDriver({
    driverName: "raw",
    schema,
    children: [
      {
        name: "file",
        role: (options: RawOptions) => roleOf(windowOf(options)),
        required: true,
      },
    ],
    isFilter: false,
    isProtocol: false,
    supportsBacking: false,
    reopenable: ["offset", "size"],
    open: (host, options) => openRaw(host, options, otherFormats),
    create: createRaw,
    createSchema,
    measure: measureRaw,
    probe: () => RAW_SCORE,
  });
}

/** The driver `raw`: a file as a disk, or a window of it. Guards no sector; see {@link rawDefinition}. */
export const raw: DriverDefinition<"raw", RawOptions, "file"> = rawDefinition();

function windowOf({ offset, size: length }: RawOptions): RawWindow {
  return { offset, size: length };
}

async function openRaw(
  host: NodeHost,
  options: RawOptions,
  otherFormats: readonly FormatProber[],
): Promise<RawDriver> {
  const window = windowOf(options);
  const child = await host.openChild("file", roleOf(window));
  checkWindow(window, child.size, host.nodeName);
  if (!options["x-blocklayer-probed"]) return new RawDriver(host, child, window);
  if (!host.options.readOnly) {
    host.warn(
      `Image format was not specified for '${child.nodeName}' and probing guessed raw.\n` +
        "Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n" +
        "Specify the 'raw' format explicitly to remove the restrictions.",
    );
  }
  // Read-only disks are guarded too: a reopen can make them writable.
  return new RawDriver(host, child, window, new SectorGuard(otherFormats, host.nodeName));
}

async function createRaw(options: unknown, { file }: CreateContext): Promise<void> {
  const { size: length, preallocation } = options as RawCreateOptions;
  if (file === undefined) {
    throw new BlockError("EINVAL", "a raw image needs a file to be created in", { length });
  }
  await file.truncate(alignUp(length, 512), { preallocation });
}

/** Both numbers are the length: a raw image is as large as its disk. */
function measureRaw(options: unknown, source: BlockChild | undefined): Promise<MeasureResult> {
  const length = source?.size ?? (options as { readonly size?: number } | undefined)?.size;
  if (length === undefined) {
    const message = "Either --size N or one filename must be specified.";
    return Promise.reject(new BlockError("EINVAL", message));
  }
  const required = alignUp(length, 512);
  return Promise.resolve({ required, fullyAllocated: required });
}
