import { BlockError } from "@blocklayer/errors";
import type { BlockChild } from "./child.ts";
import type { RoleMask } from "./role.ts";

/** Node options that every driver has; the graph handles them. */
export interface GenericNodeOptions {
  readonly readOnly: boolean;
  /** Whether discards reach the driver. */
  readonly discard: "ignore" | "unmap";
  readonly detectZeroes: "off" | "on" | "unmap";
  /** Bypass the host's page cache. */
  readonly cacheDirect: boolean;
  /** Ignore flushes to disk. */
  readonly cacheNoFlush: boolean;
  readonly forceShare: boolean;
}

/**
 * Decides whether a file name that was found *inside an image* may be opened. Such text is a plain file
 * name, never a URL, `json:` or a driver prefix.
 *
 * @see docs/design.md section 8
 */
export interface ImageReferencePolicy {
  /**
   * @param reference - the name as the image holds it
   * @param image - node name of the image
   * @returns the options to open it with
   * @throws BlockError `EACCES` the policy does not allow it
   */
  resolve(
    reference: {
      readonly fileName: string;
      readonly format: string | undefined;
      readonly role: string;
    },
    image: string,
  ): Promise<Readonly<Record<string, unknown>>>;
}

/**
 * What a node's options say of a child: `"given"`, `"null"` for explicitly none (`backing: null` ignores the backing
 * file that an image names), or nothing at all.
 */
export type ChildOptionState = "given" | "null" | "absent";

/** Holds links of a chain so that nobody re-points them; disposing releases them. */
export interface FreezeHold extends Disposable {
  release(): void;
}

/**
 * What a driver may ask of the world above it without importing it. Implemented by `block-graph`, and in small by
 * `driver-tests`.
 *
 * The graph makes the node's shell and edges before it calls the definition's `open`, so a driver opens its
 * children through its host and finds them there ever after.
 */
export interface NodeHost {
  readonly nodeName: string;
  /** The generic options as they are now; `readOnly` may have become true by auto-read-only. */
  readonly options: GenericNodeOptions;
  /** Whether auto-read-only was asked for: a driver that cannot write may call {@link becomeReadOnly}. */
  readonly autoReadOnly: boolean;
  readonly policy: ImageReferencePolicy;
  /** The children by edge name. */
  readonly children: ReadonlyMap<string, BlockChild>;
  /**
   * Opens the child `name` from this node's options (an inline definition or the name of an existing node)
   * and attaches it.
   *
   * @param options - overrides what the node's options say of the child
   * @throws BlockError `EINVAL` neither the node's options nor `options` give the child; whatever opening it reports
   */
  openChild(name: string, role: RoleMask, options?: unknown): Promise<BlockChild>;
  /** What the options that the node was opened with say of the child `name`. */
  childOption(name: string): ChildOptionState;
  /** Attaches an existing node as a child: a graph change, takes the graph's mutex. Not within `open`'s own requests. */
  attachChild(name: string, role: RoleMask, nodeName: string): Promise<BlockChild>;
  detachChild(name: string): Promise<void>;
  /**
   * Freezes the filter-or-backing links from this node down to `base`.
   *
   * @throws BlockError `EPERM` a link is frozen already
   */
  freezeChain(base?: string): FreezeHold;
  /** Asks the graph to compute this node's child permissions anew, after what they depend on has changed. */
  refreshPermissions(): Promise<void>;
  /**
   * Tells that `driver.limits` has changed.
   *
   * @throws BlockError `EINVAL` they contradict each other; the node keeps those that it had
   */
  limitsChanged(): void;
  /** Tells that `driver.size` has changed by itself (a growing write tells by its own path). */
  resized(): void;
  /** During `open` only, and only with auto-read-only or read-only: the node is read-only from here on. */
  becomeReadOnly(reason: string): void;
  /**
   * Counts work that outlives its request (a copy that goes on after a time-out) as in flight, so that drain and
   * close wait for it.
   */
  holdInFlight(): Disposable;
  /** Tells that content changed outside the write path, so that bitmaps mark it. Await before the change. */
  contentReplaced(offset: number, length: number): Promise<void>;
  /** Tells people and events that the image is damaged. */
  reportCorruption(
    message: string,
    detail: { readonly fatal: boolean; readonly offset?: number; readonly length?: number },
  ): void;
  /** A line for the log, at most one per occasion. */
  warn(message: string): void;
}

const denyMessage = "names found inside an image are not followed without a policy that allows it";

/** Policies that need nothing. */
export const ImageReferencePolicy: { readonly deny: ImageReferencePolicy } = {
  /** Follows nothing: the default of the library. */
  deny: {
    resolve: ({ fileName, role }, image) =>
      Promise.reject(
        new BlockError(
          "EACCES",
          denyMessage,
          { node: image, reference: fileName, role },
          {
            hint: "give the child in the options, or open with a policy",
          },
        ),
      ),
  },
};
