import type { Random } from "@blocklayer/env";
import { type DecisionSource, trimmed } from "./decisions.ts";
import { type Outcome, runSeed } from "./run-seed.ts";
import type { World } from "./simulation.ts";

/** Lists that are kept of a world; older ones make room. */
const KEPT_MAX = 400;
/** Changes that a list gets at once, at most. */
const CHANGES_MAX = 4;
/** Random decisions that are put behind the end, at most. */
const TAIL_MAX = 40;

/**
 * Looks for lives that no seed would draw: keeps the decisions of each life that did something new, and changes them a
 * little.
 *
 * New is what comes right after what in the trace, and which rare situations happen in one life.
 *
 * @see docs/reliability.md section 3.3.5
 */
export class NoveltySearch {
  readonly #world: World;
  readonly #random: Random;
  readonly #kept: (readonly number[])[] = [];
  readonly #features = new Set<number>();

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
  }

  /** Lists that are kept. */
  get kept(): number {
    return this.#kept.length;
  }

  /** Things that were seen. */
  get features(): number {
    return this.#features.size;
  }

  /** Lives one life: a fresh one now and then, else a changed one. @param onBegin - told of it before it begins */
  async step(onBegin?: (source: DecisionSource) => void): Promise<Outcome> {
    const isFresh = this.#kept.length === 0 || this.#random.below(8) === 0;
    const source = isFresh ? this.#random.u32() : this.#changed();
    onBegin?.(source);
    const outcome = await runSeed(this.#world, source, { keepsFeatures: true });
    if (this.#learn(outcome)) {
      if (this.#kept.length === KEPT_MAX) this.#kept.splice(this.#random.below(KEPT_MAX), 1);
      this.#kept.push(trimmed(outcome.decisions));
    }
    return outcome;
  }

  #learn({ features, counts }: Outcome): boolean {
    const before = this.#features.size;
    for (const feature of features) this.#features.add(feature);
    const situations = [...counts.keys()];
    for (const one of situations) {
      for (const two of situations) if (one <= two) this.#features.add(pairHash(one, two));
    }
    return this.#features.size > before;
  }

  #changed(): number[] {
    const random = this.#random;
    let list = [...this.#any()];
    for (let changes = 1 + random.below(CHANGES_MAX); changes > 0; changes -= 1) {
      list = this.#changedOnce(list);
    }
    return list;
  }

  #changedOnce(list: readonly number[]): number[] {
    const random = this.#random;
    const at = random.below(list.length + 1);
    const length = 1 + random.below(8);
    switch (random.below(6)) {
      case 0:
        return list.toSpliced(at, 1, random.below(8));
      case 1:
        return list.toSpliced(at, length);
      case 2:
        return list.toSpliced(at, 0, ...list.slice(at, at + length));
      case 3:
        return list.toSpliced(at, 0, random.below(4));
      case 4:
        return [...list.slice(0, at), ...this.#any().slice(at)];
      default:
        return [...list.slice(0, at), ...this.#tail()];
    }
  }

  #any(): readonly number[] {
    return this.#kept[this.#random.below(Math.max(1, this.#kept.length))] ?? [0];
  }

  #tail(): number[] {
    return Array.from({ length: this.#random.below(TAIL_MAX) }, () => this.#random.below(16));
  }
}

function pairHash(one: string, two: string): number {
  let hash = 0x811c9dc5;
  for (const letter of `${one}|${two}`) {
    hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 0x01000193);
  }
  return hash;
}
