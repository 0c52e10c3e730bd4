import { BlockError } from "@blocklayer/errors";
import { Compatible } from "../format/constants.ts";
import type { Header } from "../format/header.ts";
import { discardClasses, type Qcow2Options } from "../options.ts";
import type { ImageSettings } from "./qcow2-image.ts";

/**
 * Returns what options and header say together.
 *
 * @param discard - the node's own option: whether discards reach it
 * @throws BlockError `EINVAL` lazy refcounts of an image of version 2
 */
export function imageSettings(
  options: Qcow2Options,
  { version, compatible }: Pick<Header, "version" | "compatible">,
  discard: "ignore" | "unmap",
): ImageSettings {
  const lazyRefcounts = options["lazy-refcounts"] ?? compatible.has(Compatible.lazyRefcounts);
  if (lazyRefcounts && version === 2) {
    const message =
      "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level";
    throw new BlockError("EINVAL", message, { version });
  }
  return { lazyRefcounts, discards: discardClasses(options, discard) };
}
