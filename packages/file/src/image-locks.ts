import { ALL_PERMISSIONS, formatPermissions, type Permission } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { nativeError } from "./io-error.ts";
import { Errno, type NativeCalls } from "./native-calls.ts";

/** Byte that says "I use permission i", and byte that says "I do not share permission i". */
const USED = 100;
const UNSHARED = 200;
const BIT_COUNT = 4;

/** What is locked: permissions used and permissions not shared, as bits. */
interface Claim {
  readonly used: Permission;
  readonly unshared: Permission;
}

const NOTHING: Claim = { used: 0, unshared: 0 };

/**
 * Claims on an image that other programs see: single bytes of the file, locked *shared* by everybody who claims
 * the same, on the open file description.
 *
 * To take a permission, its bytes are locked first and then it is looked whether anybody else holds the byte
 * that contradicts; so of two who come at once at least one notices.
 *
 * The descriptor is one of its own, read-only: data descriptors come and go with access modes, locks stay.
 *
 * @see spec/filters-and-raw.md section 6.2
 */
export class ImageLocks {
  readonly #native: NativeCalls;
  readonly #fd: number;
  readonly #fileName: string;
  readonly #nodeName: string;
  #held: Claim = NOTHING;
  /** What is locked, on the way from one claim to the next. */
  #locked: Claim = NOTHING;

  /** @param fd - a descriptor that nobody else uses; its owner closes it */
  constructor(native: NativeCalls, fd: number, fileName: string, nodeName: string) {
    this.#native = native;
    this.#fd = fd;
    this.#fileName = fileName;
    this.#nodeName = nodeName;
  }

  /**
   * Locks what the new permissions need beyond the old ones.
   *
   * @throws BlockError `EAGAIN` another user of the image is in the way; locks are as before. `ENOTSUP` and
   *   `ENOLCK`: the file system has no such locks
   */
  prepare(perm: Permission, shared: Permission): void {
    const used = perm;
    const unshared = ALL_PERMISSIONS & ~shared;
    try {
      this.#lock({
        used: this.#held.used | used,
        unshared: this.#held.unshared | unshared,
      });
      this.#check(used, UNSHARED, "");
      this.#check(unshared, USED, "shared ");
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  /** Drops the locks that the new permissions do not need. */
  commit(perm: Permission, shared: Permission): void {
    this.#held = { used: perm, unshared: ALL_PERMISSIONS & ~shared };
    this.#unlock(this.#held);
  }

  /** Drops the locks that `prepare` added. */
  abort(): void {
    this.#unlock(this.#held);
  }

  /** Drops all locks. */
  release(): void {
    this.#held = NOTHING;
    this.#unlock(NOTHING);
  }

  #lock(claim: Claim): void {
    this.#lockBytes(USED, claim.used & ~this.#locked.used);
    this.#lockBytes(UNSHARED, claim.unshared & ~this.#locked.unshared);
  }

  #lockBytes(base: number, bits: Permission): void {
    for (let index = 0; index < BIT_COUNT; index += 1) {
      const bit = bits & (1 << index);
      if (bit === 0) continue;
      const result = this.#native.setLock(this.#fd, "shared", base + index, 1);
      if (result < 0) throw this.#failed(result, base + index);
      this.#locked = withBit(this.#locked, base, bit);
    }
  }

  #failed(result: number, byte: number): BlockError {
    const context = { node: this.#nodeName, fileName: this.#fileName, byte };
    return nativeError(result, `Failed to lock byte ${byte}`, context);
  }

  #check(bits: Permission, base: number, kind: "" | "shared "): void {
    for (let index = 0; index < BIT_COUNT; index += 1) {
      const bit = bits & (1 << index);
      if (bit === 0) continue;
      const result = this.#native.testLock(this.#fd, base + index, 1);
      if (result === 0) continue;
      if (result < 0 && result !== -Errno.EAGAIN) throw this.#failed(result, base + index);
      throw new BlockError(
        "EAGAIN",
        `Failed to get ${kind}"${formatPermissions(bit)}" lock`,
        { node: this.#nodeName, fileName: this.#fileName },
        { hint: `Is another process using the image [${this.#fileName}]?` },
      );
    }
  }

  /** Unlocks everything beyond `claim`. Dropping a lock cannot fail on a valid descriptor. */
  #unlock(claim: Claim): void {
    for (let index = 0; index < BIT_COUNT; index += 1) {
      const bit = 1 << index;
      if ((this.#locked.used & ~claim.used & bit) !== 0) {
        this.#native.setLock(this.#fd, "none", USED + index, 1);
      }
      if ((this.#locked.unshared & ~claim.unshared & bit) !== 0) {
        this.#native.setLock(this.#fd, "none", UNSHARED + index, 1);
      }
    }
    this.#locked = {
      used: this.#locked.used & claim.used,
      unshared: this.#locked.unshared & claim.unshared,
    };
  }
}

function withBit(claim: Claim, base: number, bit: Permission): Claim {
  return base === USED
    ? { ...claim, used: claim.used | bit }
    : { ...claim, unshared: claim.unshared | bit };
}

/** Locks together with their descriptor. */
export interface OpenLocks {
  readonly locks: ImageLocks;
  /** Drops the locks and closes their descriptor. */
  close(): Promise<void>;
}

const UNSUPPORTED: readonly unknown[] = [
  -Errno.ENOTSUP,
  -Errno.ENOLCK,
  -Errno.ENOSYS,
  -Errno.EINVAL,
];

/** Returns whether an error of `prepare` says that the file system has no locks of this kind. */
export function isLockingUnsupported(error: unknown): boolean {
  if (!(error instanceof BlockError)) return false;
  const { errno } = error.context;
  return UNSUPPORTED.includes(errno);
}
