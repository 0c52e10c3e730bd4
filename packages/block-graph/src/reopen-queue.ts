import { type DriverDefinition, Role } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import { skipImplicitFilters } from "./chain.ts";
import type { Edge } from "./edge.ts";
import { deviceNotFound, type GraphCore, nodeNotFound } from "./graph-core.ts";
import type { NodeSpec } from "./node-spec.ts";
import { inheritAgain, parseTree } from "./option-tree.ts";

/** A node with the options it is to have. */
export interface ReopenEntry {
  readonly node: BlockNode;
  readonly spec: NodeSpec;
  /** Children that are to be another node, or none. */
  readonly children: ReadonlyMap<string, BlockNode | null>;
}

type Members = Readonly<Record<string, unknown>>;

/**
 * Works out which nodes a reopen is about: those listed, and those that were defined inside the options of
 * one of them and inherit from it. Parents stand before their children.
 *
 * @throws BlockError `EINVAL` an option cannot be changed; `ENOENT` a node is not there
 */
export function reopenQueue(
  core: GraphCore,
  list: readonly Members[],
  kept: readonly ReopenEntry[] = [],
): readonly ReopenEntry[] {
  const queue = new QueueBuilder(core);
  for (const [index, options] of list.entries()) queue.addListed(options, `options[${index}]`);
  for (const entry of kept) queue.add(entry);
  queue.addInheriting();
  return [...queue.entries.values()];
}

class QueueBuilder {
  readonly entries = new Map<BlockNode, ReopenEntry>();
  readonly #core: GraphCore;

  constructor(core: GraphCore) {
    this.#core = core;
  }

  add(entry: ReopenEntry): void {
    this.entries.set(entry.node, entry);
  }

  addListed(options: Members, path: string): void {
    const name = options["node-name"];
    if (typeof name !== "string") throw new BlockError("EINVAL", "node-name not specified", {});
    this.#addGiven(this.#core.node(name, nodeNotFound), options, path, undefined);
  }

  /**
   * Follows the entries down to the children that inherit from them, and that they keep. The map grows while it is
   * read.
   */
  addInheriting(): void {
    for (const { node, spec, children } of this.entries.values()) {
      for (const edge of node.children.values()) {
        if (children.has(edge.name)) continue;
        if (edge.node.inheritsFrom !== node || this.entries.has(edge.node)) continue;
        const child = inheritAgain(edge.node.spec, { spec, role: edge.role });
        if (sameValue(child.generic, edge.node.spec.generic)) continue;
        this.add({
          node: edge.node,
          spec: withAutoReadOnly(edge.node, child),
          children: new Map(),
        });
      }
    }
  }

  #addGiven(
    node: BlockNode,
    options: Members,
    path: string,
    parent: { readonly spec: NodeSpec; readonly edge: Edge } | undefined,
  ): void {
    const { driver } = options;
    if (typeof driver === "string" && this.#core.definition(driver) !== node.definition) {
      throw unchangeable(node, "driver");
    }
    const { named, inline } = separateChildren(node, options);
    const parsed = parseTree(this.#core, { ...options, ...named }, new Set(), {
      path,
      existingName: node.name,
      notFound: deviceNotFound,
      ...(parent === undefined ? {} : { parent: { spec: parent.spec, role: parent.edge.role } }),
    });
    checkOptions(node, parsed);
    const children = this.#childChanges(node, parsed);
    const spec = withAutoReadOnly(node, { ...parsed, children: node.spec.children });
    this.add({ node, spec, children });
    for (const { edge, options: childOptions } of inline) {
      this.#addGiven(edge.node, childOptions, `${path}.${edge.name}`, { spec, edge });
    }
  }

  #childChanges(node: BlockNode, parsed: NodeSpec): Map<string, BlockNode | null> {
    const changes = new Map<string, BlockNode | null>();
    for (const [name, option] of parsed.children) {
      const target = typeof option === "string" ? this.#core.node(option, deviceNotFound) : null;
      const current = node.children.get(name)?.node;
      const isSame =
        current === target ||
        (current === undefined && target === null) ||
        (current !== undefined && skipImplicitFilters(current) === target);
      if (isSame) continue;
      if (name !== "backing" && (name !== "file" || target === null))
        throw unchangeable(node, name);
      changes.set(name, target);
    }
    checkMissingChildren(node, parsed);
    return changes;
  }
}

function checkMissingChildren(node: BlockNode, parsed: NodeSpec): void {
  for (const [name, edge] of node.children) {
    if (parsed.children.has(name) || !isOptionOf(node.definition, name)) continue;
    if ((edge.role & Role.cow) !== 0) {
      const message = `backing is missing for '${node.name}'`;
      throw new BlockError("EINVAL", message, { node: node.name });
    }
    throw notResettable(node, name);
  }
}

/** Children given by name stay among the options; those given inline have an entry of their own. */
function separateChildren(
  node: BlockNode,
  options: Members,
): { named: Record<string, string>; inline: { edge: Edge; options: Members }[] } {
  const named: Record<string, string> = {};
  const inline: { edge: Edge; options: Members }[] = [];
  for (const { name } of node.definition.children) {
    const option = options[name];
    if (typeof option !== "object" || option === null) continue;
    const edge = node.children.get(name);
    if (edge === undefined || edge.node.inheritsFrom !== node) {
      throw unchangeable(node, `${name}.driver`);
    }
    const { "node-name": written, ...rest } = option as Record<string, unknown>;
    if (written !== undefined && written !== edge.node.name) {
      throw unchangeable(node, `${name}.node-name`);
    }
    named[name] = edge.node.name;
    inline.push({ edge, options: { driver: edge.node.driverName, ...rest } });
  }
  return { named, inline };
}

/** Options of the driver that are not among its changeable ones have to be what they were. */
function checkOptions(node: BlockNode, parsed: NodeSpec): void {
  const before = (node.spec.driverOptions ?? {}) as Members;
  const after = (parsed.driverOptions ?? {}) as Members;
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (sameValue(before[name], after[name])) continue;
    if (node.definition.reopenable?.includes(name) === true) continue;
    throw name in parsed.written ? unchangeable(node, name) : notResettable(node, name);
  }
}

/** A node that fell back to read-only stays so until somebody asks for more than falling back. */
function withAutoReadOnly(node: BlockNode, spec: NodeSpec): NodeSpec {
  const fellBack = node.readOnly && !node.spec.generic.readOnly;
  if (!(fellBack && spec.autoReadOnly)) return spec;
  return { ...spec, generic: { ...spec.generic, readOnly: true } };
}

function isOptionOf(definition: DriverDefinition, edgeName: string): boolean {
  return definition.children.some(({ name }) => edgeName === name);
}

function unchangeable(node: BlockNode, option: string): BlockError {
  const message = `Cannot change the option '${option}'`;
  return new BlockError("EINVAL", message, { node: node.name, parameter: option });
}

function notResettable(node: BlockNode, option: string): BlockError {
  const message = `Option '${option}' cannot be reset to its default value`;
  return new BlockError("EINVAL", message, { node: node.name, parameter: option });
}

function sameValue(left: unknown, right: unknown): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}
