import { type BlockNode, type Edge, type EdgeParent, Graph } from "@blocklayer/block-graph";
import {
  type BlockDriver,
  type DriverDefinition,
  type DriverFlags,
  defineDriver,
  FilterDriver,
  type NodeHost,
  type PermissionSet,
  type PreparedReopen,
  type ReopenChange,
  Role,
} from "@blocklayer/driver";
import { ReferenceDisk } from "@blocklayer/driver-tests";
import { type Env, manualEnv } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { object, optional, size, string } from "@blocklayer/schema";

/** What the drivers of a rig do and when they fail; set by tests. */
export class Script {
  /** What drivers were told, in order: `top open`, `top drainBegin`. */
  readonly log: string[] = [];
  /** Steps that fail: `top open`, `disk preparePermissions`. */
  readonly fail: Map<string, string> = new Map();
  /** Steps that wait until their promise resolves. */
  readonly wait: Map<string, Promise<void>> = new Map();
  /** Called at every asynchronous step; may throw. */
  onStep: (step: string) => void = () => undefined;
  /** How many microtasks an asynchronous step takes at least. */
  turns: () => number = () => 0;

  /** A step of a driver that may wait and fail. */
  async step(node: string, what: string): Promise<void> {
    this.#note(node, what);
    this.onStep(`${node} ${what}`);
    for (let turn = this.turns(); turn > 0; turn -= 1) await Promise.resolve();
    await this.wait.get(`${node} ${what}`);
  }

  /** A step that may not wait. */
  now(node: string, what: string): void {
    this.#note(node, what);
  }

  #note(node: string, what: string): void {
    const step = `${node} ${what}`;
    this.log.push(step);
    const code = this.fail.get(step);
    if (code !== undefined) throw new BlockError(code, `${step} failed as told`, { node });
  }
}

/** A promise and what settles it. */
export interface Gate {
  readonly promise: Promise<void>;
  open(): void;
}

export function gate(): Gate {
  let open: () => void = () => undefined;
  const promise = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { promise, open };
}

/** A disk whose life is told to the script. */
class DiskDriver extends ReferenceDisk {
  override readonly driverName: string = "disk";
  readonly #host: NodeHost;
  readonly #script: Script;

  constructor(host: NodeHost, script: Script, options: { size: number; alignment: number }) {
    super({ size: options.size, limits: { requestAlignment: options.alignment }, growing: true });
    this.#host = host;
    this.#script = script;
  }

  override async pread(offset: number, buffer: Uint8Array): Promise<void> {
    await this.#script.wait.get(`${this.#host.nodeName} pread`);
    return super.pread(offset, buffer);
  }

  preparePermissions({ perm, shared }: PermissionSet): Promise<void> {
    return this.#script.step(this.#host.nodeName, `preparePermissions ${perm}/${shared}`);
  }

  checkPermissions(): void {
    const code = this.#script.fail.get(`${this.#host.nodeName} checkPermissions`);
    if (code !== undefined) throw new BlockError(code, "refused by the driver");
  }

  setPermissions({ perm, shared }: PermissionSet): void {
    this.#script.now(this.#host.nodeName, `setPermissions ${perm}/${shared}`);
  }

  abortPermissions(): void {
    this.#script.now(this.#host.nodeName, "abortPermissions");
  }

  drainBegin(): Promise<void> {
    return this.#script.step(this.#host.nodeName, "drainBegin");
  }

  drainEnd(): void {
    this.#script.now(this.#host.nodeName, "drainEnd");
  }

  inactivate(): Promise<void> {
    return this.#script.step(this.#host.nodeName, "inactivate");
  }

  activate(): Promise<void> {
    return this.#script.step(this.#host.nodeName, "activate");
  }

  async prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    const { nodeName } = this.#host;
    await this.#script.step(nodeName, `prepareReopen ${change.readOnly ? "ro" : "rw"}`);
    return {
      commit: () => this.#script.now(nodeName, "commitReopen"),
      abort: () => this.#script.now(nodeName, "abortReopen"),
      clean: () => this.#script.step(nodeName, "cleanReopen"),
    };
  }

  override async close(): Promise<void> {
    await super.close();
    await this.#script.step(this.#host.nodeName, "close");
  }
}

/** An overlay or a filter without behaviour of its own, with the permissions that its options say. */
class LayerDriver extends FilterDriver {
  readonly driverName: string;
  readonly #host: NodeHost;
  readonly #script: Script;
  readonly #options: LayerOptions;

  constructor(name: string, host: NodeHost, script: Script, options: LayerOptions) {
    // A layer whose only child comes later reads it from its host.
    super(host.children.get("file") ?? host.children.get("backing") ?? NO_CHILD);
    this.driverName = name;
    this.#host = host;
    this.#script = script;
    this.#options = options;
  }

  override get size(): number {
    return this.#first?.size ?? this.#options.size ?? 0;
  }

  override get flags(): DriverFlags {
    return { read: 0, write: 0, zeroes: 0, truncateZero: false };
  }

  get #first(): BlockDriver | undefined {
    const edge = this.#host.children.get("file") ?? this.#host.children.get("backing");
    return edge as BlockDriver | undefined;
  }

  override pread(offset: number, buffer: Uint8Array): Promise<void> {
    const child = this.#host.children.get("file") ?? this.#host.children.get("backing");
    return child?.pread(offset, buffer) ?? Promise.resolve(void buffer.fill(0));
  }

  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    const child = this.#host.children.get("file");
    return child?.pwrite(offset, buffer) ?? Promise.resolve();
  }

  drainBegin(): Promise<void> {
    return this.#script.step(this.#host.nodeName, "drainBegin");
  }

  drainEnd(): void {
    this.#script.now(this.#host.nodeName, "drainEnd");
  }

  override async prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    const { nodeName } = this.#host;
    await this.#script.step(nodeName, `prepareReopen ${change.readOnly ? "ro" : "rw"}`);
    return {
      commit: () => this.#script.now(nodeName, "commitReopen"),
      abort: () => this.#script.now(nodeName, "abortReopen"),
    };
  }

  override close(): Promise<void> {
    return this.#script.step(this.#host.nodeName, "close");
  }
}

const NO_CHILD = { size: 0 } as never;

interface LayerOptions {
  readonly size?: number;
  readonly tag?: string;
  readonly mode?: string;
}

interface DiskOptions {
  readonly size: number;
  readonly alignment: number;
}

export interface LayerSettings {
  readonly name: string;
  readonly children: DriverDefinition["children"];
  readonly isFilter?: boolean;
  readonly supportsBacking?: boolean;
  /** What its driver takes on its children. */
  readonly permissions?: BlockDriver["childPermissions"];
  readonly canReopen?: boolean;
  /** Gets the node's host. */
  readonly onOpen?: (host: NodeHost) => void;
}

/** A definition of a layer: opens the children that its options name. */
export function layer<const Name extends string>(
  script: Script,
  settings: LayerSettings & { readonly name: Name },
): DriverDefinition<Name, LayerOptions, "file" | "backing" | "target" | "fl1" | "fl2"> {
  return defineDriver({
    driverName: settings.name,
    schema: object({ size: optional(size()), tag: optional(string()), mode: optional(string()) }),
    children: settings.children as never,
    isFilter: settings.isFilter ?? false,
    isProtocol: false,
    supportsBacking: settings.supportsBacking ?? false,
    reopenable: ["tag"],
    open: async (host, options) => {
      await script.step(host.nodeName, "open");
      for (const { name, role } of settings.children) {
        if (host.childOption(name) === "given") await host.openChild(name, role as number);
      }
      await script.step(host.nodeName, "opened");
      const driver = new LayerDriver(settings.name, host, script, options);
      settings.onOpen?.(host);
      const { permissions: childPermissions, canReopen } = settings;
      if (childPermissions !== undefined) Object.assign(driver, { childPermissions });
      if (canReopen === false) Object.assign(driver, { prepareReopen: undefined });
      return driver;
    },
  });
}

/** The drivers that tests use: `disk`, `filter`, `overlay`, `fork`, and those a test adds. */
export function definitions(script: Script): readonly DriverDefinition[] {
  const disk: DriverDefinition<"disk", DiskOptions> = {
    driverName: "disk",
    schema: object({ size: optional(size(), 1 << 20), alignment: optional(size(), 1) }),
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    open: async (host, options) => {
      await script.step(host.nodeName, "open");
      return new DiskDriver(host, script, options);
    },
  };
  return [
    disk,
    layer(script, {
      name: "filter",
      isFilter: true,
      children: [
        { name: "file", role: Role.filtered | Role.primary, required: false },
        { name: "target", role: Role.data, required: false },
      ],
    }),
    layer(script, {
      name: "overlay",
      supportsBacking: true,
      children: [
        { name: "file", role: Role.image, required: false },
        { name: "backing", role: Role.cow, required: false },
      ],
    }),
    layer(script, {
      name: "plain",
      children: [{ name: "file", role: Role.data | Role.primary, required: true }],
    }),
    layer(script, {
      name: "stiff",
      canReopen: false,
      children: [{ name: "file", role: Role.data | Role.primary, required: true }],
    }),
  ];
}

export interface Rig {
  readonly graph: Graph;
  readonly script: Script;
  readonly lines: string[];
  /** Opens a node. */
  open(options: Readonly<Record<string, unknown>>): Promise<BlockNode>;
  /** Opens a disk of a name. */
  disk(name: string, options?: Readonly<Record<string, unknown>>): Promise<BlockNode>;
}

export function rig(
  more: (script: Script) => readonly DriverDefinition[] = () => [],
  env: Env = manualEnv(),
): Rig {
  const script = new Script();
  const lines: string[] = [];
  const graph = new Graph({
    env,
    drivers: [...definitions(script), ...more(script)],
    log: (line) => lines.push(line),
  });
  const open = (options: Readonly<Record<string, unknown>>): Promise<BlockNode> =>
    graph.open(options as never);
  return {
    graph,
    script,
    lines,
    open,
    disk: (name, options = {}) => open({ driver: "disk", "node-name": name, ...options }),
  };
}

/** A parent that counts what it is told; stands for jobs and exports. */
export class FakeParent implements EdgeParent {
  readonly kind: EdgeParent["kind"];
  readonly name: string;
  readonly staysAtNode: boolean;
  drained = 0;
  events: string[] = [];
  busy: Gate | undefined = undefined;
  onDrainedEnd: () => void = () => undefined;

  constructor(
    name: string,
    kind: EdgeParent["kind"] = "other",
    staysAtNode: boolean = kind === "job",
  ) {
    this.name = name;
    this.kind = kind;
    this.staysAtNode = staysAtNode;
  }

  describe(): string {
    return this.kind === "job" ? `fake job '${this.name}'` : `export '${this.name}'`;
  }

  drainedBegin(): void {
    this.drained += 1;
    this.events.push("begin");
  }

  drainedEnd(): void {
    this.drained -= 1;
    this.events.push("end");
    if (this.drained < 0) throw new Error("told of an end without a begin");
    this.onDrainedEnd();
  }

  drainedPoll(): Promise<void> | undefined {
    return this.busy?.promise;
  }

  resized(edge: Edge): void {
    this.events.push(`resized ${edge.size}`);
  }

  nodeChanged(edge: Edge): void {
    this.events.push(`node ${edge.nodeName}`);
  }
}

/** Lets everything that is ready run. */
export async function settle(): Promise<void> {
  for (let count = 0; count < 50; count += 1) await Promise.resolve();
}

export const ALL = 15;
export const WRITE = 3;
