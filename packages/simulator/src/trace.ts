/** A failure that ends a run keeps this many of the last lines. */
export const TAIL_LENGTH = 12;

/** What a trace keeps beside its hash. */
export interface TraceOptions {
  /** Lines for people; cost memory and time. Default `false`. */
  readonly keepsLines?: boolean;
  /** Which kind of completion comes right after which. Default `false`. */
  readonly keepsFeatures?: boolean;
}

/** Hashes that are remembered, before all are forgotten. */
const TAGS_MAX = 100_000;
const kindHashes = new Map<string, number>();

/** Hash of a tag without its numbers. */
function kindOf(tag: string): number {
  const known = kindHashes.get(tag);
  if (known !== undefined) return known;
  const hash = hashOf(tag.replaceAll(/\d+/g, "#"));
  if (kindHashes.size === TAGS_MAX) kindHashes.clear();
  kindHashes.set(tag, hash);
  return hash;
}

const tagHashes = new Map<string, number>();

function hashOf(text: string): number {
  const known = tagHashes.get(text);
  if (known !== undefined) return known;
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  if (tagHashes.size === TAGS_MAX) tagHashes.clear();
  tagHashes.set(text, hash);
  return hash;
}

/**
 * What happened in a run, in order: always as a hash and a short tail, on demand as lines.
 *
 * Two runs with equal hashes delivered the same completions and decided alike.
 */
export class Trace {
  /** All lines, oldest first; `undefined` unless they are kept. */
  readonly lines: string[] | undefined;
  /** Hashes of pairs of completions that came one after the other; empty unless they are kept. */
  readonly features: Set<number> = new Set();
  readonly #keepsFeatures: boolean;
  readonly #tail: string[] = [];
  #lastKind = 0;
  #low = 0x811c9dc5;
  #high = 0x9e3779b9;

  constructor({ keepsLines = false, keepsFeatures = false }: TraceOptions = {}) {
    this.lines = keepsLines ? [] : undefined;
    this.#keepsFeatures = keepsFeatures;
  }

  /** 16 hexadecimal digits. */
  get hash(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, "0");
    return hex(this.#high) + hex(this.#low);
  }

  /** The last completions that were delivered, oldest first. */
  get tail(): readonly string[] {
    return this.#tail;
  }

  /** A completion is delivered. */
  delivered(tag: string, nowMs: number): void {
    this.#mix(tag, nowMs);
    if (this.#keepsFeatures) this.#learn(kindOf(tag));
    this.#tail.push(tag);
    if (this.#tail.length > TAIL_LENGTH) this.#tail.shift();
    this.lines?.push(`${nowMs} ms: ${tag}`);
  }

  /** A decision is taken. @param nameOf - says what the value means: for the lines, no part of the hash */
  decided(tag: string, value: number, nameOf?: (value: number) => string | undefined): void {
    this.#mix(tag, value);
    if (value === 0 || this.lines === undefined) return;
    const name = nameOf?.(value);
    this.lines.push(name === undefined ? `  ${tag} -> ${value}` : `  ${tag} -> ${value} (${name})`);
  }

  /** Something worth a line; part of the hash like the rest. */
  note(text: string): void {
    this.#mix("note", text.length);
    this.lines?.push(`  ${text}`);
  }

  #learn(kind: number): void {
    this.features.add(Math.imul(this.#lastKind, 0x01000193) ^ kind);
    this.#lastKind = kind;
  }

  #mix(tag: string, value: number): void {
    this.#low = Math.imul(this.#low ^ hashOf(tag), 0x01000193);
    this.#low = Math.imul(this.#low ^ value, 0x85ebca6b);
    this.#high = Math.imul(this.#high ^ this.#low, 0xc2b2ae35);
    this.#high ^= this.#high >>> 15;
  }
}
