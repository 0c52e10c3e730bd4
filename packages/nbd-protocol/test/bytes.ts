import { BlockError } from "@blocklayer/errors";

/** Bytes of hexadecimal digits and `"text"`; blanks are for the reader. */
export function bytes(...parts: string[]): Uint8Array {
  const values: number[] = [];
  for (const [token] of parts.join(" ").matchAll(/"[^"]*"|[0-9a-f]{2}/gu)) {
    if (token.startsWith('"')) values.push(...new TextEncoder().encode(token.slice(1, -1)));
    else values.push(Number.parseInt(token, 16));
  }
  return Uint8Array.from(values);
}

export function join(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let position = 0;
  for (const part of parts) {
    whole.set(part, position);
    position += part.length;
  }
  return whole;
}

interface Reader<T> {
  push(chunk: Uint8Array): void;
  next(): T | undefined;
}

/** Everything that a reader makes of these chunks; `keep` copies what is only valid until the next call. */
export function readAll<T, R>(
  reader: Reader<T>,
  chunks: Iterable<Uint8Array>,
  keep: (value: T) => R,
): R[] {
  const all: R[] = [];
  for (const chunk of chunks) {
    reader.push(chunk);
    for (let value = reader.next(); value !== undefined; value = reader.next()) {
      all.push(keep(value));
    }
  }
  return all;
}

/** The chunks between cuts, each in memory of its own. */
export function split(whole: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const edges = [0, ...cuts.map((cut) => cut % (whole.length + 1)), whole.length];
  edges.sort((a, b) => a - b);
  return edges.slice(1).map((end, index) => whole.slice(edges[index], end));
}

/** The chunks between cuts, each in the same memory, which the next one overwrites. */
export function* volatileSplit(
  whole: Uint8Array,
  cuts: readonly number[],
): Generator<Uint8Array, void> {
  const memory = new Uint8Array(whole.length);
  for (const chunk of split(whole, cuts)) {
    memory.set(chunk);
    yield memory.subarray(0, chunk.length);
    memory.fill(0xee);
  }
}

/** What a call throws, in the parts that callers read. */
export function failure(run: () => unknown): Record<string, unknown> {
  try {
    run();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return { code: error.code, message: error.message, ...error.context };
  }
  return { code: "nothing thrown" };
}
