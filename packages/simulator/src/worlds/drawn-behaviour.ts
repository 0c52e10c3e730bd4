import type { Decisions } from "../decisions.ts";
import { type DiskBehaviour, PROMPT } from "../disk/disk-behaviour.ts";

/** From a disk that does everything within the call to one that is slow and fails. */
const SPEEDS = [
  PROMPT,
  { atOnce: 40, later: 80, early: 40, slow: 0, faults: 0 },
  { atOnce: 0, later: 80, early: 80, slow: 0, faults: 0 },
  { atOnce: 20, later: 80, early: 40, slow: 20, faults: 0 },
] as const satisfies readonly [DiskBehaviour, ...DiskBehaviour[]];

/** Draws how a disk behaves in this life: how fast, and whether it fails. */
export function drawBehaviour(decisions: Decisions, name: string): DiskBehaviour {
  const speed = decisions.among<DiskBehaviour>(`${name} speed`, SPEEDS);
  const faults = decisions.among(`${name} faults`, [0, 0, 1, 4]);
  // A prompt disk needs other weights to fail as often.
  return speed === PROMPT ? { ...speed, atOnce: 160, faults } : { ...speed, faults };
}
