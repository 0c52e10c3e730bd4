import { assert } from "@blocklayer/errors";
import { type CellContent, describeCell, readStamp, writeStamp } from "../stamp.ts";
import type { Place, View } from "./graph-model.ts";

export type GraphRequestKind = "read" | "write" | "zeroes" | "discard";

/** A request of a client, with its place in real time and on the disks. */
export interface GraphRequest {
  readonly id: number;
  readonly kind: GraphRequestKind;
  readonly client: GraphClient;
  readonly offset: number;
  readonly length: number;
  readonly startedAt: number;
  /** Infinity while it runs. */
  endedAt: number;
  succeeded: boolean;
  /** What the client was plugged into while the request ran. */
  readonly views: Set<View>;
  /** Where it was seen on a disk; known of writes alone. */
  place: Place | undefined;
  /** Cells of a write that were seen on a disk. */
  readonly cells: Set<number>;
}

/** Somebody with requests. The world says what he is plugged into. */
export interface GraphClient {
  readonly name: string;
  /** Stands in his stamps. */
  readonly number: number;
  readonly mayWrite: boolean;
  readonly view: View | undefined;
}

export interface GraphOracleOptions {
  /** Bytes. */
  readonly cellSize: number;
  /** Cells of a place. */
  readonly cells: number;
  readonly report: (kind: string, message: string) => void;
}

/** The requests that may have given a cell its value. */
type Register = GraphRequest[];

/**
 * Judges where requests go, and what is read, while clients are plugged from one disk into another.
 *
 * Each write is followed by its stamps: it has to arrive whole, once, at one place, the one that its client is plugged
 * into at that instant. What is read has to be, cell by cell, a value that real-time order allows at one of the places
 * that the client was plugged into meanwhile; an overlay lets through what nobody has written there.
 *
 * @see docs/reliability.md sections 3.2 (GR-7, RQ-1) and 3.3.6
 */
export class GraphOracle {
  readonly cellSize: number;
  readonly #cells: number;
  readonly #report: (kind: string, message: string) => void;
  readonly #registers = new Map<Place, Register[]>();
  readonly #requests = new Map<number, GraphRequest>();
  readonly #running = new Set<GraphRequest>();
  /** Where the first content of a place is that of what is below. */
  readonly #transparent = new Set<Place>();
  #tick = 1;
  #idCount = 0;

  constructor(options: GraphOracleOptions) {
    this.cellSize = options.cellSize;
    this.#cells = options.cells;
    this.#report = options.report;
  }

  /** Bytes of a place. */
  get size(): number {
    return this.#cells * this.cellSize;
  }

  /**
   * Adds a place with stamps of its own.
   *
   * @param isTransparent - shows what is below until somebody writes there
   * @returns what it holds at first
   */
  addPlace(place: Place, isTransparent: boolean): Uint8Array {
    const first = this.#entry("write", nobody, 0, this.size);
    Object.assign(first, { endedAt: 0, startedAt: 0, succeeded: true, place });
    if (isTransparent) this.#transparent.add(place);
    this.#registers.set(
      place,
      Array.from({ length: this.#cells }, () => [first]),
    );
    return this.payload(first);
  }

  begin(kind: GraphRequestKind, client: GraphClient, offset: number, length: number): GraphRequest {
    const request = this.#entry(kind, client, offset, length);
    this.#running.add(request);
    if (kind === "write") this.#requests.set(request.id, request);
    if (client.view !== undefined) this.#plug(request, client.view);
    return request;
  }

  payload(request: GraphRequest): Uint8Array {
    const buffer = new Uint8Array(request.length);
    for (const [index, cell] of this.#cellsOf(request.offset, request.length).entries()) {
      const words = new Uint32Array(buffer.buffer, index * this.cellSize, this.cellSize / 4);
      writeStamp(words, request.client.number, cell, request.id);
    }
    return buffer;
  }

  /** A client is plugged into something else from this instant on. */
  switched(client: GraphClient, view: View): void {
    for (const request of this.#running) {
      if (request.client === client) this.#plug(request, view);
    }
  }

  /** A write arrives at a place. */
  arrived(place: Place, offset: number, buffer: Uint8Array): void {
    for (const [index, cell] of this.#cellsOf(offset, buffer.length).entries()) {
      const value = this.#read(buffer, index);
      if (value.kind !== "stamp") continue;
      const request = this.#requests.get(value.operation);
      const where = `cell ${cell} of ${describePlace(place)} gets ${describeCell(value)}`;
      if (request === undefined || value.cell !== cell) this.#report("astray", where);
      else this.#arrivedCell(request, place, cell, where);
    }
  }

  #arrivedCell(request: GraphRequest, place: Place, cell: number, where: string): void {
    const { client, endedAt } = request;
    const what = `${where} of ${client.name}`;
    if (!client.mayWrite) this.#report("written without permission", what);
    if (endedAt !== Number.POSITIVE_INFINITY) this.#report("write after its end", what);
    if (request.cells.has(cell)) this.#report("written twice", what);
    const due = client.view?.[0];
    if (due !== place) {
      const wanted = due === undefined ? "nowhere" : describePlace(due);
      this.#report("write went astray", `${what}, who is plugged into ${wanted}`);
    }
    if (request.place !== undefined && request.place !== place) {
      this.#report("write went to two disks", what);
    }
    request.place = place;
    request.cells.add(cell);
    this.#registers.get(place)?.[cell]?.push(request);
  }

  end(request: GraphRequest, succeeded: boolean): void {
    request.endedAt = this.#now();
    request.succeeded = succeeded;
    this.#running.delete(request);
    const { kind, cells, length, client } = request;
    if (kind !== "write" || !succeeded || cells.size === length / this.cellSize) return;
    this.#report("write lost", `${client.name}: ${cells.size} cells of ${length} bytes arrived`);
  }

  /** Returns what is wrong with what a read returned, `undefined` when nothing is. It has not ended yet. */
  check(read: GraphRequest, buffer: Uint8Array): string | undefined {
    let problem: string | undefined = "it is plugged into nothing";
    for (const view of read.views) {
      problem = this.#checkView(read, view, buffer);
      if (problem === undefined) return undefined;
    }
    return `${read.client.name}: ${problem}`;
  }

  #checkView(read: GraphRequest, view: View, buffer: Uint8Array): string | undefined {
    for (const [index, cell] of this.#cellsOf(read.offset, read.length).entries()) {
      const value = this.#read(buffer, index);
      if (this.#isAllowed(read, view, 0, cell, value)) continue;
      const places = view.map(describePlace).join(" over ");
      return `cell ${cell} of ${places} holds ${describeCell(value)}`;
    }
    return undefined;
  }

  #isAllowed(
    read: GraphRequest,
    view: View,
    depth: number,
    cell: number,
    value: CellContent,
  ): boolean {
    const place = view[depth];
    if (place === undefined) return value.kind === "zero";
    const register = this.#registers.get(place)?.[cell] ?? [];
    return register.some((entry) => {
      if (this.#isRuledOut(entry, register, read)) return false;
      if (entry.client === nobody && this.#transparent.has(place)) {
        return this.#isAllowed(read, view, depth + 1, cell, value);
      }
      return isValueOf(value, entry, cell);
    });
  }

  #isRuledOut(entry: GraphRequest, register: Register, read: GraphRequest): boolean {
    return register.some(
      (later) =>
        later.startedAt > entry.endedAt &&
        later.endedAt < read.startedAt &&
        later.succeeded &&
        later.kind !== "discard" &&
        // Of zeroes nobody knows for certain where they went while the client was plugged over.
        (later.kind === "write" || later.views.size === 1),
    );
  }

  #plug(request: GraphRequest, view: View): void {
    if (request.views.has(view)) return;
    request.views.add(view);
    const [place] = view;
    if (place === undefined || (request.kind !== "zeroes" && request.kind !== "discard")) return;
    if (!request.client.mayWrite) return;
    const registers = this.#registers.get(place);
    for (const cell of this.#cellsOf(request.offset, request.length)) {
      const register = registers?.[cell];
      if (register?.includes(request) === false) register.push(request);
    }
  }

  #entry(
    kind: GraphRequestKind,
    client: GraphClient,
    offset: number,
    length: number,
  ): GraphRequest {
    assert(
      offset % this.cellSize === 0 && length % this.cellSize === 0,
      () => `${length} bytes at ${offset} are whole cells`,
    );
    this.#idCount += 1;
    return {
      id: this.#idCount,
      kind,
      client,
      offset,
      length,
      startedAt: this.#now(),
      endedAt: Number.POSITIVE_INFINITY,
      succeeded: false,
      views: new Set(),
      place: undefined,
      cells: new Set(),
    };
  }

  #read(buffer: Uint8Array, index: number): CellContent {
    const at = buffer.byteOffset + index * this.cellSize;
    return readStamp(new Uint32Array(buffer.buffer, at, this.cellSize / 4));
  }

  #cellsOf(offset: number, length: number): number[] {
    const first = offset / this.cellSize;
    return Array.from({ length: length / this.cellSize }, (_, index) => first + index);
  }

  #now(): number {
    this.#tick += 1;
    return this.#tick;
  }
}

/** Who gave a place its first content. */
const nobody: GraphClient = { name: "nobody", number: 0, mayWrite: true, view: undefined };

function isValueOf(value: CellContent, entry: GraphRequest, cell: number): boolean {
  switch (value.kind) {
    case "zero":
      return entry.kind === "zeroes" || entry.kind === "discard";
    case "scrambled":
      return entry.kind === "discard";
    case "damaged":
      return false;
    case "stamp":
      return value.operation === entry.id && value.cell === cell;
  }
}

export function describePlace({ medium, window }: Place): string {
  return `window ${window} of medium ${medium}`;
}
