import type { BlockDriver, BlockLimits, DriverFlags, RequestOptions } from "@blocklayer/driver";
import { RequestFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { Qcow2Driver } from "@blocklayer/qcow2";
import { qcow2 } from "./image-rig.ts";

/** What a driver refuses and a graph does in its place: zeroes that are written, discards that are ignored. */
export function graphLike(driver: BlockDriver, limits: Partial<BlockLimits>): BlockDriver {
  if (!(driver instanceof Qcow2Driver)) throw new Error("the driver is none of qcow2");
  const flags: DriverFlags = { ...driver.flags };
  return new Proxy(driver, {
    get(target, name) {
      if (name === "limits") return { ...target.limits, ...limits };
      if (name === "flags") return flags;
      if (name === "truncate" && limits.requestAlignment === undefined) return undefined;
      if (name === "pwriteZeroes") {
        return (offset: number, length: number, options?: RequestOptions) =>
          zeroes(target, offset, length, options);
      }
      if (name === "pdiscard") {
        return (offset: number, length: number) => target.pdiscard(offset, length).catch(ignored);
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

async function zeroes(
  driver: Qcow2Driver,
  offset: number,
  length: number,
  options: RequestOptions = {},
): Promise<void> {
  try {
    await driver.pwriteZeroes(offset, length, options);
  } catch (error) {
    ignored(error);
    if (((options.flags ?? 0) & RequestFlag.noFallback) !== 0) throw error;
    await driver.pwrite(offset, new Uint8Array(length));
  }
}

function ignored(error: unknown): void {
  if (!(error instanceof BlockError && error.code === "ENOTSUP")) throw error;
}

/**
 * The definition of the driver as a graph shows it.
 *
 * @param limits - with a request alignment the length can be changed as well: it is one of whole sectors
 */
export function graphLikeDefinition(limits: Partial<BlockLimits> = {}): typeof qcow2 {
  return {
    ...qcow2,
    open: async (host, options, env) => graphLike(await qcow2.open(host, options, env), limits),
  };
}
