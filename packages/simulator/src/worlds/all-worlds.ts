import type { World } from "../simulation.ts";
import { backupWorld } from "./backup.ts";
import { requestLayerWorld } from "./request-layer.ts";

/** Every world there is, lower layers first. */
export const worlds: readonly World[] = [requestLayerWorld, backupWorld];

/** @throws RangeError there is no world of that name */
export function findWorld(name: string): World {
  const world = worlds.find((one) => one.name === name);
  if (world !== undefined) return world;
  const names = worlds.map((one) => one.name).join(", ");
  throw new RangeError(`there is no world '${name}'; there are: ${names}`);
}
