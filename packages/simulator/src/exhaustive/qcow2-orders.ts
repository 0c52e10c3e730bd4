import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { qcow2Definition } from "@blocklayer/qcow2";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { stableBytes } from "../worlds/qcow2-disk.ts";
import { madeImage } from "../worlds/qcow2-images.ts";
import type { Qcow2Shape } from "../worlds/qcow2-plan.ts";
import { describeProblems, readStructure } from "../worlds/qcow2-structure.ts";
import { describeGraph } from "../worlds/request-layer.ts";
import { type Place, plainEnv, type RequestKind, readAndCheck, sendRequest } from "./requests.ts";
import { tuples } from "./tuples.ts";

const CLUSTER = 512;
const CLUSTERS = 2;

const SHAPE: Qcow2Shape = {
  version: "v3",
  clusterSize: CLUSTER,
  extendedL2: false,
  refcountBits: 16,
  lazyRefcounts: false,
  size: CLUSTERS * CLUSTER,
  capacity: CLUSTERS * CLUSTER,
  cellSize: CLUSTER,
  backing: "none",
  backingSize: 0,
  isCrowded: false,
  hasUnknown: false,
  options: {},
  discard: "unmap",
};

/** A request, and the cluster it is for. */
export interface ClusterRequest {
  readonly kind: RequestKind;
  readonly cluster: number;
}

export interface Qcow2OrdersOptions {
  readonly name: string;
  /** Lists of requests that are sent, one after the other without waiting. */
  readonly sequences: readonly (readonly ClusterRequest[])[];
  /** Whether each request but the first is sent at any moment; otherwise all are sent in one turn. Default `false`. */
  readonly atAnyMoment?: boolean;
  /** Whether what the file reads comes at once: only changes and flushes are ordered. Default `true`. */
  readonly readsAtOnce?: boolean;
}

/**
 * Concurrent requests to an image of two clusters, the first of them written, whose file completes in any order. A
 * cluster that was given up may be used again while a write is still on its way to it. Judged by the register oracle and by the
 * structure of the image, also of what would be left after the power fails at the end.
 */
export function qcow2Orders(options: Qcow2OrdersOptions): World {
  return {
    name: options.name,
    situations: [],
    run: (simulation) => new Qcow2Orders(simulation, options).live(),
  };
}

class Qcow2Orders {
  readonly #simulation: Simulation;
  readonly #options: Qcow2OrdersOptions;
  readonly #oracle: RegisterOracle;

  constructor(simulation: Simulation, options: Qcow2OrdersOptions) {
    this.#simulation = simulation;
    this.#options = options;
    this.#oracle = new RegisterOracle({ disk: 1, size: SHAPE.size, cellSize: CLUSTER });
  }

  async live(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const { sequences, atAnyMoment = false, readsAtOnce = true } = this.#options;
    const medium = await this.#make();
    const { graph, disk } = await this.#open(medium);
    const requests = sequences[decisions.choose("sequence", sequences.length)] ?? [];
    const prompt = readsAtOnce ? (["read", "status"] as const) : [];
    medium.behaviour = { atOnce: 0, later: 1, early: 0, slow: 0, faults: 0, prompt };
    await Promise.all(
      requests.map(({ kind, cluster }, index) => {
        const place: Place = { offset: cluster * CLUSTER, length: CLUSTER };
        return this.#simulation.operation(`${kind} ${cluster}`, async () => {
          if (atAnyMoment && index > 0) await scheduler.turn("send");
          await sendRequest(this.#simulation, disk, this.#oracle, kind, place);
        });
      }),
    );
    medium.behaviour = { atOnce: 1, later: 0, early: 0, slow: 0, faults: 0 };
    await this.#judge(graph, disk, medium);
  }

  /** The first cluster is there, in an image that was closed. */
  async #make(): Promise<Medium> {
    const operation = this.#oracle.begin("write", 0, CLUSTER);
    const image = await madeImage(SHAPE, SHAPE.size, this.#oracle.payload(operation));
    this.#oracle.end(operation, true, true);
    const medium = this.#simulation.medium({
      name: "image",
      size: image.length,
      grows: true,
      discard: "scramble",
    });
    medium.format(image);
    return medium;
  }

  async #open(medium: Medium): Promise<{ readonly graph: Graph; readonly disk: WritableBackend }> {
    const drivers = [qcow2Definition(), simulatedDisk(new Map([["image", medium]]))] as const;
    const graph = new Graph({ env: plainEnv(this.#simulation.env), drivers });
    this.#simulation.scheduler.reporters.push(() => describeGraph(graph as unknown as Graph));
    await graph.open({
      driver: "qcow2",
      "node-name": "disk",
      discard: "unmap",
      // A timer is one more thing that can come at any moment.
      "cache-clean-interval": 0,
      file: { driver: "x-blocklayer-simulated", medium: "image", discard: "unmap" },
    });
    const disk = await graph.createBackend({ node: "disk", perm: ["consistent-read", "write"] });
    return { graph: graph as unknown as Graph, disk };
  }

  async #judge(graph: Graph, disk: WritableBackend, medium: Medium): Promise<void> {
    const simulation = this.#simulation;
    this.#judgeStructure(readStructure(stableBytes(medium)).problems, "after a crash");
    await readAndCheck(simulation, disk, this.#oracle, { offset: 0, length: disk.size });
    checkGraph(graph);
    await disk.close();
    await graph.close();
    const { problems, leaks, marks } = readStructure(medium.cache.visible);
    this.#judgeStructure([...problems, ...leaks, ...marks], "closed");
    await simulation.scheduler.rest();
    await simulation.expectNothingPending();
  }

  #judgeStructure(problems: readonly string[], when: string): void {
    const problem = describeProblems(problems);
    if (problem !== undefined) this.#simulation.fail("structure", `${when}: ${problem}`);
  }
}

const [A, B] = [0, 1];

/**
 * The two forms in which a freed cluster can be hit by a late write: it is given up while it is written, and it is used
 * again, by another guest cluster, while the first write is still on its way.
 */
export const LATE_WRITES: readonly (readonly ClusterRequest[])[] = [
  [
    { kind: "write", cluster: A },
    { kind: "discard", cluster: A },
    { kind: "flush", cluster: A },
  ],
  [
    { kind: "write", cluster: A },
    { kind: "discard", cluster: A },
    { kind: "write", cluster: A },
  ],
  [
    { kind: "write", cluster: A },
    { kind: "discard", cluster: A },
    { kind: "write", cluster: B },
  ],
];

/** As above, up to the use of what was freed: by the same cluster, and by one that had no place yet. */
export const REUSED_CLUSTERS: readonly (readonly ClusterRequest[])[] = [A, B].map((cluster) => [
  { kind: "write", cluster: A },
  { kind: "discard", cluster: A },
  { kind: "flush", cluster: A },
  { kind: "write", cluster },
]);

/** All triples of writes, discards and flushes on two clusters. */
export function clusterTriples(): ClusterRequest[][] {
  const one: readonly ClusterRequest[] = [
    { kind: "write", cluster: A },
    { kind: "discard", cluster: A },
    { kind: "write", cluster: B },
    { kind: "discard", cluster: B },
    { kind: "flush", cluster: A },
  ];
  return tuples(one, 3);
}

/** All pairs of requests for the same cluster, and for two. */
export function clusterPairs(kinds: readonly RequestKind[]): ClusterRequest[][] {
  return kinds.flatMap((first) =>
    kinds.flatMap((second) => [
      [
        { kind: first, cluster: A },
        { kind: second, cluster: A },
      ],
      [
        { kind: first, cluster: A },
        { kind: second, cluster: B },
      ],
    ]),
  );
}
