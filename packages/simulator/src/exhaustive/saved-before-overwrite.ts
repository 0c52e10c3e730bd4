import { copyBeforeWrite, isCopyBeforeWrite } from "@blocklayer/backup-top";
import type { CopyCall } from "@blocklayer/block-copy";
import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import type { DiskOperation } from "../disk/disk-behaviour.ts";
import { PROMPT } from "../disk/disk-behaviour.ts";
import type { Medium } from "../disk/medium.ts";
import { sameBytes } from "../disk/same-bytes.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { describeGraph } from "../worlds/request-layer.ts";
import {
  type Place,
  plainEnv,
  type RequestKind,
  readAndCheck,
  sendRequest,
  staleContent,
  stampedContent,
} from "./requests.ts";

const CLUSTER = 65536;
const CELL = 4096;

/** What is asked of a disk that is being saved: by its guest, or of the view of its point in time. */
export type SavedRequestKind = RequestKind | "look";

export interface SavedBeforeOverwriteOptions {
  readonly name: string;
  /** The lists of requests that are sent, one after the other without waiting. */
  readonly sequences: readonly (readonly SavedRequestKind[])[];
  /** Clusters of the disk; the last one is a part of one. Default 2. */
  readonly clusters?: number;
  /** When the rest is copied: together with the guests' requests, or after them. Default: both. */
  readonly background?: readonly ("together" | "after")[];
  /** Requests of the disks that end in any order; all others end within the call. Default: writes of all kinds. */
  readonly later?: {
    readonly source: readonly DiskOperation[];
    readonly target: readonly DiskOperation[];
  };
  /** Whether each request is sent at any moment; otherwise all are sent in one turn. Default `false`. */
  readonly atAnyMoment?: boolean;
}

const OPERATIONS = ["read", "write", "zeroes", "discard", "flush", "status"] as const;
const CHANGES = ["write", "zeroes", "discard"] as const;

/**
 * Concurrent requests of a guest through the copy-before-write filter while the rest is copied, with completions and
 * wake-ups in any order. Judged by the point in time, by what is saved when something is overwritten, and by the register
 * oracle.
 */
export function savedBeforeOverwrite(options: SavedBeforeOverwriteOptions): World {
  return {
    name: options.name,
    situations: [],
    run: (simulation) => new SavedBeforeOverwrite(simulation, options).live(),
  };
}

class SavedBeforeOverwrite {
  readonly #simulation: Simulation;
  readonly #options: SavedBeforeOverwriteOptions;
  readonly #size: number;
  readonly #source: Medium;
  readonly #target: Medium;
  readonly #oracle: RegisterOracle;
  readonly #graph: Graph;
  /** What the source held at the point in time. */
  readonly #instant: Uint8Array;
  #background: CopyCall | undefined;

  constructor(simulation: Simulation, options: SavedBeforeOverwriteOptions) {
    this.#simulation = simulation;
    this.#options = options;
    const size = ((options.clusters ?? 2) - 1) * CLUSTER + 2 * CELL;
    this.#size = size;
    const shape = { size, sectorSize: CELL, discard: "zeroes" } as const;
    this.#source = simulation.medium({ name: "source", ...shape });
    this.#target = simulation.medium({ name: "target", ...shape });
    this.#oracle = new RegisterOracle({ disk: 1, size, cellSize: CELL });
    this.#instant = stampedContent(this.#oracle, size);
    this.#source.format(this.#instant);
    this.#target.format(staleContent(size));
    const media = new Map([this.#source, this.#target].map((medium) => [medium.name, medium]));
    const drivers = [simulatedDisk(media), copyBeforeWrite()] as const;
    this.#graph = new Graph({ env: plainEnv(simulation.env), drivers }) as unknown as Graph;
    simulation.scheduler.reporters.push(() => describeGraph(this.#graph));
  }

  async live(): Promise<void> {
    const requests = this.#draw();
    const { background = ["together", "after"] } = this.#options;
    const isTogether = background[this.#simulation.decisions.choose("rest", background.length)];
    const disk = await this.#open();
    this.#watch();
    const sent = requests.map(({ kind, place }) =>
      this.#simulation.operation(`${kind} ${place.offset}+${place.length}`, () =>
        this.#send(disk, kind, place),
      ),
    );
    if (isTogether === "together") this.#copyRest(disk);
    await Promise.all(sent);
    if (isTogether !== "together") this.#copyRest(disk);
    await this.#simulation.operation("rest", async () => this.#background?.done);
    await this.#judge(disk);
  }

  #draw(): { readonly kind: SavedRequestKind; readonly place: Place }[] {
    const { decisions } = this.#simulation;
    const { sequences } = this.#options;
    const places = placesOn(this.#size);
    const sequence = sequences[decisions.choose("sequence", sequences.length)] ?? [];
    return sequence.map((kind) => {
      const index = kind === "flush" ? 0 : decisions.choose("place", places.length);
      return { kind, place: places[index] ?? { offset: 0, length: CELL } };
    });
  }

  async #open(): Promise<WritableBackend> {
    for (const [name, medium] of [
      ["disk", "source"],
      ["target", "target"],
    ] as const) {
      await this.#graph.open({
        driver: "x-blocklayer-simulated",
        "node-name": name,
        discard: "unmap",
        medium,
      });
    }
    const disk = await this.#graph.createBackend({
      node: "disk",
      perm: ["consistent-read", "write"],
    });
    await this.#graph.insertNode(
      {
        driver: "copy-before-write",
        "node-name": "filter",
        discard: "unmap",
        file: "disk",
        target: "target",
      },
      this.#graph.node("disk"),
    );
    return disk;
  }

  /** From here on what is overwritten has to be in the target, and requests end when the scheduler says. */
  #watch(): void {
    const { later = { source: CHANGES, target: CHANGES } } = this.#options;
    const behaviour = { atOnce: 0, later: 1, early: 0, slow: 0, faults: 0 };
    const others = (list: readonly DiskOperation[]): readonly DiskOperation[] =>
      OPERATIONS.filter((operation) => !list.includes(operation));
    this.#source.behaviour = { ...behaviour, prompt: others(later.source) };
    this.#target.behaviour = { ...behaviour, prompt: others(later.target) };
    this.#source.onSubmit = (operation, offset, length) => {
      for (let at = 0; at < this.#size; at += CLUSTER) {
        const end = Math.min(at + CLUSTER, this.#size);
        if (end <= offset || at >= offset + length) continue;
        this.#simulation.expect(
          this.#isSaved(at, end),
          "overwrote before copying",
          () => `${operation} of ${length} bytes at ${offset}, cluster at ${at}`,
        );
      }
    };
  }

  async #send(disk: WritableBackend, kind: SavedRequestKind, place: Place): Promise<void> {
    if (this.#options.atAnyMoment === true) await this.#simulation.scheduler.turn("send");
    if (kind === "look") await this.#look(disk, place);
    else await sendRequest(this.#simulation, disk, this.#oracle, kind, place);
  }

  /** The view shows the point in time, whatever is overwritten meanwhile. */
  async #look(disk: WritableBackend, { offset, length }: Place): Promise<void> {
    const driver = disk.node?.driver;
    if (driver === undefined || !isCopyBeforeWrite(driver)) return;
    const buffer = new Uint8Array(length);
    await driver.snapshotRead(offset, buffer);
    this.#simulation.expect(
      sameBytes(buffer, this.#instant.subarray(offset, offset + length)),
      "the view is not the point in time",
      () => `${length} bytes at ${offset}`,
    );
  }

  #copyRest(disk: WritableBackend): void {
    const driver = disk.node?.driver;
    if (driver === undefined || !isCopyBeforeWrite(driver)) return;
    const length = Math.ceil(this.#size / CLUSTER) * CLUSTER;
    this.#background = driver.engine.start(0, length, { maxWorkers: 2, maxChunk: CLUSTER });
  }

  async #judge(disk: WritableBackend): Promise<void> {
    const simulation = this.#simulation;
    this.#source.behaviour = PROMPT;
    this.#target.behaviour = PROMPT;
    this.#source.onSubmit = undefined;
    simulation.expect(this.#background?.succeeded === true, "the rest was not copied", () =>
      String(this.#background?.error),
    );
    simulation.expect(
      this.#isSaved(0, this.#size),
      "not the point in time",
      () => "the target differs",
    );
    await readAndCheck(simulation, disk, this.#oracle, { offset: 0, length: this.#size });
    checkGraph(this.#graph);
    const inFlight = disk.inFlight + this.#source.inFlight + this.#target.inFlight;
    simulation.expect(inFlight === 0, "left in flight", () => `${inFlight} requests`);
    await this.#graph.change([this.#graph.dropFilter(this.#graph.node("filter"))]);
    await this.#graph.remove("filter");
    await disk.close();
    await this.#graph.close();
    await simulation.scheduler.rest();
    await simulation.expectNothingPending();
  }

  #isSaved(at: number, end: number): boolean {
    const { visible } = this.#target.cache;
    return sameBytes(visible.subarray(at, end), this.#instant.subarray(at, end));
  }
}

/** A cell at the end of each cluster but the last, one at the start of its neighbour, and both together. */
function placesOn(size: number): readonly Place[] {
  const places: Place[] = [];
  for (let end = CLUSTER; end < size; end += CLUSTER) {
    places.push({ offset: end - CELL, length: CELL });
    places.push({ offset: end - CELL, length: 2 * CELL });
  }
  places.push({ offset: size - 2 * CELL, length: CELL });
  return places;
}
