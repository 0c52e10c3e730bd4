import {
  type ChildSpec,
  type DriverDefinition,
  type GenericNodeOptions,
  Role,
  type RoleMask,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import {
  boolean,
  describeProblems,
  enumeration,
  type Infer,
  object,
  optional,
  type Schema,
  string,
} from "@blocklayer/schema";
import { type GraphCore, referenceNotFound } from "./graph-core.ts";
import type { NodeSpec } from "./node-spec.ts";

const genericSchema = object({
  "node-name": optional(string()),
  "read-only": optional(boolean()),
  "auto-read-only": optional(boolean()),
  discard: optional(enumeration("ignore", "unmap", "off", "on")),
  "detect-zeroes": optional(enumeration("off", "on", "unmap")),
  cache: optional(object({ direct: optional(boolean()), "no-flush": optional(boolean()) })),
  "force-share": optional(boolean()),
});

type Generic = Infer<typeof genericSchema>;
type Members = Readonly<Record<string, unknown>>;

const GENERIC_NAMES = new Set(Object.keys(genericSchema.fields));

/** Where in a tree of options a node stands. */
export interface TreePosition {
  /** What messages put before the names of options: `""`, `"file"`. */
  readonly path: string;
  /** The node whose options define this one inline, and what it is to it. */
  readonly parent?: {
    readonly spec: Pick<NodeSpec, "generic" | "autoReadOnly">;
    readonly role: RoleMask;
  };
  /** The name the node has already; otherwise one is taken, or made. */
  readonly existingName?: string;
  /** How a name that is no node's is reported. Default {@link referenceNotFound}. */
  readonly notFound?: (name: string) => string;
}

/**
 * Parses the options of a node and of everything that is defined inside them, before anything is opened.
 *
 * Node names are taken in `claimed`; the caller gives back those that no node came to use.
 *
 * @throws BlockError `EINVAL` options are wrong; `ENOENT` a name refers to no node; `EEXIST` a name is taken
 */
export function parseTree(
  core: GraphCore,
  value: unknown,
  claimed: Set<string>,
  at: TreePosition,
): NodeSpec {
  if (!isMembers(value)) throw typeError(at.path, "object");
  const { driver } = value;
  const definition = findDefinition(core, driver, at.path);
  const { own, generic, children } = split(value, definition);
  const parsed = check(genericSchema, generic, at.path);
  const driverOptions = check(definition.schema, own, at.path);
  const spec = {
    definition,
    driverOptions,
    written: { ...generic, ...own, driver: definition.driverName },
    ...resolveGeneric(parsed, at.parent),
  };
  const name = at.existingName ?? claimName(core, parsed["node-name"], claimed);
  const { notFound = referenceNotFound } = at;
  const parsedChildren = new Map<string, NodeSpec | string | null>();
  for (const child of definition.children) {
    const parent = { spec, role: roleOf(child, driverOptions) };
    for (const [edgeName, option] of childOptions(child, children, at.path)) {
      const position = { path: join(at.path, edgeName), parent, notFound };
      parsedChildren.set(edgeName, parseChild(core, option, claimed, child, position));
    }
  }
  return { ...spec, name, children: parsedChildren };
}

/** The same options of a node under a parent whose own have changed: what was written stays, the rest follows. */
export function inheritAgain(spec: NodeSpec, parent: TreePosition["parent"]): NodeSpec {
  const written = Object.entries(spec.written).filter(([name]) => GENERIC_NAMES.has(name));
  const generic = check(genericSchema, Object.fromEntries(written), "");
  return { ...spec, ...resolveGeneric(generic, parent) };
}

/** Parses what stands for a child: a name, `null`, or options. */
function parseChild(
  core: GraphCore,
  option: unknown,
  claimed: Set<string>,
  child: ChildSpec,
  at: TreePosition,
): NodeSpec | string | null {
  if (option === null && !child.required) return null;
  if (typeof option === "string") {
    core.node(option, at.notFound ?? referenceNotFound);
    return option;
  }
  if (!isMembers(option)) {
    throw typeError(at.path, child.required ? "BlockdevRef" : "BlockdevRefOrNull");
  }
  return parseTree(core, option, claimed, at);
}

/** The options that stand for one kind of child: of an array, one for each element. */
function childOptions(
  child: ChildSpec,
  given: ReadonlyMap<string, unknown>,
  path: string,
): readonly (readonly [string, unknown])[] {
  const option = given.get(child.name);
  if (Array.isArray(option)) {
    return option.map((element: unknown, index) => [`${child.name}.${index}`, element] as const);
  }
  if (option !== undefined) return [[child.name, option]];
  if (!child.required) return [];
  const message = `Parameter '${join(path, child.name)}' is missing`;
  throw new BlockError("EINVAL", message, { parameter: join(path, child.name) });
}

export function roleOf(child: ChildSpec, driverOptions: unknown): RoleMask {
  return typeof child.role === "function" ? child.role(driverOptions as never) : child.role;
}

/**
 * The generic options of a node: what was written, else what its parent hands down, else the defaults.
 *
 * @see spec/graph.md section 1, "Inheritance parent -> implicit child"
 */
function resolveGeneric(
  written: Generic,
  parent: TreePosition["parent"],
): Pick<NodeSpec, "generic" | "autoReadOnly"> {
  const inherited = parent?.spec.generic;
  // A backing node is not written by default, whatever its overlay is.
  const isCow = parent !== undefined && (parent.role & Role.cow) !== 0;
  const generic: GenericNodeOptions = {
    readOnly: written["read-only"] ?? (isCow || (inherited?.readOnly ?? false)),
    discard: discardOf(written.discard ?? (parent === undefined ? "ignore" : "unmap")),
    detectZeroes: written["detect-zeroes"] ?? "off",
    cacheDirect: written.cache?.direct ?? inherited?.cacheDirect ?? false,
    cacheNoFlush: written.cache?.["no-flush"] ?? inherited?.cacheNoFlush ?? false,
    forceShare: written["force-share"] ?? inherited?.forceShare ?? false,
  };
  checkGeneric(generic);
  const autoReadOnly =
    written["auto-read-only"] ?? (isCow ? false : (parent?.spec.autoReadOnly ?? false));
  return { generic, autoReadOnly };
}

function checkGeneric(generic: GenericNodeOptions): void {
  if (generic.detectZeroes === "unmap" && generic.discard !== "unmap") {
    throw new BlockError(
      "EINVAL",
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
      { parameter: "detect-zeroes" },
    );
  }
  if (generic.forceShare && !generic.readOnly) {
    throw new BlockError("EINVAL", "force-share=on can only be used with read-only images", {
      parameter: "force-share",
    });
  }
}

function discardOf(written: "ignore" | "unmap" | "off" | "on"): "ignore" | "unmap" {
  return written === "unmap" || written === "on" ? "unmap" : "ignore";
}

function findDefinition(core: GraphCore, driver: unknown, path: string): DriverDefinition {
  const parameter = join(path, "driver");
  if (driver === undefined) {
    throw new BlockError("EINVAL", `Parameter '${parameter}' is missing`, { parameter });
  }
  if (typeof driver !== "string") throw typeError(parameter, "string");
  const definition = core.definition(driver);
  if (definition === undefined) {
    const message = `Parameter '${parameter}' does not accept value '${driver}'`;
    throw new BlockError("EINVAL", message, { parameter, driver });
  }
  return definition;
}

function claimName(core: GraphCore, written: string | undefined, claimed: Set<string>): string {
  if (written !== undefined) core.claimNodeName(written);
  const name = written ?? core.generateNodeName();
  claimed.add(name);
  return name;
}

function split(
  options: Members,
  definition: DriverDefinition,
): {
  readonly generic: Members;
  readonly own: Members;
  readonly children: ReadonlyMap<string, unknown>;
} {
  const generic: Record<string, unknown> = {};
  const own: Record<string, unknown> = {};
  const children = new Map<string, unknown>();
  const childNames = new Set<string>(definition.children.map(({ name }) => name));
  for (const [name, value] of Object.entries(options)) {
    if (name === "driver" || value === undefined) continue;
    if (childNames.has(name)) children.set(name, value);
    else if (GENERIC_NAMES.has(name)) generic[name] = value;
    else own[name] = value;
  }
  return { generic, own, children };
}

function check<T>(schema: Schema<T>, value: unknown, path: string): T {
  const result = schema.parse(value, path);
  if (result.ok) return result.value;
  const [problem] = result.problems;
  const hint = problem?.hint;
  throw new BlockError(
    "EINVAL",
    describeProblems(result.problems),
    { parameter: problem?.path, problems: result.problems },
    hint === undefined ? {} : { hint },
  );
}

function typeError(parameter: string, expected: string): BlockError {
  const message = `Invalid parameter type for '${parameter}', expected: ${expected}`;
  return new BlockError("EINVAL", message, { parameter });
}

function isMembers(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}
