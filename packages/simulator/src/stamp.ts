/** First word of a stamp. */
const MAGIC = 0x5e_c7_0a_5e;
/** Word that fills cells whose content a discard has scrambled. */
const SCRAMBLED_WORD = 0xd5_d5_d5_d5;
/** Bytes: the shortest cell that holds a stamp. */
export const CELL_MIN = 32;

/** What a cell holds. */
export type CellContent =
  | { readonly kind: "zero" }
  | { readonly kind: "scrambled" }
  /** Words that are no whole stamp: torn, or never written by anybody. */
  | { readonly kind: "damaged" }
  | {
      readonly kind: "stamp";
      readonly disk: number;
      readonly cell: number;
      readonly operation: number;
    };

/**
 * Fills a cell so that stale, torn, misdirected and foreign data are told apart: it names the disk, the cell, the
 * operation, and has a checksum; the rest repeats the checksum.
 *
 * @param words - the cell
 */
export function writeStamp(
  words: Uint32Array,
  disk: number,
  cell: number,
  operation: number,
): void {
  const check = checksum(disk, cell, operation);
  words.fill(check);
  words[0] = MAGIC;
  words[1] = disk;
  words[2] = cell;
  words[3] = operation;
}

/** Reads a cell. All of it counts. */
export function readStamp(words: Uint32Array): CellContent {
  const first = words[0];
  if (first === 0 && isFilled(words, 0, 0)) return { kind: "zero" };
  if (first === SCRAMBLED_WORD && isFilled(words, 0, first)) return { kind: "scrambled" };
  const [, disk = 0, cell = 0, operation = 0] = words;
  const isWhole = first === MAGIC && isFilled(words, 4, checksum(disk, cell, operation));
  return isWhole ? { kind: "stamp", disk, cell, operation } : { kind: "damaged" };
}

/** Says what a cell holds. */
export function describeCell(content: CellContent): string {
  if (content.kind !== "stamp") return content.kind;
  const { disk, cell, operation } = content;
  return `operation ${operation} for cell ${cell} of disk ${disk}`;
}

function isFilled(words: Uint32Array, from: number, value: number): boolean {
  for (let index = from; index < words.length; index += 1) {
    if (words[index] !== value) return false;
  }
  return true;
}

function checksum(disk: number, cell: number, operation: number): number {
  let sum = Math.imul(disk + 1, 0x9e3779b1) ^ Math.imul(cell + 1, 0x85ebca77);
  sum = Math.imul(sum ^ (operation + 1), 0xc2b2ae3d);
  return (sum ^ (sum >>> 15)) >>> 0;
}
