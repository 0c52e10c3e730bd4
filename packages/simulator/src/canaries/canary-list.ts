import { backupCanaries } from "./backup-canaries.ts";
import type { Canary } from "./canary.ts";
import { requestLayerCanaries } from "./request-layer-canaries.ts";

/** The planted bugs, by the world that finds them. */
export const canaries: readonly Canary[] = [...requestLayerCanaries, ...backupCanaries];
