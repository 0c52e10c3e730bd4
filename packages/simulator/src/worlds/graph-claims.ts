import type { NodeUse, OperationBlock } from "@blocklayer/block-graph";
import type { FreezeHold } from "@blocklayer/driver";
import { type ModelEdge, type ModelNode, refuseIf } from "./graph-model.ts";
import { modelChain } from "./graph-model-steps.ts";
import type { Moves } from "./graph-moves.ts";
import type { GraphSite } from "./graph-site.ts";
import { WriteWatch } from "./graph-write-watch.ts";

/** Something that is held until it is let go of. */
interface Claim {
  readonly name: string;
  release(): Promise<void>;
}

const KINDS = ["watch", "freeze", "use", "block"] as const;

export interface ClaimsParts {
  readonly site: GraphSite;
  readonly moves: Moves;
}

/** What holds nodes and links where they are, and who watches them: uses by name, blocked commands, freezes, observers. */
export class Claims {
  readonly #site: GraphSite;
  readonly #moves: Moves;
  readonly #claims: Claim[] = [];
  readonly #watches = new Map<string, Set<WriteWatch>>();

  constructor({ site, moves }: ClaimsParts) {
    this.#site = site;
    this.#moves = moves;
  }

  /** A change of content is handed to a node's driver. */
  written(node: string, offset: number, length: number): void {
    for (const watch of this.#watches.get(node) ?? []) watch.written(offset, length);
  }

  /** Makes a claim, or lets go of one. */
  async change(): Promise<void> {
    const { decisions } = this.#site.simulation;
    if (this.#claims.length > 0 && decisions.chance("lets go", 1, 2)) {
      await this.#release(decisions.choose("claim", this.#claims.length));
      return;
    }
    const node = this.#moves.pickShown();
    if (node === undefined) return;
    switch (decisions.among("claim kind", KINDS)) {
      case "watch":
        return this.#watch(node);
      case "freeze":
        return this.#freeze(node);
      case "use":
        return this.#use(this.#moves.pickUnowned() ?? node);
      case "block":
        return this.#block(node);
    }
  }

  async releaseAll(): Promise<void> {
    while (this.#claims.length > 0) await this.#release(0);
  }

  async #release(index: number): Promise<void> {
    const [claim] = this.#claims.splice(index, 1);
    await claim?.release();
  }

  async #use(node: ModelNode): Promise<void> {
    const { model } = this.#site;
    let use: NodeUse | undefined;
    await this.#site.perform({
      name: `use ${node.name}`,
      change: () => {
        refuseIf(model.nodes.get(node.name) !== node, "it is gone");
        node.uses += 1;
      },
      run: (commit) => {
        use = this.#site.node(node.name).use("a claim");
        commit();
        return Promise.resolve();
      },
    });
    if (use === undefined) return;
    const { release } = use;
    const claim = (): Promise<boolean> =>
      this.#site.perform({
        name: `use ${node.name} no more`,
        change: () => {
          node.uses -= 1;
        },
        run: (commit) => {
          const released = release();
          // The claim is given up within the call; closing takes longer.
          commit();
          return released;
        },
      });
    this.#claims.push({ name: "use", release: () => claim().then(() => undefined) });
  }

  async #block(node: ModelNode): Promise<void> {
    const { model } = this.#site;
    let block: OperationBlock | undefined;
    const reason = `a claim on ${node.name}`;
    await this.#site.perform({
      name: `block ${node.name}`,
      change: () => {
        refuseIf(model.nodes.get(node.name) !== node, "it is gone");
        node.blocks += 1;
      },
      run: (commit) => {
        block = this.#site.node(node.name).blockOperation("drive-del", reason);
        commit();
        return Promise.resolve();
      },
    });
    if (block === undefined) return;
    const { release } = block;
    const unblock = (): Promise<boolean> =>
      this.#site.perform({
        name: `unblock ${node.name}`,
        change: () => {
          node.blocks -= 1;
        },
        run: (commit) => {
          release();
          commit();
          return Promise.resolve();
        },
      });
    this.#claims.push({ name: "block", release: () => unblock().then(() => undefined) });
  }

  async #freeze(top: ModelNode): Promise<void> {
    const { graph, model, simulation } = this.#site;
    const base = simulation.decisions.chance("to the end", 1, 2)
      ? undefined
      : this.#moves.pickShown();
    let hold: FreezeHold | undefined;
    let edges: readonly ModelEdge[] = [];
    await this.#site.perform({
      name: `freeze from ${top.name} down to ${base?.name ?? "the end"}`,
      change: () => {
        for (const node of [top, base]) {
          refuseIf(node !== undefined && model.nodes.get(node.name) !== node, "it is gone");
        }
        edges = modelChain(model, top, base);
        refuseIf(
          edges.some(({ frozen }) => frozen > 0),
          "it is frozen",
        );
        for (const edge of edges) edge.frozen += 1;
      },
      run: (commit) => {
        const realBase = base === undefined ? undefined : this.#site.node(base.name);
        hold = graph.freezeChain(this.#site.node(top.name), realBase);
        commit();
        return Promise.resolve();
      },
    });
    const held = hold;
    if (held === undefined) return;
    if (edges.length > 0) simulation.sometimes("a chain was frozen");
    const thaw = (): Promise<boolean> =>
      this.#site.perform({
        name: `thaw ${top.name}`,
        change: () => {
          for (const edge of edges) edge.frozen = Math.max(0, edge.frozen - 1);
        },
        run: (commit) => {
          held.release();
          commit();
          return Promise.resolve();
        },
      });
    this.#claims.push({ name: "freeze", release: () => thaw().then(() => undefined) });
  }

  /** Somebody watches writes, from an instant in which there are none. */
  async #watch(node: ModelNode): Promise<void> {
    const { simulation, probes } = this.#site;
    const { name } = node;
    let watch: WriteWatch | undefined;
    let added: Disposable | undefined;
    await this.#site.perform({
      name: `watch ${name}`,
      change: () => refuseIf(this.#site.model.nodes.get(name) !== node, "it is gone"),
      run: async (commit) => {
        const real = this.#site.node(name);
        const hold = await real.drain();
        watch = new WriteWatch(simulation, name);
        added = real.addObserver(watch);
        const busy = probes.all.get(name)?.inFlight ?? 0;
        simulation.expect(busy === 0, "drained in flight", () => `${busy} requests of ${name}`);
        commit();
        hold.end();
      },
    });
    const one = watch;
    if (one === undefined) return;
    const watches = this.#watches.get(name) ?? new Set();
    this.#watches.set(name, watches.add(one));
    this.#claims.push({
      name: "watch",
      release: async () => {
        await this.#site.perform({
          name: `watch ${name} no more`,
          change: () => undefined,
          run: (commit) => {
            watches.delete(one);
            added?.[Symbol.dispose]();
            commit();
            return Promise.resolve();
          },
        });
      },
    });
  }
}
