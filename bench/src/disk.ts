import { closeSync, fsyncSync, openSync, readSync, truncateSync, writeSync } from "node:fs";

const CHUNK = 2 ** 20;

/** Makes a raw disk whose bytes are all data and not all alike, and reads it once so that it is cached. */
export function makeDisk(path: string, size: number): void {
  const file = openSync(path, "w+");
  const chunk = Buffer.alloc(CHUNK);
  for (let offset = 0; offset < size; offset += CHUNK) {
    for (let position = 0; position < CHUNK; position += 4) {
      chunk.writeUInt32LE((offset + position * 2654435761) >>> 0, position);
    }
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
