import type { BlockNode, GraphOptions } from "@blocklayer/block-graph";
import { Graph } from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import type { DriverDefinition } from "@blocklayer/driver";
import { passThrough, type ScriptedDefinition, scriptedDefinition } from "@blocklayer/driver-tests";
import { manualEnv } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { memory } from "@blocklayer/memory";
import { expect } from "vitest";
import { type ImageShelf, keeper } from "./keeping-disk.ts";

export const KiB: number = 1024;
export const MiB: number = 1024 * KiB;

/** All operations of the strongest handle; each test uses what its node allows. */
export interface Disk {
  read(offset: number, buffer: Uint8Array): Promise<void>;
  write(offset: number, buffer: Uint8Array): Promise<void>;
  writeZeroes(offset: number, length: number): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  truncate(size: number): Promise<void>;
  close(): Promise<void>;
}

/** A graph with its bitmaps, and short ways to open nodes and write to them. */
export class Rig {
  readonly log: string[] = [];
  readonly scripted: ScriptedDefinition = scriptedDefinition();
  readonly shelf: ImageShelf = new Map();
  readonly graph: Graph;
  readonly bitmaps: BitmapManager;

  constructor(shelf?: ImageShelf) {
    if (shelf !== undefined) this.shelf = shelf;
    const drivers: readonly DriverDefinition[] = [
      memory,
      this.scripted,
      passThrough,
      keeper(this.shelf),
    ] as never;
    const options: GraphOptions<readonly DriverDefinition[]> = {
      env: manualEnv(),
      drivers,
      log: (line) => this.log.push(line),
    };
    this.graph = new Graph(options);
    this.bitmaps = new BitmapManager(this.graph);
  }

  open(options: Record<string, unknown>): Promise<BlockNode> {
    return this.graph.open(options as never);
  }

  /** A memory disk of 1 MiB. */
  disk(name = "disk", options: Record<string, unknown> = {}): Promise<BlockNode> {
    return this.open({
      driver: "memory",
      "node-name": name,
      size: MiB,
      discard: "unmap",
      ...options,
    });
  }

  async backend(node: BlockNode, writable = true): Promise<Disk> {
    const perm = writable
      ? (["consistent-read", "write", "resize"] as const)
      : (["consistent-read"] as const);
    return (await this.graph.createBackend({ node, perm })) as unknown as Disk;
  }
}

/** The code and the message of what a call throws or rejects with. */
export async function failure(call: () => unknown): Promise<BlockError> {
  try {
    await call();
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    return error as BlockError;
  }
  throw new Error("nothing was thrown");
}

export const bytes = (length: number): Uint8Array => new Uint8Array(length).fill(7);
