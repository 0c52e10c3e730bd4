/** An L2 table that is to be looked at. */
export interface L2Visit {
  /** Bytes from the start of the host file, at a cluster. */
  readonly offset: number;
  /** L1 entries of the active disk that refer to it. */
  readonly active: number;
  /** L1 entries of snapshots that refer to it. */
  readonly inactive: number;
}

/** Tables that are collected before they are visited: about 16 MiB. */
const TABLES_MAX: number = 2 ** 17;

/**
 * Collects L2 tables and visits each of them once, in the order of the file, however many L1 entries refer to it. With
 * more than 131,072 tables it does so in several goes.
 */
export class L2Batch {
  readonly #visit: (visit: L2Visit) => Promise<void>;
  /** By offset. */
  #tables = new Map<number, { active: number; inactive: number }>();

  constructor(visit: (visit: L2Visit) => Promise<void>) {
    this.#visit = visit;
  }

  /** Returns a promise only when it has to be waited for. */
  add(offset: number, active: number, inactive: number): Promise<void> | undefined {
    const known = this.#tables.get(offset);
    if (known !== undefined) {
      known.active += active;
      known.inactive += inactive;
      return undefined;
    }
    this.#tables.set(offset, { active, inactive });
    return this.#tables.size < TABLES_MAX ? undefined : this.flush();
  }

  /** Visits all that were collected. */
  async flush(): Promise<void> {
    const tables = this.#tables;
    this.#tables = new Map();
    for (const offset of [...tables.keys()].sort((one, two) => one - two)) {
      const times = tables.get(offset);
      if (times !== undefined) await this.#visit({ offset, ...times });
    }
  }
}
