import type { Decisions } from "../decisions.ts";
import type { VolatileCache } from "./volatile-cache.ts";

/** Sectors that a crash treats otherwise than the others. */
const EXCEPTIONS_MAX = 8;

/** What a crash made of the sectors that were not stable. */
export interface CrashOutcome {
  readonly sectors: ReadonlyMap<number, Uint8Array>;
  /** Sectors that are not their newest version. */
  readonly lost: number;
  /** Sectors that are part of one version and part of another. */
  readonly torn: number;
  /** Whether the length is not the newest one. */
  readonly isResized: boolean;
}

/**
 * Decides what a crash makes of the length, then of the sectors that were not flushed: all are kept, or all are lost, but for a few
 * that are any version, or torn between two. So little has to be decided, and shrunk, where little matters.
 *
 * @param tearSize - bytes; default: nothing is torn
 * @see docs/reliability.md section 3.3.7
 */
export function crashOutcome(
  cache: VolatileCache,
  name: string,
  decisions: Decisions,
  tearSize: number = cache.sectorSize,
): CrashOutcome {
  const isResized = loseSize(cache, name, decisions);
  const undecided = cache.undecided();
  const sectors = new Map<number, Uint8Array>();
  if (undecided.length === 0) return { sectors, lost: 0, torn: 0, isResized };
  const keepsAll = !decisions.chance(`${name} crash loses all`, 1, 2);
  const lost = new Set<number>();
  for (const { sector, versionCount } of undecided) {
    const newest = versionCount - 1;
    sectors.set(sector, cache.version(sector, keepsAll ? newest : 0));
    if (!keepsAll) lost.add(sector);
  }
  let torn = 0;
  const bound = Math.min(undecided.length, EXCEPTIONS_MAX) + 1;
  const exceptions = decisions.choose(`${name} crash exceptions`, bound);
  for (let count = 0; count < exceptions; count += 1) {
    const choice = undecided[decisions.choose(`${name} crash sector`, undecided.length)];
    if (choice === undefined) continue;
    const { sector, versionCount } = choice;
    const version = decisions.choose(`${name} crash version`, versionCount);
    const bytes = cache.version(sector, version).slice();
    const parts = cache.sectorSize / tearSize;
    if (parts > 1 && decisions.chance(`${name} crash tears`, 1, 3)) {
      const other = cache.version(sector, decisions.choose(`${name} torn with`, versionCount));
      const cut = decisions.choose(`${name} torn at`, parts) * tearSize;
      bytes.set(other.subarray(0, cut));
      torn += 1;
    }
    sectors.set(sector, bytes);
    if (version === versionCount - 1) lost.delete(sector);
    else lost.add(sector);
  }
  return { sectors, lost: lost.size, torn, isResized };
}

/** Takes one of the lengths that were since the last stable one; 0 for the newest. */
function loseSize(cache: VolatileCache, name: string, decisions: Decisions): boolean {
  const { size, possibleSizes } = cache;
  const newest = possibleSizes.length - 1;
  cache.loseSize(newest - decisions.choose(`${name} crash size`, possibleSizes.length));
  return cache.size !== size;
}
