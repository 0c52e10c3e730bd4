import { Graph } from "@blocklayer/block-graph";
import { raw } from "@blocklayer/raw";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import type { Simulation, World } from "../simulation.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Claims } from "./graph-claims.ts";
import { Drains } from "./graph-drains.ts";
import { overlayDriver, transparentFilter } from "./graph-drivers.ts";
import { GraphGuest } from "./graph-guest.ts";
import { GraphModel, type ModelKind, NOWHERE, type Place } from "./graph-model.ts";
import { modelAttach } from "./graph-model-steps.ts";
import { Moves, OVERLAY_WINDOW } from "./graph-moves.ts";
import { GraphOracle } from "./graph-oracle.ts";
import { Probes } from "./graph-probe.ts";
import { Reopens } from "./graph-reopens.ts";
import { GraphSite } from "./graph-site.ts";
import { Surgeon, type WindowOptions } from "./graph-surgeon.ts";
import { Tenancy } from "./graph-tenancy.ts";
import { describeGraph } from "./request-layer.ts";

const CELL = 64;
/** Cells of a window. */
const CELLS = 16;
const WINDOW = CELL * CELLS;
/** Media with windows. */
const MEDIA = 2;
/** Media of overlays, one for each. */
const OVERLAY_MEDIA = [MEDIA + 1, MEDIA + 2];
/** Requests of a guest that is there from the beginning. */
const REQUESTS_MAX = 24;
/** The last one is for overlays. */
const WINDOWS = OVERLAY_WINDOW + 1;

/**
 * A graph that is rearranged while guests use it: filters and overlays come and go, backends are plugged from one disk
 * into another, nodes are opened, reopened, drained, frozen, handed over and closed, and much of that fails. Judged by
 * a model of the graph and its permissions, by where each write arrives, and by what reads return.
 */
export const graphWorld: World = {
  name: "graph",
  situations: [
    "a change was refused by the rules",
    "a chain was frozen",
    "a client was plugged over",
    "a disk was resized",
    "a filter was inserted",
    "a guest's request failed with EIO",
    "a guest's request failed with ENOMEDIUM",
    "a guest's request failed with EPERM",
    "a request was cancelled",
    "a watcher held a write back",
    "a watcher refused a write",
    "all nodes were handed over",
    "an operation failed where it was made to",
    "an overlay was appended",
    "drained sections were nested",
    "several nodes were reopened as one",
  ],
  run: (simulation) => new GraphLife(simulation).live(),
};

const OPERATIONS = [
  "change",
  "insert filter",
  "append overlay",
  "reopen",
  "open backend",
  "close backend",
  "claim",
  "remove",
  "open tenant",
  "close tenant",
  "permissions",
  "hand over",
] as const;
const WEIGHTS = [6, 6, 4, 4, 3, 1, 4, 2, 2, 1, 2, 1];

class GraphLife {
  readonly #simulation: Simulation;
  readonly #media: Medium[] = [];
  readonly #places: Place[][] = [];
  readonly #oracle: GraphOracle;
  readonly #model: GraphModel;
  readonly #probes: Probes;
  readonly #site: GraphSite;
  readonly #drains: Drains;
  readonly #claims: Claims;
  readonly #surgeon: Surgeon;
  readonly #reopens: Reopens;
  readonly #tenancy: Tenancy;
  readonly #graph: Graph;

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
    this.#oracle = new GraphOracle({
      cellSize: CELL,
      cells: CELLS,
      report: (kind, message) => simulation.fail(kind, message),
    });
    for (let medium = 0; medium < MEDIA; medium += 1) this.#addMedium(medium);
    // One more, whose length changes.
    this.#media.push(
      simulation.medium({ name: `medium-${MEDIA}`, size: WINDOW, sectorSize: CELL }),
    );
    this.#places.push([{ medium: MEDIA, window: 0 }]);
    // An overlay's file may grow, which nobody tolerates on a disk with windows.
    for (const medium of OVERLAY_MEDIA) this.#addMedium(medium);
    this.#probes = new Probes(simulation);
    this.#graph = this.#makeGraph();
    this.#model = new GraphModel((medium, window) => this.#place(medium, window));
    const site = new GraphSite({
      simulation,
      graph: this.#graph,
      model: this.#model,
      probes: this.#probes,
      oracle: this.#oracle,
      media: this.#media,
    });
    this.#site = site;
    const moves = new Moves(site);
    this.#drains = new Drains(site);
    this.#claims = new Claims({ site, moves });
    this.#reopens = new Reopens({ site, moves, windowOf });
    this.#tenancy = new Tenancy({ site, moves });
    this.#surgeon = new Surgeon({
      site,
      moves,
      drains: this.#drains,
      windowOf,
      freeMedia: [...OVERLAY_MEDIA],
    });
    this.#probes.onWrite = (node, offset, length, buffers) => {
      this.#claims.written(node, offset, length);
      this.#arrived(node, offset, buffers);
    };
    simulation.scheduler.reporters.push(() => describeGraph(this.#graph));
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    await this.#open();
    for (const medium of this.#media) medium.behaviour = drawBehaviour(decisions, medium.name);
    const work = [this.#drains.work(decisions.choose("drains", 5))];
    for (let count = 1 + decisions.choose("surgeons", 3); count > 0; count -= 1) {
      work.push(this.#operate(decisions.choose("operations", 12)));
    }
    await Promise.all(work);
    await this.#tenancy.settled();
    this.#simulation.calm();
    await this.#close();
  }

  async #operate(count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) {
      await this.#simulation.scheduler.turn("before the next operation");
      await this.#operation();
    }
  }

  #operation(): Promise<void> {
    switch (OPERATIONS[this.#simulation.decisions.weighted("operation", WEIGHTS, OPERATIONS)]) {
      case "insert filter":
        return this.#surgeon.insertFilter();
      case "append overlay":
        return this.#surgeon.appendOverlay();
      case "reopen":
        return this.#reopens.reopen();
      case "hand over":
        return this.#reopens.handOver();
      case "open backend":
        return this.#tenancy.openBackend();
      case "close backend":
        return this.#tenancy.closeBackend();
      case "open tenant":
        return this.#tenancy.openTenant();
      case "close tenant":
        return this.#tenancy.closeTenant();
      case "permissions":
        return this.#tenancy.changePermissions();
      case "claim":
        return this.#claims.change();
      case "remove":
        return this.#surgeon.remove();
      default:
        return this.#surgeon.change();
    }
  }

  /** Two disks, a window of each, and a guest or two. */
  async #open(): Promise<void> {
    const { decisions } = this.#simulation;
    for (const [number, { name }] of this.#media.entries()) {
      const disk = `disk-${number}`;
      const isWindow = number < MEDIA;
      const alignment = decisions.among("alignment", [1, CELL]);
      await this.#graph.open({
        driver: "x-blocklayer-simulated",
        "node-name": disk,
        discard: "unmap",
        medium: name,
        "request-alignment": alignment,
      });
      this.#add("disk", disk, number, undefined, !isWindow);
      if (number > MEDIA) continue;
      const window = `raw-${number}`;
      await this.#graph.open({
        driver: "raw",
        "node-name": window,
        discard: "unmap",
        file: disk,
        ...(isWindow ? windowOf(0) : {}),
      });
      this.#add("raw", window, 0, disk, !isWindow);
    }
    this.#site.compare("opening");
    if (decisions.chance("a disk is resized", 1, 2)) {
      await this.#tenancy.openResizer(this.#model.node(`raw-${MEDIA}`));
    }
    for (let count = 1 + decisions.choose("guests", 3); count > 0; count -= 1) {
      await this.#tenancy.openBackend(this.#model.node(`raw-${count % MEDIA}`), REQUESTS_MAX);
    }
  }

  /** Everybody lets go, and everything closes. */
  async #close(): Promise<void> {
    const simulation = this.#simulation;
    for (const client of this.#site.clients) {
      if (client instanceof GraphGuest && client.view?.includes(NOWHERE) === false) {
        await client.readAll();
      }
    }
    // A claim may be all that holds a node.
    const isClaimLast = simulation.decisions.chance("claims last", 1, 2);
    if (isClaimLast) await this.#tenancy.closeAll();
    await this.#claims.releaseAll();
    if (!isClaimLast) await this.#tenancy.closeAll();
    const left = this.#graph
      .nodes()
      .filter(({ io, quiesceCount }) => io.inFlight + quiesceCount > 0);
    const names = left.map(({ name }) => name).join(", ");
    simulation.expect(left.length === 0, "left in flight or drained", () => names);
    this.#model.nodes.clear();
    await this.#graph.close();
    simulation.expect(this.#graph.core.shells.size === 0, "nodes left", () => "after close");
    for (const { name, cache, inFlight } of this.#media) {
      const what = (): string => `${name}: ${inFlight} in flight, ${cache.dirtySectors} not stable`;
      simulation.expect(inFlight + cache.dirtySectors === 0, "not stable after close", what);
    }
    this.#probes.expectAllClosed();
    await simulation.expectNothingPending();
  }

  #add(
    kind: ModelKind,
    name: string,
    number: number,
    file: string | undefined,
    isApart: boolean,
  ): void {
    const node = {
      isApart,
      ...({
        isRoot: false,
        name,
        kind,
        number,
        readOnly: false,
        isJealous: false,
        isImage: false,
      } as const),
      ...{ label: "", heirOf: undefined, isOwned: true, uses: 0, changes: 0, blocks: 0 },
    };
    this.#model.nodes.set(name, node);
    if (file !== undefined) modelAttach(this.#model, node, "file", "file", this.#model.node(file));
    this.#model.grant();
  }

  #addMedium(number: number): void {
    const medium = this.#simulation.medium({
      name: `medium-${number}`,
      size: WINDOWS * WINDOW,
      sectorSize: CELL,
    });
    this.#media.push(medium);
    const content = new Uint8Array(WINDOWS * WINDOW);
    this.#places.push(
      Array.from({ length: WINDOWS }, (_, window) => {
        const place = { medium: number, window };
        const isOverlay = window === OVERLAY_WINDOW;
        content.set(this.#oracle.addPlace(place, isOverlay), window * WINDOW);
        return place;
      }),
    );
    medium.format(content);
  }

  #makeGraph(): Graph {
    const media = new Map(this.#media.map((medium) => [medium.name, medium]));
    const probes = this.#probes;
    const drivers = [
      probes.watched(simulatedDisk(media)),
      probes.watched(raw),
      probes.watched(transparentFilter),
      probes.watched(overlayDriver(CELL)),
    ] as const;
    const graph = new Graph({ env: this.#simulation.env, drivers }) as unknown as Graph;
    graph.use(probes.extension());
    return graph;
  }

  #place(medium: number, window: number): Place {
    return this.#places[medium]?.[window] as Place;
  }

  /** Data reach a disk: it is a window of it that they are for. */
  #arrived(node: string, offset: number, buffers: readonly Uint8Array[]): void {
    const medium = this.#places.findIndex((_, number) => node === `disk-${number}`);
    if (medium < 0 || medium === MEDIA) return;
    let at = offset;
    for (const buffer of buffers) {
      const window = Math.floor(at / WINDOW);
      this.#oracle.arrived(this.#place(medium, window), at - window * WINDOW, buffer);
      at += buffer.length;
    }
  }
}

function windowOf(window: number): WindowOptions {
  return { offset: window * WINDOW, size: WINDOW };
}
