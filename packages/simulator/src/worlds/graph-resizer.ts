import type { Edge, ResizableBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import { type ModelRoot, NOWHERE, type View } from "./graph-model.ts";
import { isInjected } from "./graph-probe.ts";
import type { GraphSite, SiteClient } from "./graph-site.ts";

const KINDS = ["truncate", "write", "read"] as const;
/** Cells of a disk that is as long as it gets. */
const CELLS_MAX = 24;

export interface GraphResizerOptions {
  readonly site: GraphSite;
  readonly name: string;
  readonly number: number;
  readonly root: ModelRoot;
  readonly disk: ResizableBackend;
}

/**
 * The only client of a disk whose length it changes: one request after the other, so it knows what every byte has to
 * be, but for those of a request that failed.
 */
export class GraphResizer implements SiteClient {
  readonly name: string;
  readonly number: number;
  readonly root: ModelRoot;
  readonly disk: ResizableBackend;
  readonly mayWrite: boolean = true;
  /** It was plugged into a chain that leads nowhere. */
  #wasBlind: boolean = false;
  #view: View | undefined = undefined;
  isLeaving: boolean = false;
  readonly #site: GraphSite;
  readonly #cellSize: number;
  /** What fills each cell; `undefined` where nobody knows. */
  #cells: (number | undefined)[];
  /** The length that the backend was told of last, in bytes. */
  #told: number;
  #writeCount = 0;

  constructor({ site, name, number, root, disk }: GraphResizerOptions) {
    this.#site = site;
    this.name = name;
    this.number = number;
    this.root = root;
    this.disk = disk;
    this.#cellSize = site.oracle.cellSize;
    this.#told = disk.size;
    this.#cells = Array.from({ length: disk.size / this.#cellSize }, () => 0);
    disk.onResize((size) => {
      this.#told = size;
    });
  }

  get view(): View | undefined {
    return this.#view;
  }

  set view(view: View | undefined) {
    this.#view = view;
    if (view === undefined || view.includes(NOWHERE)) this.#wasBlind = true;
  }

  get edge(): Edge | undefined {
    return this.disk.edge;
  }

  async work(count: number): Promise<void> {
    const { simulation } = this.#site;
    for (let index = 0; index < count && !this.isLeaving; index += 1) {
      await simulation.scheduler.turn(`${this.name} thinks`);
      const kind = simulation.decisions.among(`${this.name} request`, KINDS);
      const { handOvers } = this.#site;
      await simulation.operation(`${this.name} ${kind}`, () => this.#request(kind, handOvers));
    }
  }

  async #request(kind: (typeof KINDS)[number], handOvers: number): Promise<void> {
    const { decisions } = this.#site.simulation;
    const cells = this.#cells.length;
    const cell = cells === 0 ? 0 : decisions.choose(`${this.name} cell`, cells);
    try {
      if (kind === "truncate") await this.#truncate();
      else if (cells === 0) return;
      else if (kind === "write") await this.#write(cell);
      else await this.#read(cell);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const { site, isOut } = { site: this.#site, isOut: this.#site.handOvers !== handOvers };
      const isExplained =
        isInjected(error) ||
        (error.code === "ENOMEDIUM" && (this.isLeaving || this.#wasBlind)) ||
        (error.code === "EPERM" && (isOut || !site.model.isActive)) ||
        site.faultCount > 0;
      site.simulation.expect(isExplained, "error from nowhere", () => `${this.name}: ${error}`);
    }
  }

  async #truncate(): Promise<void> {
    const { simulation } = this.#site;
    const before = this.#cells;
    const wanted = simulation.decisions.choose(`${this.name} length`, CELLS_MAX + 1);
    let isDone = false;
    try {
      await this.disk.truncate(wanted * this.#cellSize);
      isDone = true;
    } finally {
      const length = this.isLeaving ? wanted : this.disk.size / this.#cellSize;
      const kept = before.slice(0, Math.min(before.length, length));
      const added = Math.max(0, length - before.length);
      // Of a truncate that failed nobody knows how far it went before.
      this.#cells = [
        ...kept.map((value, cell) => (isDone || cell < wanted ? value : undefined)),
        ...Array.from({ length: added }, () => (isDone ? 0 : undefined)),
      ];
      const what = (): string => `${this.name} told of ${this.#told} bytes, ${length} cells`;
      const isTold = this.isLeaving || this.#told === length * this.#cellSize;
      simulation.expect(isTold, "not told of the length", what);
      simulation.expect(!isDone || length === wanted, "not the length that was wanted", what);
    }
    simulation.sometimes("a disk was resized");
  }

  async #write(cell: number): Promise<void> {
    this.#writeCount += 1;
    const value = 1 + (this.#writeCount % 250);
    this.#cells[cell] = undefined;
    await this.disk.write(cell * this.#cellSize, new Uint8Array(this.#cellSize).fill(value));
    this.#cells[cell] = value;
  }

  async #read(from: number): Promise<void> {
    const wanted = this.#cells.slice(from);
    const buffer = new Uint8Array(wanted.length * this.#cellSize);
    await this.disk.read(from * this.#cellSize, buffer);
    for (const [index, value] of wanted.entries()) {
      const at = index * this.#cellSize;
      const isRight =
        value === undefined ||
        buffer.subarray(at, at + this.#cellSize).every((byte) => byte === value);
      this.#site.simulation.expect(isRight, "wrong data", () => {
        return `${this.name}: cell ${from + index} of ${this.#cells.length} is not ${value ?? ""}`;
      });
    }
  }
}
