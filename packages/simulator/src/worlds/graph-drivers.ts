import {
  type BlockChild,
  type BlockDriver,
  type ChildPermissionsInput,
  completed,
  type DriverDefinition,
  type DriverFlags,
  defaultChildPermissions,
  defineDriver,
  FilterDriver,
  type NodeHost,
  type PermissionSet,
  Permissions,
  type PreparedReopen,
  RequestFlag,
  type RequestOptions,
  Role,
  type RoleMask,
} from "@blocklayer/driver";
import { boolean, object, optional, type Schema, string } from "@blocklayer/schema";

const FILE = Role.filtered | Role.primary;

/** Options of the driver `x-blocklayer-transparent`. */
export interface TransparentOptions {
  /** Means nothing, and may be reopened. */
  readonly label: string;
  /** Lets nobody else write what it shows. */
  readonly jealous: boolean;
}

const transparentSchema: Schema<TransparentOptions> = object({
  label: optional(string(), ""),
  jealous: optional(boolean(), false),
});

/** Shows its file; other children mean nothing to it. */
class TransparentFilter extends FilterDriver {
  readonly driverName: string = "x-blocklayer-transparent";
  readonly #isJealous: boolean;

  constructor(child: BlockChild, isJealous: boolean) {
    super(child);
    this.#isJealous = isJealous;
  }

  childPermissions(
    { name, role }: Pick<BlockChild, "name" | "role">,
    input: ChildPermissionsInput,
  ): PermissionSet {
    if (name !== "file") return defaultChildPermissions(role, input);
    const { perm, shared } = input;
    return { perm, shared: this.#isJealous ? shared & ~Permissions.write : shared };
  }
}

/** The filter that surgeons put in and take out. */
export const transparentFilter: DriverDefinition<
  "x-blocklayer-transparent",
  TransparentOptions,
  "file"
> = defineDriver({
  driverName: "x-blocklayer-transparent",
  schema: transparentSchema,
  children: [{ name: "file", role: FILE, required: true }],
  isFilter: true,
  isProtocol: false,
  supportsBacking: false,
  reopenable: ["label"],
  open: async (host, { jealous }) =>
    new TransparentFilter(await host.openChild("file", FILE), jealous),
});

/** Options of the driver `x-blocklayer-overlay`. */
export interface OverlayOptions {
  /** Means nothing, and may be reopened. */
  readonly label: string;
  /** Its file is for it alone, as that of an image format. */
  readonly metadata: boolean;
}

/** Keeps in memory which cells were written; all others are read from the backing node. */
class OverlayDriver implements BlockDriver {
  readonly driverName: string = "x-blocklayer-overlay";
  readonly zeroes = "native";
  readonly flags: DriverFlags = {
    read: 0,
    write: RequestFlag.fua | RequestFlag.writeUnchanged,
    zeroes: RequestFlag.fua | RequestFlag.writeUnchanged | RequestFlag.mayUnmap,
    truncateZero: false,
  };
  readonly #host: NodeHost;
  readonly #file: BlockChild;
  readonly #cellSize: number;
  readonly #isAllocated: Uint8Array;

  constructor(host: NodeHost, file: BlockChild, cellSize: number) {
    this.#host = host;
    this.#file = file;
    this.#cellSize = cellSize;
    this.#isAllocated = new Uint8Array(file.size / cellSize);
  }

  get size(): number {
    return this.#file.size;
  }

  get limits(): { readonly requestAlignment: number } {
    return { requestAlignment: this.#cellSize };
  }

  async pread(offset: number, buffer: Uint8Array): Promise<void> {
    const end = offset + buffer.length;
    for (let at = offset; at < end; ) {
      const isOwn = this.#isOwn(at);
      let stop = at + this.#cellSize;
      while (stop < end && this.#isOwn(stop) === isOwn) stop += this.#cellSize;
      const part = buffer.subarray(at - offset, stop - offset);
      const source = isOwn ? this.#file : this.#host.children.get("backing");
      if (source === undefined) part.fill(0);
      else await source.pread(at, part);
      at = stop;
    }
  }

  async pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    await this.#file.pwrite(offset, buffer, options);
    this.#allocate(offset, buffer.length);
  }

  async pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    await this.#file.pwriteZeroes(offset, length, options);
    this.#allocate(offset, length);
  }

  prepareReopen(): Promise<PreparedReopen> {
    return Promise.resolve({ commit: () => undefined, abort: () => undefined });
  }

  close(): Promise<void> {
    return completed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #isOwn(offset: number): boolean {
    return this.#isAllocated[offset / this.#cellSize] === 1;
  }

  #allocate(offset: number, length: number): void {
    this.#isAllocated.fill(1, offset / this.#cellSize, (offset + length) / this.#cellSize);
  }
}

const overlaySchema: Schema<OverlayOptions> = object({
  label: optional(string(), ""),
  metadata: optional(boolean(), false),
});

function fileRole({ metadata }: OverlayOptions): RoleMask {
  return metadata ? Role.image : Role.data | Role.primary;
}

/** Returns the overlay that surgeons append. @param cellSize - bytes that are allocated as one */
export function overlayDriver(
  cellSize: number,
): DriverDefinition<"x-blocklayer-overlay", OverlayOptions, "file" | "backing"> {
  return defineDriver({
    driverName: "x-blocklayer-overlay",
    schema: overlaySchema,
    children: [
      { name: "file", role: fileRole, required: true },
      { name: "backing", role: Role.cow, required: false },
    ],
    isFilter: false,
    isProtocol: false,
    supportsBacking: true,
    reopenable: ["label"],
    open: async (host, options) => {
      const file = await host.openChild("file", fileRole(options));
      if (host.childOption("backing") === "given") await host.openChild("backing", Role.cow);
      return new OverlayDriver(host, file, cellSize);
    },
  });
}
