import type { WritableBackend } from "@blocklayer/block-graph";
import { RequestFlag } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import type { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";

/** What a guest may ask for. */
export type RequestKind = "write" | "zeroes" | "discard" | "read" | "flush";

/** Where a request goes, in bytes. */
export interface Place {
  readonly offset: number;
  readonly length: number;
}

/** What random lives decide anew each time is decided once here: buffers that are given back are always poisoned. */
export function plainEnv(env: Env): Env {
  return { ...env, buggify: (site) => site.startsWith("poison") };
}

/** Sends one request and judges what it reads. @throws what the disk answers */
export async function sendRequest(
  simulation: Simulation,
  disk: WritableBackend,
  oracle: RegisterOracle,
  kind: RequestKind,
  place: Place,
): Promise<void> {
  if (kind === "flush") {
    const succeeded = oracle.beginFlush();
    await disk.flush();
    succeeded();
    return;
  }
  if (kind === "read") {
    await readAndCheck(simulation, disk, oracle, place);
    return;
  }
  const { offset, length } = place;
  const operation = oracle.begin(kind, offset, length);
  if (kind === "write") {
    await disk.write(offset, oracle.payload(operation));
  } else if (kind === "zeroes") {
    await disk.writeZeroes(offset, length, { flags: RequestFlag.mayUnmap });
  } else {
    await disk.discard(offset, length);
  }
  oracle.end(operation, true);
}

/** Reads a place and reports a finding if nobody can have written what is there. */
export async function readAndCheck(
  simulation: Simulation,
  disk: WritableBackend,
  oracle: RegisterOracle,
  { offset, length }: Place,
): Promise<void> {
  const operation = oracle.begin("read", offset, length);
  const buffer = new Uint8Array(length);
  await disk.read(offset, buffer);
  const problem = oracle.check(operation, buffer);
  oracle.end(operation, true);
  if (problem !== undefined) simulation.fail("wrong data", problem);
}

const stamped = new Map<string, Uint8Array>();

/**
 * Returns content in which every cell has a stamp, stable from the start. It is the same for every life, so it is made
 * once: nobody may change it.
 *
 * @param oracle - one that knows of no operation yet
 */
export function stampedContent(oracle: RegisterOracle, size: number): Uint8Array {
  const operation = oracle.begin("write", 0, size);
  const key = `${size} ${oracle.cellSize} ${operation.id}`;
  const content = stamped.get(key) ?? oracle.payload(operation);
  stamped.set(key, content);
  oracle.end(operation, true, true);
  return content;
}

const stale = new Map<number, Uint8Array>();

/** Returns what a target holds before anything is copied to it. */
export function staleContent(size: number): Uint8Array {
  const content = stale.get(size) ?? new Uint8Array(size).fill(0x77);
  stale.set(size, content);
  return content;
}
