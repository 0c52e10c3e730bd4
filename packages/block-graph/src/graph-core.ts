import type { DriverDefinition, ImageReferencePolicy } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError, Emitter } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import type { GraphEvents, GraphExtension } from "./events.ts";
import { Links } from "./links.ts";
import { Mutex } from "./mutex.ts";

/**
 * The state that the parts of a graph share. For this package; users have `Graph`.
 *
 * Lock order: `surgery` before `permissions`. A tracked request waits for neither.
 */
export class GraphCore {
  readonly env: Env;
  readonly policy: ImageReferencePolicy;
  readonly log: (line: string) => void;
  readonly events: Emitter<GraphEvents> = new Emitter();
  /** Nodes that can be found, by name. */
  readonly nodes: Map<string, BlockNode> = new Map();
  /** All nodes that live, also those that are opening or closing. */
  readonly shells: Set<BlockNode> = new Set();
  readonly extensions: Set<GraphExtension> = new Set();
  readonly links: Links = new Links();
  /** Held for the whole of a change of the graph. */
  readonly surgery: Mutex;
  /** Held while drivers get ready for new permissions. */
  readonly permissions: Mutex;
  /** Drained sections of the whole graph. */
  drainAllCount = 0;
  readonly #definitions: Map<string, DriverDefinition> = new Map();
  readonly #nodeNames: Set<string> = new Set();
  readonly #deviceNames: Set<string> = new Set();
  #nextGenerated = 0;

  constructor(
    env: Env,
    drivers: readonly DriverDefinition[],
    policy: ImageReferencePolicy,
    log: (line: string) => void,
  ) {
    this.env = env;
    this.policy = policy;
    this.log = log;
    this.surgery = new Mutex(env, "graph surgery");
    this.permissions = new Mutex(env, "graph permissions");
    for (const definition of drivers) {
      for (const name of [definition.driverName, ...(definition.aliases ?? [])]) {
        if (this.#definitions.has(name)) throw new TypeError(`two drivers are named '${name}'`);
        this.#definitions.set(name, definition);
      }
    }
  }

  /** Tells listeners. One that throws is logged: it cannot break what it is told of. */
  tell<Name extends keyof GraphEvents>(name: Name, value: GraphEvents[Name]): void {
    try {
      this.events.emit(name, value);
    } catch (error) {
      this.log(`a listener of '${name}' failed: ${String(error)}`);
    }
  }

  definition(driverName: string): DriverDefinition | undefined {
    return this.#definitions.get(driverName);
  }

  /**
   * Takes a node name, so that nobody else gets it while the node is opening.
   *
   * @throws BlockError `EINVAL` no such name is possible; `EEXIST` it is taken
   */
  claimNodeName(name: string): void {
    if (!/^[A-Za-z][A-Za-z0-9._-]*$/.test(name)) {
      throw new BlockError("EINVAL", `Invalid node-name: '${name}'`, { node: name });
    }
    if (this.#deviceNames.has(name)) {
      const message = `node-name=${name} is conflicting with a device id`;
      throw new BlockError("EEXIST", message, { node: name });
    }
    if (this.#nodeNames.has(name)) {
      throw new BlockError("EEXIST", `Duplicate nodes with node-name='${name}'`, { node: name });
    }
    if (name.length > NODE_NAME_MAX) {
      throw new BlockError("EINVAL", "Node name too long", { node: name, limit: NODE_NAME_MAX });
    }
    this.#nodeNames.add(name);
  }

  releaseNodeName(name: string): void {
    this.#nodeNames.delete(name);
  }

  /** A name that no user can choose. */
  generateNodeName(): string {
    const name = `#block${String(this.#nextGenerated).padStart(3, "0")}`;
    this.#nextGenerated += 1;
    this.#nodeNames.add(name);
    return name;
  }

  /**
   * Takes the name of a block device, which no node may have.
   *
   * @throws BlockError `EEXIST` a node or another device has it
   */
  claimDeviceName(name: string): Disposable {
    if (this.#nodeNames.has(name) || this.#deviceNames.has(name)) {
      const kind = this.#nodeNames.has(name) ? "node" : "device";
      throw new BlockError(
        "EEXIST",
        `Device name '${name}' conflicts with an existing ${kind} name`,
        {
          device: name,
        },
      );
    }
    this.#deviceNames.add(name);
    return { [Symbol.dispose]: () => void this.#deviceNames.delete(name) };
  }

  /**
   * The open node of a name.
   *
   * @throws BlockError `ENOENT`
   */
  node(name: string, text: (name: string) => string): BlockNode {
    const node = this.nodes.get(name);
    if (node === undefined) throw new BlockError("ENOENT", text(name), { node: name });
    return node;
  }
}

const NODE_NAME_MAX = 31;

/** How commands that take a device or a node report a name that is neither. */
export function deviceNotFound(name: string): string {
  return `Cannot find device='' nor node-name='${name}'`;
}

/** How options report a child that is not there. */
export function referenceNotFound(name: string): string {
  return `Cannot find device='${name}' nor node-name='${name}'`;
}

/** How commands that take a node report a name that is none. */
export function nodeNotFound(name: string): string {
  return `Failed to find node with node-name='${name}'`;
}
