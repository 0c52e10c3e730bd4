import { assert } from "@blocklayer/errors";

export interface BufferBudgetOptions {
  /** Bytes of all accounts together. */
  readonly total: number;
  /** Bytes of one account. */
  readonly perAccount: number;
  /** Number of accounts that are expected at most; each is guaranteed a part of half the total. */
  readonly accounts: number;
}

/** Longest guaranteed part, bytes. */
const GUARANTEE_MAX = 1024 * 1024;

/**
 * The memory that the data of requests may take, shared fairly.
 *
 * Each account has a small part that nobody can take from it: four greedy clients can not stop the small requests of
 * the fifth. Beyond it accounts draw from what is shared, and when that is used up those who hold least come first.
 *
 * @see docs/reliability.md section 3.6.3
 */
export class BufferBudget {
  readonly #perAccount: number;
  readonly #guarantee: number;
  readonly #shared: number;
  /** Who waits, with the bytes asked for, in order of arrival. */
  readonly #waiting = new Map<BufferAccount, number>();
  #sharedUsed: number = 0;
  #used: number = 0;

  constructor(options: BufferBudgetOptions) {
    const accounts = Math.max(1, options.accounts);
    this.#perAccount = options.perAccount;
    this.#guarantee = Math.min(GUARANTEE_MAX, Math.floor(options.total / 2 / accounts));
    this.#shared = options.total - this.#guarantee * accounts;
  }

  /** Bytes in use. */
  get used(): number {
    return this.#used;
  }

  /** Number of accounts that wait for memory. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Opens an account.
   *
   * @param wake - called when memory that was refused may be there now; asks again
   */
  open(wake: () => void): BufferAccount {
    return new BufferAccount(this, wake);
  }

  /** For {@link BufferAccount}: whether `bytes` more are there. Who is refused waits. */
  admits(account: BufferAccount, bytes: number): boolean {
    const wanted = account.held + bytes;
    if (wanted > this.#perAccount && account.held > account.kept) {
      // Only its own requests can make room, and they ask again when they end.
      this.#waiting.delete(account);
      return false;
    }
    if (wanted <= this.#guarantee || this.#mayDraw(account, bytes)) {
      this.#waiting.delete(account);
      return true;
    }
    this.#waiting.set(account, bytes);
    return false;
  }

  /** For {@link BufferAccount}: what an account holds has changed. */
  changed(account: BufferAccount, heldBefore: number): void {
    const { held } = account;
    assert(held >= 0, "an account gives back what it took");
    this.#used += held - heldBefore;
    this.#sharedUsed += this.#beyond(held) - this.#beyond(heldBefore);
    if (this.#waiting.size > 0) this.#wakeNext();
  }

  /** For {@link BufferAccount}. */
  closed(account: BufferAccount): void {
    if (this.#waiting.delete(account)) this.#wakeNext();
  }

  #beyond(held: number): number {
    return Math.max(0, held - this.#guarantee);
  }

  #mayDraw(account: BufferAccount, bytes: number): boolean {
    if (!this.#fits(account, bytes)) return false;
    // The same order as that of waking, or two that hold the same would leave it to each other for ever.
    for (const other of this.#waiting.keys()) {
      if (other === account) return !this.#waitsAnyBelow(account.held);
      if (other.held <= account.held) return false;
    }
    return true;
  }

  #waitsAnyBelow(held: number): boolean {
    for (const other of this.#waiting.keys()) if (other.held < held) return true;
    return false;
  }

  #fits(account: BufferAccount, bytes: number): boolean {
    const more = this.#beyond(account.held + bytes) - this.#beyond(account.held);
    // A request larger than everything shared is served alone rather than never.
    return this.#sharedUsed + more <= this.#shared || this.#sharedUsed === 0;
  }

  #wakeNext(): void {
    let next: BufferAccount | undefined;
    for (const account of this.#waiting.keys()) {
      if (next === undefined || account.held < next.held) next = account;
    }
    if (next !== undefined && this.#fits(next, this.#waiting.get(next) ?? 0)) next.wake();
  }
}

/** What one connection holds of a {@link BufferBudget}. */
export class BufferAccount {
  readonly #budget: BufferBudget;
  readonly wake: () => void;
  /** Bytes. */
  held: number = 0;
  /** Bytes of these that no request has asked for. */
  kept: number = 0;

  constructor(budget: BufferBudget, wake: () => void) {
    this.#budget = budget;
    this.wake = wake;
  }

  /** Takes memory if there is enough. After `false` the account is woken when it may ask again. */
  take(bytes: number): boolean {
    if (!this.#budget.admits(this, bytes)) return false;
    this.#change(bytes);
    return true;
  }

  give(bytes: number): void {
    this.#change(-bytes);
  }

  /** Charges memory that can not be refused, because it is in use already. */
  keep(bytes: number): void {
    this.kept += bytes;
    this.#change(bytes);
  }

  /** The end of {@link BufferAccount.keep}. */
  release(bytes: number): void {
    this.kept -= bytes;
    this.#change(-bytes);
  }

  #change(bytes: number): void {
    const before = this.held;
    this.held = before + bytes;
    this.#budget.changed(this, before);
  }

  /** Stops waiting. */
  close(): void {
    this.#budget.closed(this);
  }
}
