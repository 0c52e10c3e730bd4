import { type FileHandle, open } from "node:fs/promises";
import { MiB } from "../scenario/quantities.ts";

export interface SparseCopyOptions {
  readonly from: string;
  /** Must not exist. */
  readonly to: string;
  readonly signal: AbortSignal;
  /** Told how many bytes are done. */
  readonly progress?: (done: number) => void;
}

const ZEROES = Buffer.alloc(MiB);

/** Copies a file; what is zeroes becomes a hole. */
export async function copySparse(options: SparseCopyOptions): Promise<void> {
  const source = await open(options.from, "r");
  try {
    const target = await open(options.to, "wx", 0o600);
    try {
      await copyData(source, target, options);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

async function copyData(
  source: FileHandle,
  target: FileHandle,
  { signal, progress }: SparseCopyOptions,
): Promise<void> {
  const { size } = await source.stat();
  await target.truncate(size);
  const buffer = Buffer.alloc(MiB);
  for (let offset = 0; offset < size; ) {
    signal.throwIfAborted();
    const { bytesRead } = await source.read(buffer, 0, buffer.length, offset);
    if (bytesRead === 0) throw new Error(`the file became shorter than ${size} bytes`);
    const part = buffer.subarray(0, bytesRead);
    if (!part.equals(ZEROES.subarray(0, bytesRead))) await writeAll(target, part, offset);
    offset += bytesRead;
    progress?.(offset);
  }
}

/** Writes all of a buffer, however many calls it takes. */
export async function writeAll(target: FileHandle, data: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await target.write(data, done, data.length - done, offset + done);
    done += bytesWritten;
  }
}
