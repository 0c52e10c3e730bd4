import { randomFillSync } from "node:crypto";
import { cp, mkdir, open, rm, truncate } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Workplace } from "../cleanup/workplace.ts";
import { formatBytes, MiB } from "../scenario/quantities.ts";
import type { FoundPrograms } from "../witness/found-programs.ts";
import type { DemoDisk } from "./demo-disk.ts";
import { chooseAreas, extentsOfScratch, spreadAreas } from "./write-areas.ts";

export interface MadeDiskOptions {
  readonly place: Workplace;
  readonly programs: FoundPrograms;
  readonly signal: AbortSignal;
  /** Bytes of the whole disk, and of the file system at its beginning. */
  readonly size: number;
  readonly fileSystemSize: number;
  /** Bytes of a big file beside the real ones. */
  readonly scratchSize: number;
  /** Bytes that the writer may write to. */
  readonly writableSize: number;
}

const BLOCK = 4096;
/** The folder whose files the disk holds: the packages of this repository. */
const FILES: string = join(import.meta.dirname, "../../../../packages");
const LEFT_OUT = new Set(["node_modules", "dist", ".turbo"]);
/** Parts of the disk that are written to. */
const AREAS = 4;

/**
 * Makes a disk: an ext4 file system with the files of this repository and a big file of chance, and a tail that
 * belongs to no file system. Without `mke2fs` it is a disk of generated data.
 *
 * The writer gets a part of the big file's data and the tail, so that the file system stays sound.
 */
export async function makeDisk(options: MadeDiskOptions): Promise<DemoDisk> {
  const { place, programs } = options;
  await place.checkRoom(options.scratchSize * 5 + 64 * MiB, "the demo");
  return programs.mke2fs === undefined
    ? await generateDisk(options)
    : await makeExt4(options, programs.mke2fs);
}

async function makeExt4(options: MadeDiskOptions, mke2fs: string): Promise<DemoDisk> {
  const { place, programs, size, fileSystemSize } = options;
  const path = place.file("disk.raw");
  const files = place.file("files");
  await mkdir(files);
  await cp(FILES, join(files, "packages"), {
    recursive: true,
    filter: (source) => !LEFT_OUT.has(basename(source)),
  });
  await writeChance(join(files, "scratch.bin"), options.scratchSize, options.signal);
  const format = ["-q", "-F", "-t", "ext4", "-b", `${BLOCK}`, "-L", "blocklayer", "-d", files];
  await programs.mustRun(mke2fs, [...format, path, `${fileSystemSize / 1024}k`]);
  await truncate(path, size);
  await rm(files, { recursive: true, force: true });
  const inFile = await extentsOfScratch(programs, path, BLOCK);
  const tail = { offset: fileSystemSize, length: size - fileSystemSize };
  const half = options.writableSize / 2;
  return {
    path,
    size,
    description: `ext4 with the files of this repository, ${formatBytes(size)}`,
    areas: [...chooseAreas(inFile, half, AREAS / 2), ...chooseAreas([tail], half, 1)],
    isUsersOwn: false,
    noFsck: undefined,
  };
}

async function generateDisk(options: MadeDiskOptions): Promise<DemoDisk> {
  const { place, size } = options;
  const path = place.file("disk.raw");
  await writeChance(path, options.scratchSize, options.signal);
  await truncate(path, size);
  return {
    path,
    size,
    description: `generated data, ${formatBytes(size)}`,
    areas: spreadAreas(size, options.writableSize, AREAS),
    isUsersOwn: false,
    noFsck: "mke2fs is not installed, so the disk holds generated data",
  };
}

async function writeChance(path: string, size: number, signal: AbortSignal): Promise<void> {
  const handle = await open(path, "wx", 0o600);
  try {
    const buffer = Buffer.alloc(MiB);
    for (let done = 0; done < size; done += buffer.length) {
      signal.throwIfAborted();
      await handle.write(randomFillSync(buffer), 0, Math.min(buffer.length, size - done), done);
    }
  } finally {
    await handle.close();
  }
}
