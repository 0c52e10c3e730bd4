import type { DrainHold } from "@blocklayer/block-graph";
import { assert } from "@blocklayer/errors";
import type { ModelNode } from "./graph-model.ts";
import type { GraphSite } from "./graph-site.ts";

/** A drained section that is open: of a node, of a node and what is below it, or of everything. */
export type DrainedSection =
  | { readonly kind: "node" | "subtree"; readonly node: ModelNode }
  | { readonly kind: "all" };

const KINDS = ["node", "subtree", "all"] as const;
/** Sections of one actor that may be open at once. */
const SECTIONS_MAX = 3;

/**
 * Drained sections, side by side and nested, and what has to hold in them: no driver has a request in flight when a
 * section has begun, and none gets one until it ends. Which drivers these are follows from the model alone, however
 * it changes meanwhile.
 *
 * @see docs/reliability.md section 3.2, GR-5
 */
export class Drains {
  readonly #site: GraphSite;
  readonly #sections = new Set<DrainedSection>();

  constructor(site: GraphSite) {
    this.#site = site;
    site.probes.isDrained = (name) => this.isDrained(name);
  }

  /** Whether nobody may send a request to the node. */
  isDrained(name: string): boolean {
    if (this.#sections.size === 0) return false;
    const node = this.#site.model.nodes.get(name);
    if (node === undefined) return false;
    return [...this.#sections].some((section) => this.#covers(section, node));
  }

  /** A section has begun: nothing is in flight where nothing may be. */
  add(section: DrainedSection): void {
    const { model, probes, simulation } = this.#site;
    this.#sections.add(section);
    for (const node of model.nodes.values()) {
      if (!this.#covers(section, node)) continue;
      const inFlight = probes.all.get(node.name)?.inFlight ?? 0;
      simulation.expect(
        inFlight === 0,
        "drained in flight",
        () => `${inFlight} requests of ${node.name}`,
      );
    }
  }

  delete(section: DrainedSection): void {
    this.#sections.delete(section);
  }

  /** Begins sections and ends them, in any order. */
  async work(count: number): Promise<void> {
    const { simulation } = this.#site;
    const { decisions, scheduler } = simulation;
    const open: { readonly section: DrainedSection; readonly hold: DrainHold }[] = [];
    const end = (): void => {
      const [ended] = open.splice(decisions.choose("section to end", open.length), 1);
      if (ended === undefined) return;
      this.delete(ended.section);
      ended.hold.end();
    };
    for (let index = 0; index < count; index += 1) {
      await scheduler.turn("a moment without drains");
      if (open.length === SECTIONS_MAX) end();
      const section = this.#draw();
      if (section === undefined) continue;
      const hold = await simulation.operation(describe(section), () => this.#begin(section));
      this.add(section);
      open.push({ section, hold });
      if (open.length > 1) simulation.sometimes("drained sections were nested");
      await scheduler.turn("drained");
      if (decisions.chance("ends a section", 2, 3)) end();
    }
    while (open.length > 0) {
      await scheduler.turn("still drained");
      end();
    }
  }

  #draw(): DrainedSection | undefined {
    const { model, simulation } = this.#site;
    const { decisions } = simulation;
    const kind = decisions.among("drain", KINDS);
    if (kind === "all") return { kind };
    const nodes = [...model.nodes.values()].filter(({ name }) => this.#site.isOpen(name));
    const node = nodes[decisions.choose("drained node", Math.max(1, nodes.length))];
    return node === undefined ? undefined : { kind, node };
  }

  #begin(section: DrainedSection): Promise<DrainHold> {
    const { graph } = this.#site;
    if (section.kind === "all") return graph.drainAll();
    const node = graph.findNode(section.node.name);
    assert(node !== undefined, "an open node is drained");
    return section.kind === "node" ? node.drain() : node.drainSubtree();
  }

  #covers(section: DrainedSection, node: ModelNode): boolean {
    if (section.kind === "all") return true;
    const { model } = this.#site;
    if (model.nodes.get(section.node.name) !== section.node) return false;
    const below = model.subtree(node);
    if (section.kind === "node") return below.has(section.node);
    return [...model.subtree(section.node)].some((one) => below.has(one));
  }
}

function describe(section: DrainedSection): string {
  return section.kind === "all" ? "drain all" : `drain ${section.kind} ${section.node.name}`;
}
