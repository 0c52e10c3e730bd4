import { checkGraph } from "@blocklayer/block-graph";
import {
  type BlockLimits,
  type DriverDefinition,
  defineDriver,
  type NodeHost,
  type PreparedReopen,
  type ReopenChange,
} from "@blocklayer/driver";
import { ReferenceDisk } from "@blocklayer/driver-tests";
import { object, optional, size } from "@blocklayer/schema";
import { describe, expect, it } from "vitest";
import { type Rig, rig } from "./graph-rig.ts";

interface LimitedOptions {
  readonly most: number;
  readonly block: number;
  /** Whether a reopen says what it is about to change. */
  readonly tells: number;
}

const limitsOf = ({ most, block }: LimitedOptions): Partial<BlockLimits> => ({
  maxTransfer: most,
  requestAlignment: block,
});

/** A disk whose limits its user chooses. */
class LimitedDisk extends ReferenceDisk {
  override readonly driverName: string = "limited";
  readonly host: NodeHost;
  #options: LimitedOptions;

  constructor(host: NodeHost, options: LimitedOptions) {
    super({ size: 65536 });
    this.host = host;
    this.#options = options;
    Object.defineProperty(this, "limits", { get: () => limitsOf(this.#options) });
  }

  prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    const options = change.options as LimitedOptions;
    return Promise.resolve({
      ...(options.tells === 1 ? { limits: limitsOf(options) } : {}),
      commit: () => this.choose(options),
      abort: () => undefined,
    });
  }

  choose(options: LimitedOptions): void {
    this.#options = options;
  }
}

const limited = defineDriver({
  driverName: "limited",
  schema: object({
    most: optional(size(), 0),
    block: optional(size(), 1),
    tells: optional(size(), 1),
  }),
  children: [],
  isFilter: false,
  isProtocol: true,
  supportsBacking: false,
  reopenable: ["most", "block", "tells"],
  open: (host, options) => Promise.resolve(new LimitedDisk(host, options)),
}) as unknown as DriverDefinition;

const sized = (most: number, block: number, tells = 1): Record<string, unknown> => ({
  driver: "limited",
  "node-name": "n",
  most,
  block,
  tells,
});

const contradiction = {
  code: "EINVAL",
  message:
    "Node 'n': driver 'limited' takes 512 bytes at a time, less than its request alignment of 4096",
  context: { node: "n", driver: "limited", maxTransfer: 512, requestAlignment: 4096 },
};

const reopen = (r: Rig, to: Record<string, unknown>): Promise<void> =>
  r.graph.reopen([to] as never);

describe("limits that contradict each other", () => {
  it("are refused by an open, and nothing is left", async () => {
    const r = rig(() => [limited]);
    const before = checkGraph(r.graph);
    await expect(r.open(sized(512, 4096))).rejects.toMatchObject(contradiction);
    expect([checkGraph(r.graph), r.graph.core.shells.size]).toEqual([before, 0]);
    expect((await r.open(sized(4096, 4096))).limits.maxTransfer).toBe(4096);
  });

  it("are refused by a reopen, and nothing has changed", async () => {
    const r = rig(() => [limited]);
    const node = await r.open(sized(4096, 4096));
    await expect(reopen(r, sized(512, 4096))).rejects.toMatchObject(contradiction);
    expect(node).toMatchObject({
      limits: { maxTransfer: 4096 },
      spec: { written: { most: 4096 } },
    });
    await reopen(r, sized(8192, 4096));
    expect(node).toMatchObject({
      limits: { maxTransfer: 8192 },
      spec: { written: { most: 8192 } },
    });
  });

  it("are a reopen's to be told of when the driver did not say so before", async () => {
    const r = rig(() => [limited]);
    const node = await r.open(sized(4096, 4096));
    const other = await r.open({ ...sized(0, 512), "node-name": "o" });
    const list = [{ ...sized(0, 1024), "node-name": "o" }, sized(512, 4096, 0)];
    await expect(r.graph.reopen(list as never)).rejects.toMatchObject({ errors: [contradiction] });
    // It keeps what it had, and the others get what is theirs.
    expect([node.limits.maxTransfer, other.limits.requestAlignment]).toEqual([4096, 1024]);
    checkGraph(r.graph);
  });

  it("are refused when a driver tells of them later", async () => {
    const r = rig(() => [limited]);
    const node = await r.open(sized(4096, 4096));
    const driver = node.driver as LimitedDisk;
    driver.choose({ most: 512, block: 4096, tells: 1 });
    expect(() => driver.host.limitsChanged()).toThrow(expect.objectContaining(contradiction));
    expect(node.limits.maxTransfer).toBe(4096);
  });
});
