import { type BlockNode, checkGraph, type DrainHold, type Edge } from "@blocklayer/block-graph";
import type { FreezeHold } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import fc from "fast-check";
import { expect, it } from "vitest";
import { ALL, FakeParent, type Rig, rig, settle, WRITE } from "./graph-rig.ts";

/** One step of a random history; the numbers choose what is there. */
interface Act {
  readonly kind: (typeof KINDS)[number];
  readonly a: number;
  readonly b: number;
  /** Which asynchronous step of the drivers fails; 0 for none. */
  readonly failAt: number;
}

const KINDS = [
  "open",
  "insert",
  "append",
  "replace",
  "replace twice",
  "drop",
  "set backing",
  "replace child",
  "detach child",
  "attach root",
  "detach root",
  "permissions",
  "freeze",
  "thaw",
  "reopen",
  "read-only",
  "drain",
  "drain subtree",
  "drain all",
  "end drain",
  "use",
  "remove",
] as const;

const acts = fc.array(
  fc.record({
    kind: fc.constantFrom(...KINDS),
    a: fc.nat(100),
    b: fc.nat(100),
    failAt: fc.oneof(
      { arbitrary: fc.constant(0), weight: 3 },
      { arbitrary: fc.integer({ min: 1, max: 12 }), weight: 2 },
    ),
  }),
  { minLength: 5, maxLength: 40 },
);

/** The world of a history: what it holds beside the graph. */
class World {
  readonly rig: Rig = rig();
  readonly edges: Edge[] = [];
  readonly parents: FakeParent[] = [];
  readonly drains: DrainHold[] = [];
  readonly freezes: FreezeHold[] = [];
  readonly uses: { release(): Promise<void> }[] = [];
  #names = 0;

  async start(): Promise<void> {
    for (const name of ["d0", "d1", "d2"]) await this.rig.disk(name);
    await this.rig.open({ driver: "overlay", "node-name": "o0", size: 4096, backing: "d0" });
    await this.rig.open({ driver: "filter", "node-name": "f0", file: "o0" });
  }

  /** Does one step; what it refuses is thrown. */
  async act({ kind, a, b }: Act): Promise<void> {
    const { graph } = this.rig;
    const node = this.#node(a);
    const other = this.#node(b);
    const childEdge = [...node.children.values()][b % Math.max(1, node.children.size)];
    switch (kind) {
      case "open":
        await this.rig.open(this.#options(a, other.name));
        break;
      case "insert":
        await graph.insertNode(this.#filter(other.name) as never, other);
        break;
      case "append": {
        const overlay = await this.rig.open(this.#overlay(null));
        await graph.change([graph.append(overlay, other)]).catch(async (error: unknown) => {
          await graph.remove(overlay.name);
          throw error;
        });
        break;
      }
      case "replace":
        await graph.change([graph.replaceNode(node, other)]);
        break;
      case "replace twice":
        await graph.change([
          graph.replaceNode(node, other),
          graph.replaceNode(other, this.#node(a + b)),
        ]);
        break;
      case "drop":
        await graph.change([graph.dropFilter(node)]);
        break;
      case "set backing":
        await graph.change([graph.setBacking(node, b % 3 === 0 ? undefined : other)]);
        break;
      case "replace child":
        if (childEdge !== undefined) await graph.change([graph.replaceChild(childEdge, other)]);
        break;
      case "detach child":
        if (childEdge !== undefined) await graph.change([graph.detachChild(childEdge)]);
        break;
      default:
        await this.#hold(kind, a, b);
    }
  }

  async #hold(kind: Act["kind"], a: number, b: number): Promise<void> {
    const { graph } = this.rig;
    const node = this.#node(a);
    switch (kind) {
      case "attach root": {
        const parent = new FakeParent(`p${a}`, b % 4 === 0 ? "job" : "other");
        this.parents.push(parent);
        const options = {
          name: "root",
          perm: b % 2 === 0 ? WRITE : 1,
          shared: b % 3 === 0 ? 13 : ALL,
        };
        this.edges.push(await graph.attachRoot(parent, node, options));
        break;
      }
      case "detach root": {
        const [edge] = this.edges.splice(a % Math.max(1, this.edges.length), 1);
        if (edge !== undefined) await graph.detachRoot(edge);
        break;
      }
      case "permissions": {
        const edge = this.edges[a % Math.max(1, this.edges.length)];
        if (edge?.isAttached === true)
          await graph.setPermissions(edge, { perm: b % 16, shared: a % 16 });
        break;
      }
      case "freeze":
        this.freezes.push(graph.freezeChain(node));
        break;
      case "thaw":
        this.freezes.pop()?.release();
        break;
      case "reopen":
        await graph.reopen([this.#reopen(node, b), this.#reopen(this.#node(b), a)] as never);
        break;
      case "read-only":
        await graph.setReadOnly(node, b % 2 === 0);
        break;
      case "use":
        if (b % 2 === 0) this.uses.push(node.use("a test"));
        else await this.uses.pop()?.release();
        break;
      case "remove":
        await graph.remove(node.name);
        break;
      default:
        await this.#drain(kind, node, a);
    }
  }

  async #drain(kind: Act["kind"], node: BlockNode, a: number): Promise<void> {
    if (kind === "end drain") this.drains.splice(a % Math.max(1, this.drains.length), 1)[0]?.end();
    else if (kind === "drain") this.drains.push(await node.drain());
    else if (kind === "drain subtree") this.drains.push(await node.drainSubtree());
    else this.drains.push(await this.rig.graph.drainAll());
  }

  /** Does steps one after the other, among those of others; what is refused is no matter here. */
  async actAll(steps: readonly Act[], delay: number): Promise<void> {
    for (const act of steps) {
      for (let turn = 0; turn < delay; turn += 1) await Promise.resolve();
      await this.act(act).catch((error: unknown) => {
        if (!(error instanceof BlockError) && !(error instanceof AggregateError)) throw error;
      });
    }
  }

  /** Lets go of everything. */
  async finish(): Promise<void> {
    this.rig.script.onStep = () => undefined;
    for (const hold of this.drains.splice(0)) hold.end();
    for (const hold of this.freezes.splice(0)) hold.release();
    for (const edge of this.edges.splice(0)) await this.rig.graph.detachRoot(edge);
    for (const use of this.uses.splice(0)) await use.release();
    await settle();
    checkGraph(this.rig.graph);
    for (const parent of this.parents) expect(parent.drained).toBe(0);
    for (const node of this.rig.graph.nodes())
      expect([node.quiesceCount, node.isDriverQuiet]).toEqual([0, false]);
    await this.rig.graph.close();
    expect([this.rig.graph.nodes().length, this.rig.graph.core.shells.size]).toEqual([0, 0]);
  }

  #node(index: number): BlockNode {
    const nodes = this.rig.graph.nodes();
    const node = nodes[index % Math.max(1, nodes.length)];
    if (node === undefined) throw new BlockError("ENOENT", "no node is left");
    return node;
  }

  #options(a: number, other: string): Record<string, unknown> {
    if (a % 3 === 0) return { driver: "disk", "node-name": this.#name("d") };
    return a % 3 === 1 ? this.#filter(other) : this.#overlay(other);
  }

  #filter(file: string): Record<string, unknown> {
    return { driver: "filter", "node-name": this.#name("f"), file };
  }

  #overlay(backing: string | null): Record<string, unknown> {
    const file = { driver: "disk", "node-name": this.#name("of") };
    return { driver: "overlay", "node-name": this.#name("o"), size: 4096, file, backing };
  }

  #reopen(node: BlockNode, b: number): Record<string, unknown> {
    const children = [...node.children.values()].map(({ name, nodeName }) => [name, nodeName]);
    const own = node.driverName === "overlay" ? { size: 4096 } : {};
    return {
      driver: node.driverName,
      "node-name": node.name,
      "read-only": b % 4 === 0,
      ...own,
      ...Object.fromEntries(children),
      ...(node.driverName === "overlay"
        ? { backing: b % 3 === 0 ? null : this.#node(b).name }
        : {}),
    };
  }

  #name(prefix: string): string {
    this.#names += 1;
    return `${prefix}-${this.#names}`;
  }
}

/** What an act may legitimately leave changed although it failed: the node is gone, only its closing failed. */
function mayHaveChanged(kind: Act["kind"], error: unknown): boolean {
  if (error instanceof AggregateError) return true;
  const closes = kind === "remove" || kind === "detach root" || kind === "use";
  return closes && String(error).includes("failed as told");
}

it("random surgery with failures anywhere keeps every rule, and what fails changes nothing", async () => {
  await fc.assert(
    fc.asyncProperty(acts, async (history) => {
      const world = new World();
      await world.start();
      const { graph, script } = world.rig;
      for (const act of history) {
        const before = checkGraph(graph);
        let steps = 0;
        script.onStep = (step) => {
          steps += 1;
          if (steps === act.failAt) throw new BlockError("EIO", `${step} failed as told`);
        };
        try {
          await world.act(act);
        } catch (error) {
          // A programming mistake has no code.
          if (!(error instanceof AggregateError)) expect(error).toHaveProperty("code");
          if (!mayHaveChanged(act.kind, error)) expect(checkGraph(graph)).toBe(before);
        }
        script.onStep = () => undefined;
        checkGraph(graph);
      }
      await world.finish();
      // Every driver that was opened was closed, once (GR-6).
      const closed = script.log.filter((line) => line.endsWith(" close"));
      expect(new Set(closed).size).toBe(closed.length);
    }),
    { numRuns: 200 },
  );
});

it("random surgery by several at once keeps every rule", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.array(fc.record({ act: acts, delay: fc.nat(6) }), { minLength: 1, maxLength: 3 }),
        {
          minLength: 1,
          maxLength: 3,
        },
      ),
      fc.array(fc.nat(8), { minLength: 1, maxLength: 20 }),
      fc.nat(40),
      async (rounds, turns, failEvery) => {
        const world = new World();
        await world.start();
        const { script } = world.rig;
        let steps = 0;
        script.turns = () => turns[steps % turns.length] ?? 0;
        script.onStep = (step) => {
          steps += 1;
          if (failEvery > 4 && steps % failEvery === 0) {
            throw new BlockError("EIO", `${step} failed as told`);
          }
        };
        for (const round of rounds) {
          await Promise.all(round.map(({ act, delay }) => world.actAll(act, delay)));
          await settle();
          checkGraph(world.rig.graph);
        }
        await world.finish();
        const closed = script.log.filter((line) => line.endsWith(" close"));
        expect(new Set(closed).size).toBe(closed.length);
      },
    ),
    { numRuns: 200 },
  );
});
