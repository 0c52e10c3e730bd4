/** A planted bug: a change of source text that one of the worlds has to find. */
export interface Canary {
  /** Names it on the command line. */
  readonly id: string;
  /** The invariant that it breaks. @see docs/reliability.md section 3.2 */
  readonly invariant: string;
  /** What is wrong with it, as a sentence. */
  readonly bug: string;
  /** Name of the world that finds it. */
  readonly world: string;
  /** Path of the source below `packages`. */
  readonly file: string;
  /** Text that occurs once in the source. */
  readonly find: string;
  readonly replace: string;
  /** Seeds within which it has to be found. */
  readonly seedsMax: number;
}

/**
 * Returns the source with the bug in it.
 *
 * @throws Error the text does not occur, or more than once: the canary has to be brought up to date
 */
export function plant(canary: Canary, source: string): string {
  const count = source.split(canary.find).length - 1;
  if (count !== 1) {
    throw new Error(`canary ${canary.id}: its text occurs ${count} times in ${canary.file}`);
  }
  // A function, since `$` means something in a replacement.
  return source.replace(canary.find, () => canary.replace);
}
