import { type GraphModel, type ModelNode, refuseIf } from "./graph-model.ts";
import { modelReplaceChild, modelSetBacking } from "./graph-model-steps.ts";
import { type Moves, OVERLAY_WINDOW } from "./graph-moves.ts";
import type { GraphSite } from "./graph-site.ts";

type Options = { readonly driver: string; readonly "node-name": string } & Readonly<
  Record<string, unknown>
>;

/** What one node is to become. */
interface Reopening {
  readonly node: ModelNode;
  readonly readOnly: boolean;
  readonly label: string;
  readonly window: number;
  readonly file: ModelNode | undefined;
  readonly backing: ModelNode | undefined;
}

const DRIVERS = {
  disk: "x-blocklayer-simulated",
  raw: "raw",
  filter: "x-blocklayer-transparent",
  overlay: "x-blocklayer-overlay",
} as const;

export interface ReopenParts {
  readonly site: GraphSite;
  readonly moves: Moves;
  readonly windowOf: (window: number) => { readonly offset: number; readonly size: number };
}

/** Gives nodes new options, several at once, some of which they cannot have; and hands all nodes over and takes them back. */
export class Reopens {
  readonly #site: GraphSite;
  readonly #moves: Moves;
  readonly #windowOf: ReopenParts["windowOf"];
  #isReopening: boolean = false;
  #labelCount = 0;

  constructor({ site, moves, windowOf }: ReopenParts) {
    this.#site = site;
    this.#moves = moves;
    this.#windowOf = windowOf;
  }

  /** Reopens one to three nodes, all or none. */
  async reopen(): Promise<void> {
    if (this.#isReopening) return;
    this.#isReopening = true;
    try {
      await this.#reopen();
    } finally {
      this.#isReopening = false;
      this.#site.probes.onReopened = undefined;
      this.#site.probes.failingReopens.clear();
    }
  }

  /** Lets everything be handed over to another process, and takes it back. Either may fail, and leaves all as it was. */
  async handOver(): Promise<void> {
    const { graph, model, simulation, media } = this.#site;
    await this.#site.performTogether("hand over", async (perform) => {
      this.#site.handOvers += 1;
      const isOver = await perform({
        name: "inactivate",
        isDoomed: this.#makeFail(this.#site.probes.failingInactivations, true),
        change: () => {
          model.isActive = false;
        },
        run: () => graph.inactivate(),
      });
      this.#heal();
      if (!isOver) return;
      simulation.sometimes("all nodes were handed over");
      for (const { name, cache } of media) {
        const what = (): string => `${cache.dirtySectors} sectors of ${name}`;
        simulation.expect(cache.dirtySectors === 0, "handed over unflushed", what);
      }
      for (let count = simulation.decisions.choose("turns away", 4); count > 0; count -= 1) {
        await simulation.scheduler.turn("handed over");
      }
      for (let isBack = false; !isBack; ) {
        isBack = await perform({
          name: "activate",
          isDoomed: this.#makeFail(this.#site.probes.failingActivations, false),
          change: () => {
            model.isActive = true;
          },
          run: () => graph.activate(),
        });
        this.#heal();
      }
      this.#site.handOvers += 1;
    });
  }

  async #reopen(): Promise<void> {
    const { graph, probes, simulation } = this.#site;
    const { decisions } = simulation;
    const list = this.#draw();
    if (list.length === 0) return;
    const isDoomed = decisions.chance("a reopen fails", 1, 4);
    const failing = list[decisions.choose("reopen that fails", list.length)];
    if (isDoomed && failing !== undefined) probes.failingReopens.add(failing.node.name);
    const isDone = await this.#site.perform({
      name: `reopen ${list.map(({ node }) => node.name).join(", ")}${isDoomed ? ", failing" : ""}`,
      isDoomed,
      // What is not owned may be let go of meanwhile, and lives on until the reopen is done.
      isAlone: list.some(({ node }) => !node.isOwned),
      change: () => {
        const { model } = this.#site;
        const kept = list.map((one) => keptChildren(model, one));
        for (const one of list) changeModel(model, one);
        for (const [index, { node }] of list.entries()) inherit(model, node, kept[index]);
      },
      run: (commit) => {
        probes.onReopened = commit;
        return graph.reopen(list.map((one) => this.#options(one)));
      },
    });
    if (isDone && list.length > 1) simulation.sometimes("several nodes were reopened as one");
  }

  #draw(): Reopening[] {
    const { decisions } = this.#site.simulation;
    const list: Reopening[] = [];
    for (let count = 1 + decisions.choose("more reopens", 3); count > 0; count -= 1) {
      const isDisk = decisions.chance("reopens a disk", 1, 16);
      const node = isDisk ? this.#moves.pickKind("disk") : this.#moves.pickShown();
      if (node === undefined || list.some((one) => one.node === node)) continue;
      const reopening = this.#drawOne(node);
      if (reopening !== undefined) list.push(reopening);
    }
    return list;
  }

  #drawOne(node: ModelNode): Reopening | undefined {
    const { model, simulation } = this.#site;
    const { decisions } = simulation;
    const file = model.child(node, "file")?.node;
    const backing = model.child(node, "backing")?.node;
    if (file === undefined && node.kind !== "disk") return undefined;
    this.#labelCount += 1;
    const movesFile = decisions.chance("reopens over another file", 1, 4);
    const movesBacking = decisions.chance("reopens with another backing", 1, 4);
    const movesWindow = decisions.chance("reopens another window", 1, 3);
    return {
      node,
      readOnly: decisions.chance("reopens read-only", 1, 5),
      label: `label ${this.#labelCount}`,
      window: node.kind === "raw" && movesWindow ? OVERLAY_WINDOW - 1 - node.number : node.number,
      file: (movesFile ? this.#otherFile(node) : undefined) ?? file,
      backing: node.kind === "overlay" && movesBacking ? this.#moves.pickShown() : backing,
    };
  }

  /** The file of an overlay stays: what it holds belongs to it. */
  #otherFile({ kind }: ModelNode): ModelNode | undefined {
    if (kind === "filter") return this.#moves.pickShown();
    return kind === "raw" ? this.#moves.pickDisk() : undefined;
  }

  #options({ node, readOnly, label, window, file, backing }: Reopening): Options {
    const { name, kind, number, isJealous, isImage } = node;
    const own = { driver: DRIVERS[kind], "node-name": name, "read-only": readOnly };
    switch (kind) {
      case "disk":
        return { ...own, medium: `medium-${number}` };
      case "raw":
        return { ...own, ...this.#windowOf(window), file: file?.name };
      case "filter":
        return { ...own, label, jealous: isJealous, file: file?.name };
      case "overlay":
        return {
          ...{ ...own, label, metadata: isImage },
          ...{ file: file?.name, backing: backing?.name ?? null },
        };
    }
  }

  #makeFail(names: Set<string>, mayBeStubborn: boolean): boolean {
    const { model, simulation, clients } = this.#site;
    const { decisions } = simulation;
    if (!decisions.chance("the hand-over fails", 1, 4)) return false;
    // Who has just moved out is not asked any more.
    const stubborn = clients.find(
      ({ setStubborn, edge }) => setStubborn !== undefined && edge?.isAttached === true,
    );
    if (mayBeStubborn && stubborn !== undefined && decisions.chance("is stubborn", 1, 2)) {
      stubborn.setStubborn?.(true);
      return true;
    }
    const nodes = [...model.nodes.keys()];
    names.add(nodes[decisions.choose("node that fails", nodes.length)] ?? "");
    return true;
  }

  #heal(): void {
    const { probes, clients } = this.#site;
    probes.failingActivations.clear();
    probes.failingInactivations.clear();
    for (const client of clients) client.setStubborn?.(false);
  }
}

function changeModel(model: GraphModel, one: Reopening): void {
  const { node, readOnly, label, window, file, backing } = one;
  refuseIf(node.kind === "disk", "disks are not reopened");
  for (const used of [node, file, backing]) {
    refuseIf(used !== undefined && model.nodes.get(used.name) !== used, "it is gone");
  }
  node.readOnly = readOnly;
  // It was said of this one.
  node.heirOf = undefined;
  node.label = node.kind === "raw" ? "" : label;
  node.number = window;
  const edge = model.child(node, "file");
  if (edge !== undefined && file !== undefined && edge.node !== file) {
    modelReplaceChild(model, edge, file);
  }
  if (node.kind === "overlay") modelSetBacking(model, node, backing);
}

/** The children that a node has before the reopen and behind it. */
function keptChildren(
  model: GraphModel,
  { node, file, backing }: Reopening,
): ReadonlySet<ModelNode> {
  const wanted = [file, backing];
  return new Set(
    model
      .edgesOf(node)
      .map((edge) => edge.node)
      .filter((child) => wanted.includes(child)),
  );
}

/**
 * What was opened with a node, and of which nothing else was said, follows it.
 *
 * @param kept - children that the reopen does not put in; by default all of them
 */
function inherit(model: GraphModel, node: ModelNode, kept?: ReadonlySet<ModelNode>): void {
  for (const { node: child } of model.edgesOf(node)) {
    if (kept !== undefined && !kept.has(child)) continue;
    if (child.heirOf !== node || child.readOnly === node.readOnly) continue;
    child.readOnly = node.readOnly;
    inherit(model, child);
  }
}
