import { BlockError } from "@blocklayer/errors";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { checkImage } from "./check-image.ts";

/**
 * Makes the counts right of an image that was not closed, before anything relies on them.
 *
 * @throws BlockError `EIO` something is wrong that cannot be mended; what checking reports
 * @see spec/qcow2.md section 1
 */
export async function repairDirty(image: Qcow2Image): Promise<void> {
  const { corruptions, leaks, checkErrors } = await checkImage(image, { repair: "all" });
  if (corruptions === 0 && leaks === 0 && checkErrors === 0) return;
  const context = { node: image.host.nodeName, corruptions, leaks, checkErrors };
  throw new BlockError("EIO", "Could not repair dirty image", context, {
    hint: "open the image read-only, or check it to see what is wrong",
  });
}
