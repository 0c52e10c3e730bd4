import type { FoundPrograms } from "../witness/found-programs.ts";

/** A part of the disk that the writer writes to, bytes. */
export interface WriteArea {
  readonly offset: number;
  readonly length: number;
}

const PAGE = 4096;
const ENTRY =
  /^\s*(\d+)\/\s*(\d+)\s+\d+\/\s*\d+\s+\d+\s+-\s+\d+\s+(\d+)\s+-\s+(\d+)\s+\d+\s*(\w*)\s*$/;

/**
 * Returns where the data of a file lies on an ext4 disk, from what `debugfs dump_extents` prints.
 *
 * @param blockSize - bytes
 */
export function parseExtents(printed: string, blockSize: number): WriteArea[] {
  const areas: WriteArea[] = [];
  for (const line of printed.split("\n")) {
    const [, level, depth, first, last, flags] = ENTRY.exec(line) ?? [];
    // Inner levels of the tree name blocks of the tree, and what was not initialised holds no data.
    if (level === undefined || level !== depth || flags === "Uninit") continue;
    areas.push(areaOf(Number(first), Number(last), blockSize));
  }
  return areas;
}

/** Returns the free parts of an ext4 disk, from what `dumpe2fs` prints. */
export function parseFreeBlocks(printed: string): WriteArea[] {
  const blockSize = Number(/^Block size:\s+(\d+)$/m.exec(printed)?.[1] ?? 0);
  if (blockSize === 0) return [];
  const areas: WriteArea[] = [];
  // The groups' lines are indented, the superblock's line, a mere count, is not.
  for (const [, list = ""] of printed.matchAll(/^ +Free blocks: (.+)$/gm)) {
    for (const range of list.split(",")) {
      const [, first, last] = /^\s*(\d+)(?:-(\d+))?\s*$/.exec(range) ?? [];
      if (first !== undefined) areas.push(areaOf(Number(first), Number(last ?? first), blockSize));
    }
  }
  return areas;
}

function areaOf(first: number, last: number, blockSize: number): WriteArea {
  return { offset: first * blockSize, length: (last - first + 1) * blockSize };
}

/**
 * Chooses the largest areas, aligned to pages.
 *
 * @param total - bytes of all of them together, at most
 * @param count - how many, at most
 */
export function chooseAreas(
  areas: readonly WriteArea[],
  total: number,
  count: number,
): WriteArea[] {
  const share = alignDown(total / count);
  return areas
    .map(aligned)
    .filter(({ length }) => length > 0)
    .toSorted((a, b) => b.length - a.length || a.offset - b.offset)
    .slice(0, count)
    .map(({ offset, length }) => ({ offset, length: Math.min(length, share) }))
    .filter(({ length }) => length > 0);
}

/** Returns `count` areas of a disk of which nothing is known, in its last three quarters. */
export function spreadAreas(size: number, total: number, count: number): WriteArea[] {
  const step = alignDown((size * 3) / 4 / count);
  const start = alignDown(size / 4);
  const all = Array.from({ length: count }, (_, index) => ({
    offset: start + index * step,
    length: step,
  }));
  return chooseAreas(all, total, count);
}

function aligned({ offset, length }: WriteArea): WriteArea {
  const start = Math.ceil(offset / PAGE) * PAGE;
  return { offset: start, length: Math.max(0, alignDown(offset + length - start)) };
}

function alignDown(bytes: number): number {
  return Math.floor(bytes / PAGE) * PAGE;
}

/** Looks for the data of the file `/scratch.bin` on an ext4 disk; nothing without `debugfs`. */
export async function extentsOfScratch(
  programs: FoundPrograms,
  disk: string,
  blockSize: number,
): Promise<WriteArea[]> {
  if (programs.debugfs === undefined) return [];
  const args = ["-R", "dump_extents /scratch.bin", disk];
  return parseExtents(await programs.mustRun(programs.debugfs, args), blockSize);
}
