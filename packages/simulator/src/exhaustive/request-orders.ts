import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { raw } from "@blocklayer/raw";
import type { Medium } from "../disk/medium.ts";
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
  stampedContent,
} from "./requests.ts";

const CELL = 64;
const BLOCK = 512;

/** All blocks, a part of each, and a part of each two neighbours. */
export function placesOn(blocks: number): readonly Place[] {
  const places: Place[] = [{ offset: 0, length: blocks * BLOCK }];
  for (let block = 0; block < blocks; block += 1) {
    const end = (block + 1) * BLOCK;
    places.push({ offset: end - CELL, length: CELL });
    if (block + 1 < blocks) places.push({ offset: end - CELL, length: 2 * CELL });
  }
  return places;
}

export interface RequestOrdersOptions {
  readonly name: string;
  /** The lists of requests that are sent, one after the other without waiting. */
  readonly sequences: readonly (readonly RequestKind[])[];
  /** Blocks of the disk. Default 2. */
  readonly blocks?: number;
  /** Whether each request is sent at any moment; otherwise all are sent in one turn. Default `false`. */
  readonly atAnyMoment?: boolean;
  /** Bytes that the disk takes at once, 0 for any number: longer requests are split. Default 0. */
  readonly maxTransfer?: number;
}

/**
 * Concurrent requests to `raw` over a disk of a few blocks whose completions come in any order; requests that cover
 * a block in part have to read it first. Judged by the register oracle, also by what would be left after the power fails
 * at the end.
 */
export function requestOrders(options: RequestOrdersOptions): World {
  return {
    name: options.name,
    situations: [],
    run: (simulation) => new RequestOrders(simulation, options).live(),
  };
}

class RequestOrders {
  readonly #simulation: Simulation;
  readonly #options: RequestOrdersOptions;
  readonly #places: readonly Place[];
  readonly #medium: Medium;
  readonly #oracle: RegisterOracle;

  constructor(simulation: Simulation, options: RequestOrdersOptions) {
    this.#simulation = simulation;
    this.#options = options;
    const blocks = options.blocks ?? 2;
    const size = blocks * BLOCK;
    this.#places = placesOn(blocks);
    this.#medium = simulation.medium({ name: "medium", size, discard: "scramble" });
    this.#oracle = new RegisterOracle({ disk: 1, size, cellSize: CELL });
    this.#medium.format(stampedContent(this.#oracle, size));
  }

  async live(): Promise<void> {
    const requests = this.#draw();
    const { graph, disk } = await this.#open();
    this.#medium.behaviour = { atOnce: 0, later: 1, early: 0, slow: 0, faults: 0 };
    await Promise.all(
      requests.map(({ kind, place }) =>
        this.#simulation.operation(`${kind} ${place.offset}+${place.length}`, async () => {
          if (this.#options.atAnyMoment === true) await this.#simulation.scheduler.turn("send");
          await sendRequest(this.#simulation, disk, this.#oracle, kind, place);
        }),
      ),
    );
    this.#medium.behaviour = { atOnce: 1, later: 0, early: 0, slow: 0, faults: 0 };
    await this.#judge(graph, disk);
  }

  #draw(): { readonly kind: RequestKind; readonly place: Place }[] {
    const { decisions } = this.#simulation;
    const { sequences } = this.#options;
    const whole = { offset: 0, length: this.#medium.size };
    const sequence = sequences[decisions.choose("sequence", sequences.length)] ?? [];
    return sequence.map((kind) => {
      const index = kind === "flush" ? 0 : decisions.choose("place", this.#places.length);
      return { kind, place: this.#places[index] ?? whole };
    });
  }

  async #open(): Promise<{ readonly graph: Graph; readonly disk: WritableBackend }> {
    const drivers = [raw, simulatedDisk(new Map([["medium", this.#medium]]))] as const;
    const graph = new Graph({ env: plainEnv(this.#simulation.env), drivers });
    this.#simulation.scheduler.reporters.push(() => describeGraph(graph));
    await graph.open({
      driver: "raw",
      "node-name": "disk",
      discard: "unmap",
      file: {
        driver: "x-blocklayer-simulated",
        "node-name": "file",
        discard: "unmap",
        medium: "medium",
        "request-alignment": BLOCK,
        "max-transfer": this.#options.maxTransfer ?? 0,
      },
    });
    const disk = await graph.createBackend({ node: "disk", perm: ["consistent-read", "write"] });
    return { graph: graph as unknown as Graph, disk };
  }

  async #judge(graph: Graph, disk: WritableBackend): Promise<void> {
    const simulation = this.#simulation;
    await readAndCheck(simulation, disk, this.#oracle, { offset: 0, length: disk.size });
    const problem = this.#oracle.recover(this.#stable());
    if (problem !== undefined) simulation.fail("wrong data after a crash", problem);
    checkGraph(graph);
    const inFlight = disk.inFlight + this.#medium.inFlight;
    simulation.expect(inFlight === 0, "left in flight", () => `${inFlight} requests`);
    await disk.close();
    await graph.close();
    await simulation.scheduler.rest();
    await simulation.expectNothingPending();
  }

  /** What a crash leaves at the least. */
  #stable(): Uint8Array {
    const { cache } = this.#medium;
    const content = new Uint8Array(this.#medium.size);
    for (let at = 0; at < content.length; at += cache.sectorSize) {
      content.set(cache.version(at / cache.sectorSize, 0), at);
    }
    return content;
  }
}
