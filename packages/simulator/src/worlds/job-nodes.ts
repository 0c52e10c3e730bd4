import type { DrainHold, Graph } from "@blocklayer/block-graph";
import type { BlockJob } from "@blocklayer/block-job";
import type { Simulation } from "../simulation.ts";
import type { JobRecord } from "./job-record.ts";
import type { Toy } from "./job-users.ts";

/** Names of the nodes of the graph. */
export const NODES: readonly string[] = ["node0", "node1"];

/** A drained section that is quiet. */
interface Section {
  readonly names: readonly string[];
  /** Jobs that it keeps at rest. */
  readonly held: Set<JobRecord>;
}

/** Which job holds which node, and which drained sections are quiet. */
export class JobNodes {
  readonly #simulation: Simulation;
  readonly #graph: Graph;
  readonly #toys: readonly Toy[];
  readonly #nodesOf = new Map<JobRecord, readonly string[]>();
  readonly #sections = new Set<Section>();

  /** @param toys - all jobs, those to come included */
  constructor(simulation: Simulation, graph: Graph, toys: readonly Toy[]) {
    this.#simulation = simulation;
    this.#graph = graph;
    this.#toys = toys;
  }

  /** A job is going to be made with these nodes. */
  hold(record: JobRecord, names: readonly string[]): void {
    this.#nodesOf.set(record, names);
  }

  /** Begins a drained section of the first node of a job, if it has one. */
  async drainFirst(record: JobRecord): Promise<DrainHold | undefined> {
    const [name] = this.namesOf(record);
    if (name === undefined) return undefined;
    return await this.#drained([name], () => this.#graph.node(name).drain());
  }

  /** Lets a job take hold of another node, or let go of one. */
  async change(record: JobRecord, blockJob: BlockJob): Promise<void> {
    const { decisions } = this.#simulation;
    const last = blockJob.nodes.at(-1);
    if (last !== undefined && decisions.choose("let go", 2) === 1) {
      this.#nodesOf.set(record, this.namesOf(record).slice(0, -1));
      this.#leaveSections(record);
      await blockJob.removeNode(last.edge);
      return;
    }
    const name = decisions.among("another node", ["node0", "node1"]);
    const node = this.#graph.node(name);
    if (node.isDrained) this.#simulation.sometimes("a job took hold of a drained node");
    await blockJob.addNode("another", node);
    this.#nodesOf.set(record, [...this.namesOf(record), name]);
    this.enterSections(record);
  }

  /** Begins a drained section of something. */
  drainSome(): Promise<DrainHold> {
    const { decisions } = this.#simulation;
    const name = decisions.among("node", ["node0", "node1"]);
    const node = this.#graph.node(name);
    const kind = decisions.among("drain", ["node", "subtree", "all"]);
    if (kind === "all") return this.#drained(NODES, () => this.#graph.drainAll());
    return this.#drained([name], () => (kind === "node" ? node.drain() : node.drainSubtree()));
  }

  /** From here until it ends no job at these nodes does anything. */
  async #drained(names: readonly string[], begin: () => Promise<DrainHold>): Promise<DrainHold> {
    const isAwaited = this.#toys.some(
      ({ record }) => record.isInStep && this.#holds(record, names),
    );
    if (isAwaited) this.#simulation.sometimes("a drain waited for a step");
    const hold = await begin();
    const section = { names, held: new Set<JobRecord>() };
    this.#sections.add(section);
    for (const { record } of this.#toys) {
      this.enterSections(record);
      if (record.userPaused && section.held.has(record))
        this.#simulation.sometimes("a drain met a paused job");
    }
    const end = (): void => {
      this.#sections.delete(section);
      for (const record of section.held) leave(section, record);
      hold.end();
    };
    return { end, [Symbol.dispose]: end };
  }

  /** A job has begun, or holds another node: drained sections that hold it keep it at rest. */
  enterSections(record: JobRecord): void {
    if (!record.isStarted || record.isOver) return;
    for (const { names, held } of this.#sections) {
      if (held.has(record) || !this.#holds(record, names)) continue;
      held.add(record);
      record.drained(1);
    }
  }

  #holds(record: JobRecord, names: readonly string[]): boolean {
    return this.namesOf(record).some((name) => names.includes(name));
  }

  /** Names of the nodes that a job holds, one for each hold. */
  namesOf(record: JobRecord): readonly string[] {
    return this.#nodesOf.get(record) ?? [];
  }

  #leaveSections(record: JobRecord): void {
    for (const section of this.#sections) {
      if (!this.#holds(record, section.names)) leave(section, record);
    }
  }
}

function leave(section: Section, record: JobRecord): void {
  if (section.held.delete(record)) record.drained(-1);
}
