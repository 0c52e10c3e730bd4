import { closeSync, fsyncSync, openSync, readSync, truncateSync, writeSync } from "node:fs";

const CHUNK = 2 ** 20;

/** Makes a raw disk whose bytes are all data and not all alike, and reads it once so that it is cached. */
export function makeDisk(path: string, size: number): void {
  const file = openSync(path, "w+");
  const chunk = Buffer.alloc(CHUNK);
  const words = new Uint32Array(chunk.buffer, chunk.byteOffset, CHUNK / 4);
  for (let offset = 0; offset < size; offset += CHUNK) {
    // A few numbers make every chunk differ; the rest repeats, which no row depends on.
    words.fill(offset / CHUNK + 1);
    words[0] = offset;
    writeSync(file, chunk, 0, CHUNK, offset);
  }
  fsyncSync(file);
  for (let offset = 0; offset < size; offset += CHUNK) readSync(file, chunk, 0, CHUNK, offset);
  closeSync(file);
}

/** Makes a raw disk that occupies nothing. */
export function makeSparseDisk(path: string, size: number): void {
  closeSync(openSync(path, "w"));
  truncateSync(path, size);
}
