import {
  boolean,
  enumeration,
  object,
  optional,
  type Schema,
  size,
  string,
} from "@blocklayer/schema";

/** Options of `file` and `host_device`. */
export interface FileOptions {
  /** Path of the file or device. */
  readonly filename: string;
  /** Whether other programs are kept from using the image against this one's permissions. */
  readonly locking: "auto" | "on" | "off";
  /** Accepted for the reference's sake: how requests are made is decided by measurement. */
  readonly aio: "threads" | "native" | "io_uring";
}

/** What a new file is. */
export interface FileCreateOptions {
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  readonly preallocation: "off" | "falloc" | "full";
  /** Whether copy-on-write is turned off, on file systems that know that. */
  readonly nocow: boolean;
  /** Bytes that the file system allocates at once, on file systems that know that; 0 for no hint. */
  readonly "extent-size-hint": number;
}

const fileSchema = object({
  filename: string({ minLength: 1 }),
  locking: optional(enumeration("auto", "on", "off"), "auto"),
  aio: optional(enumeration("threads", "native", "io_uring"), "threads"),
});

const createSchema = object({
  filename: string({ minLength: 1 }),
  size: size(),
  preallocation: optional(enumeration("off", "falloc", "full"), "off"),
  nocow: optional(boolean(), false),
  "extent-size-hint": optional(size(), 2 ** 20),
});

/** The schema of {@link FileOptions}. */
export const fileOptionsSchema: Schema<FileOptions> = fileSchema;

/** The schema of {@link FileCreateOptions}. */
export const fileCreateSchema: Schema<FileCreateOptions> = createSchema;
