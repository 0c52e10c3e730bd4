import { type DriverDefinition, defineDriver, type NodeHost, Role } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { MAX_LENGTH } from "@blocklayer/offsets";
import { array, enumeration, integer, object, optional, size, string } from "@blocklayer/schema";
import { type FailureRule, MEMORY_OPERATIONS } from "./failure-rules.ts";
import { MemoryDriver } from "./memory-driver.ts";

/** Options of the driver `memory`, as a user writes them. */
export interface MemoryOptions {
  /** Bytes. Default: the size of the backing child; required without one. */
  readonly size?: number;
  /** Bytes: the unit in which memory is taken. A power of two from 512 to 2 MiB. Default 65536. */
  readonly "cluster-size": number;
  /** Makes requests fail, to see how what is above bears it. */
  readonly fail?: readonly FailureRule[];
}

const failureRule = object({
  operation: enumeration(...MEMORY_OPERATIONS),
  offset: optional(size()),
  length: optional(size({ min: 1 })),
  nth: optional(integer({ min: 1 })),
  times: optional(integer({ min: 1 })),
  code: optional(string()),
});

/**
 * The driver `memory`: a sparse disk in RAM, alone or as an overlay over a `backing` child.
 *
 * The content lives as long as the node. `fail` can be changed by a reopen.
 */
export const memory: DriverDefinition<"memory", MemoryOptions, "backing"> = defineDriver({
  driverName: "memory",
  schema: object({
    size: optional(size({ max: MAX_LENGTH })),
    "cluster-size": optional(size({ min: 512, max: 2 ** 21, powerOfTwo: true }), 65536),
    fail: optional(array(failureRule)),
  }),
  children: [{ name: "backing", role: Role.cow, required: false }],
  isFilter: false,
  isProtocol: true,
  supportsBacking: true,
  reopenable: ["fail"],
  open: openMemory,
});

async function openMemory(host: NodeHost, options: MemoryOptions): Promise<MemoryDriver> {
  const backing =
    host.childOption("backing") === "given" ? await host.openChild("backing", Role.cow) : undefined;
  const length = options.size ?? backing?.size;
  if (length === undefined) {
    throw new BlockError("EINVAL", "Parameter 'size' is missing", { node: host.nodeName });
  }
  return new MemoryDriver(host, {
    size: length,
    clusterSize: options["cluster-size"],
    ...(options.fail === undefined ? {} : { fail: options.fail }),
  });
}
