import { type BlockNode, checkGraph, Graph, type GraphStep } from "@blocklayer/block-graph";
import {
  type BlockDriver,
  type DriverDefinition,
  FilterDriver,
  type NodeHost,
  Role,
} from "@blocklayer/driver";
import { ReferenceDisk } from "@blocklayer/driver-tests";
import { type Env, SeededScheduler } from "@blocklayer/env";
import { object } from "@blocklayer/schema";
import fc from "fast-check";
import { expect, it } from "vitest";

const SLOT = 16;
const WRITERS = 3;

/** What the disks saw. */
interface Record {
  /** Tags of writes in the order in which they came, by node. */
  readonly writes: Map<string, string[]>;
  /** Nodes that are drained by a change that is being prepared: nothing may reach them. */
  readonly closed: Set<string>;
}

/** A disk every request of which completes in a turn of the scheduler's choice. */
class SlowDisk extends ReferenceDisk {
  readonly #host: NodeHost;
  readonly #env: Env;
  readonly #record: Record;

  constructor(host: NodeHost, env: Env, record: Record) {
    super({ size: SLOT * WRITERS });
    this.#host = host;
    this.#env = env;
    this.#record = record;
  }

  override async pread(offset: number, buffer: Uint8Array): Promise<void> {
    this.#arrive();
    await this.#env.clock.sleep(0);
    await super.pread(offset, buffer);
  }

  override async pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    this.#arrive();
    const name = this.#host.nodeName;
    const seen = this.#record.writes.get(name) ?? [];
    this.#record.writes.set(name, seen);
    seen.push(`${offset}:${buffer[0]}`);
    await this.#env.clock.sleep(0);
    await super.pwrite(offset, buffer);
  }

  #arrive(): void {
    const name = this.#host.nodeName;
    expect(this.#record.closed.has(name), `a request reached the drained node ${name}`).toBe(false);
  }
}

class SlowFilter extends FilterDriver {
  readonly driverName = "filter";
  readonly #env: Env;

  constructor(host: NodeHost, env: Env) {
    const child = host.children.get("file");
    if (child === undefined) throw new Error("a filter has a file");
    super(child);
    this.#env = env;
  }

  override async pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    await this.#env.clock.sleep(0);
    await this.child.pwrite(offset, buffer);
    await this.#env.clock.sleep(0);
  }

  async drainBegin(): Promise<void> {
    await this.#env.clock.sleep(0);
  }

  drainEnd(): void {
    // Nothing of its own to resume.
  }
}

function drivers(record: Record): readonly DriverDefinition[] {
  const common = { schema: object({}), supportsBacking: false };
  const role = Role.filtered | Role.primary;
  return [
    {
      ...common,
      driverName: "disk",
      children: [],
      isFilter: false,
      isProtocol: true,
      open: (host, _options, env): Promise<BlockDriver> =>
        Promise.resolve(new SlowDisk(host, env, record)),
    },
    {
      ...common,
      driverName: "filter",
      children: [{ name: "file", role, required: true }],
      isFilter: true,
      isProtocol: false,
      open: async (host, _options, env): Promise<BlockDriver> => {
        await host.openChild("file", role);
        return new SlowFilter(host, env);
      },
    },
  ];
}

/** Says of a change when its nodes are drained, and that nothing is in flight there. */
function watched(record: Record, nodes: readonly BlockNode[]): GraphStep {
  return {
    touches: nodes,
    prepare: () => {
      for (const { name, io } of nodes) {
        expect(io.inFlight).toBe(0);
        record.closed.add(name);
      }
    },
    commit: () => {
      for (const { name } of nodes) record.closed.delete(name);
    },
    abort: () => {
      for (const { name } of nodes) record.closed.delete(name);
    },
  };
}

class Surgeon {
  readonly #graph: Graph;
  readonly #record: Record;
  readonly #env: Env;
  readonly filters: BlockNode[] = [];
  /** The disk that gets the writes. */
  current: BlockNode;
  #spare: BlockNode;
  #count = 0;

  constructor(graph: Graph, record: Record, env: Env, disks: readonly [BlockNode, BlockNode]) {
    this.#graph = graph;
    this.#record = record;
    this.#env = env;
    [this.current, this.#spare] = disks;
  }

  async operate(kind: string): Promise<void> {
    const graph = this.#graph;
    if (kind === "insert") {
      this.#count += 1;
      const options = { driver: "filter", "node-name": `f${this.#count}`, file: this.current.name };
      this.filters.push(await graph.insertNode(options as never, this.current));
    } else if (kind === "drop") {
      const filter = this.filters.pop();
      if (filter === undefined) return;
      await graph.change([watched(this.#record, [filter]), graph.dropFilter(filter)]);
      await graph.remove(filter.name);
    } else if (kind === "swap") {
      const { current } = this;
      const copy: GraphStep = {
        touches: [],
        prepare: () => {
          const from = (current.driver as SlowDisk).bytes;
          (this.#spare.driver as SlowDisk).bytes = from.slice();
        },
      };
      const nodes = [current, this.#spare];
      await graph.change([
        watched(this.#record, nodes),
        copy,
        graph.replaceNode(current, this.#spare),
      ]);
      this.current = this.#spare;
      this.#spare = current;
    } else {
      const hold = await (kind === "drain all" ? graph.drainAll() : this.current.drain());
      this.#record.closed.add(this.current.name);
      expect(this.current.io.inFlight).toBe(0);
      await this.#env.clock.sleep(0);
      this.#record.closed.delete(this.current.name);
      hold.end();
    }
  }
}

it("no write is lost, doubled or misdirected while the graph changes under it (GR-7)", async () => {
  const kinds = fc.array(fc.constantFrom("insert", "drop", "swap", "drain", "drain all"), {
    minLength: 1,
    maxLength: 10,
  });
  await fc.assert(
    fc.asyncProperty(kinds, fc.integer({ min: 1, max: 2 ** 31 }), async (operations, seed) => {
      const scheduler = new SeededScheduler({ seed });
      const { env } = scheduler;
      const record: Record = { writes: new Map(), closed: new Set() };
      const graph = new Graph({ env, drivers: drivers(record) });
      await scheduler.run(async () => {
        const a = await graph.open({ driver: "disk", "node-name": "a" });
        const b = await graph.open({ driver: "disk", "node-name": "b" });
        const surgeon = new Surgeon(graph, record, env, [a, b]);
        const backend = await graph.createBackend({ node: a, perm: ["consistent-read", "write"] });
        let isOver: boolean = false;
        const issued: string[] = [];
        const write = async (slot: number): Promise<number> => {
          let value = 0;
          for (; !isOver && value < 250; value += 1) {
            issued.push(`${slot * SLOT}:${value + 1}`);
            await backend.write(slot * SLOT, new Uint8Array(SLOT).fill(value + 1));
            const seen = new Uint8Array(SLOT);
            await backend.read(slot * SLOT, seen);
            expect(seen[0]).toBe(value + 1);
          }
          return value;
        };
        const writers = Array.from({ length: WRITERS }, (_, slot) => write(slot));
        for (const kind of operations) {
          await surgeon.operate(kind);
          checkGraph(graph);
          await env.clock.sleep(0);
        }
        isOver = true;
        const last = await Promise.all(writers);
        // Each write went to exactly one disk.
        expect(new Set([...record.writes.values()].flat())).toEqual(new Set(issued));
        expect([...record.writes.values()].flat()).toHaveLength(issued.length);
        const { bytes } = surgeon.current.driver as SlowDisk;
        expect(last.map((_, slot) => bytes[slot * SLOT])).toEqual(last);
        await backend.close();
        await graph.close();
      });
      await scheduler.settle();
      expect(scheduler.pending).toBe(0);
    }),
    { numRuns: 200 },
  );
});
