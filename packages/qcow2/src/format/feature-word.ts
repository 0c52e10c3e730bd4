import { readU32, writeU32 } from "@blocklayer/offsets";

/** A word of 64 feature bits. Those that have a meaning here are all in its lower half. */
export class FeatureWord {
  static readonly none: FeatureWord = new FeatureWord(0, 0);
  readonly #high: number;
  readonly #low: number;

  constructor(high: number, low: number) {
    this.#high = high >>> 0;
    this.#low = low >>> 0;
  }

  static read(bytes: Uint8Array, position: number): FeatureWord {
    return new FeatureWord(readU32(bytes, position), readU32(bytes, position + 4));
  }

  write(bytes: Uint8Array, position: number): void {
    writeU32(bytes, position, this.#high);
    writeU32(bytes, position + 4, this.#low);
  }

  /** Whether any of the bits of the lower half is set. */
  has(bits: number): boolean {
    return (this.#low & bits) !== 0;
  }

  /** With these bits of the lower half set. */
  with(bits: number): FeatureWord {
    return new FeatureWord(this.#high, this.#low | bits);
  }

  /** With these bits of the lower half cleared. */
  without(bits: number): FeatureWord {
    return new FeatureWord(this.#high, this.#low & ~bits);
  }

  /** Only these bits of the lower half. */
  only(bits: number): FeatureWord {
    return new FeatureWord(0, this.#low & bits);
  }

  get isEmpty(): boolean {
    return this.#high === 0 && this.#low === 0;
  }

  equals(other: FeatureWord): boolean {
    return this.#high === other.#high && this.#low === other.#low;
  }

  /** Numbers of the bits that are set, smallest first. */
  bits(): number[] {
    const set: number[] = [];
    for (let bit = 0; bit < 64; bit += 1) {
      const word = bit < 32 ? this.#low : this.#high;
      if (((word >>> (bit % 32)) & 1) === 1) set.push(bit);
    }
    return set;
  }

  /** The bits that are set and not among `bits`, as hexadecimal digits. */
  hexWithout(bits: readonly number[]): string {
    const rest = this.bits().filter((bit) => !bits.includes(bit));
    const value = rest.reduce((sum, bit) => sum + 2n ** BigInt(bit), 0n);
    return value.toString(16);
  }
}
