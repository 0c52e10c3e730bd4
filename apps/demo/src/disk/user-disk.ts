import { constants, copyFile, open, stat } from "node:fs/promises";
import { basename } from "node:path";
import type { Workplace } from "../cleanup/workplace.ts";
import { formatBytes, MiB } from "../scenario/quantities.ts";
import type { Stage } from "../scenario/stage.ts";
import type { FoundPrograms } from "../witness/found-programs.ts";
import type { DemoDisk } from "./demo-disk.ts";
import { copySparse } from "./sparse-copy.ts";
import { chooseAreas, parseFreeBlocks, spreadAreas, type WriteArea } from "./write-areas.ts";

export interface UserDiskOptions {
  readonly place: Workplace;
  readonly programs: FoundPrograms;
  readonly stage: Stage;
  readonly signal: AbortSignal;
  /** The user's file, an absolute path. */
  readonly file: string;
  readonly inPlace: boolean;
  /** Bytes that the writer may write to. */
  readonly writableSize: number;
}

/** What was found out about the user's file without touching anything. */
export interface UserFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes that it takes on its file system. */
  readonly allocated: number;
  /** Whether an ext2, ext3 or ext4 file system begins at its first byte. */
  readonly isExt: boolean;
}

const SIZE_MIN = MiB;
const SECTOR = 512;
const AREAS = 4;
const QCOW = Buffer.from("QFI\xfb", "latin1");
/** Where an ext file system has its magic number. */
const EXT_MAGIC_OFFSET = 1080;
const EXT_MAGIC = 0xef53;

/**
 * Looks at the user's file, reading only.
 *
 * @throws Error a sentence that says why it can not be used
 */
export async function inspectUserFile(path: string): Promise<UserFile> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(
      `the disk ${path} can not be used: ${error.code === "ENOENT" ? "it does not exist" : (error.code ?? error.message)}`,
    );
  });
  if (!found.isFile()) throw new Error(`the disk ${path} is not a regular file`);
  const start = await readStart(path);
  if (start.subarray(0, QCOW.length).equals(QCOW)) {
    throw new Error(
      `the disk ${path} is a qcow2 image and not raw; qemu-img convert -O raw makes it one`,
    );
  }
  if (found.size < SIZE_MIN || found.size % SECTOR !== 0) {
    throw new Error(
      `the disk ${path} has ${found.size} bytes; a raw disk of 1 MiB or more, in whole sectors of 512 bytes, is needed`,
    );
  }
  const isExt = start.readUInt16LE(EXT_MAGIC_OFFSET) === EXT_MAGIC;
  return { path, size: found.size, allocated: Math.min(found.size, found.blocks * SECTOR), isExt };
}

async function readStart(path: string): Promise<Buffer> {
  const handle = await open(path, "r").catch((error: NodeJS.ErrnoException) => {
    throw new Error(`the disk ${path} can not be read: ${error.code ?? error.message}`);
  });
  try {
    const start = Buffer.alloc(4096);
    await handle.read(start, 0, start.length, 0);
    return start;
  } finally {
    await handle.close();
  }
}

/** Makes the user's disk ready to be served: a clone or copy of it, or the file itself, which is only read. */
export async function takeUserDisk(options: UserDiskOptions): Promise<DemoDisk> {
  const { place, programs, inPlace } = options;
  const file = await inspectUserFile(options.file);
  const path = inPlace ? file.path : place.file("disk.raw");
  if (!inPlace) await cloneOrCopy(options, file, path);
  // The full backup and the restored disk, and what the slow target gets.
  await place.checkRoom(file.allocated * 2 + 512 * MiB, "backing up this disk");
  const sound = file.isExt ? await whyNotSound(programs, path) : "it holds no ext4 file system";
  const free = file.isExt ? await freeAreas(programs, path) : [];
  const areas = chooseAreas(free, options.writableSize, AREAS);
  const isAnywhere = areas.length === 0;
  const where = inPlace ? "read in place" : "a copy";
  return {
    path,
    size: file.size,
    description: `${basename(file.path)}, ${formatBytes(file.size)}, ${where}`,
    areas: isAnywhere ? spreadAreas(file.size, options.writableSize, AREAS) : areas,
    isUsersOwn: inPlace,
    noFsck: sound ?? (isAnywhere ? "no free blocks were found for the writer" : undefined),
  };
}

async function cloneOrCopy(options: UserDiskOptions, file: UserFile, to: string): Promise<void> {
  const { place, stage } = options;
  try {
    await copyFile(file.path, to, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
    stage.fact("your disk was cloned; clone and file share their blocks");
    return;
  } catch {
    // File systems without clones, and two of them, answer in several ways: whatever it was, copying tells.
  }
  await place.checkRoom(file.allocated * 3 + 512 * MiB, "a copy of this disk and its backup");
  await copySparse({
    from: file.path,
    to,
    signal: options.signal,
    progress: (done) =>
      stage.progressed({ what: "copying your disk", done, total: file.size, detail: "" }),
  });
  stage.fact("your disk was copied; the demo works on the copy");
}

/** Returns why a check of the restored disk would say nothing. */
async function whyNotSound(programs: FoundPrograms, path: string): Promise<string | undefined> {
  if (programs.fsck === undefined) return "fsck.ext4 is not installed";
  const { code } = await programs.run(programs.fsck, ["-fn", path]);
  return code === 0 ? undefined : "the file system was not clean when the demo got it";
}

async function freeAreas(programs: FoundPrograms, path: string): Promise<WriteArea[]> {
  if (programs.dumpe2fs === undefined) return [];
  const { stdout } = await programs.run(programs.dumpe2fs, [path]);
  return parseFreeBlocks(stdout);
}
