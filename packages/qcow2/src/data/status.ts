import { type BlockStatus, StatusFlag } from "@blocklayer/driver";
import type { Run } from "../image/mapping.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

const { data, zero, offsetValid } = StatusFlag;

/**
 * Says what the guest bytes at `offset` are, for as long a run as one slice tells.
 *
 * @see spec/qcow2.md section 9
 */
export async function blockStatus(
  image: Qcow2Image,
  offset: number,
  length: number,
): Promise<BlockStatus> {
  for (;;) {
    const run = image.mapping.find(offset, length);
    if (run === undefined) {
      await image.mapping.load(offset);
      continue;
    }
    return statusOf(image, run);
  }
}

function statusOf(image: Qcow2Image, run: Run): Promise<BlockStatus> | BlockStatus {
  const { length, host } = run;
  const child = image.data;
  switch (run.kind) {
    case "normal":
      return { flags: data | offsetValid, length, offset: host, child };
    case "zero-alloc":
      return { flags: zero | offsetValid, length, offset: host, child };
    case "zero-plain":
      return { flags: zero, length };
    case "unallocated":
      return { flags: 0, length };
    case "unallocated-alloc":
      return { flags: offsetValid, length, offset: host, child };
    case "compressed":
      return { flags: data, length };
    case "invalid":
      return image.corrupt(image.mapping.damage?.message ?? "invalid entry", {
        offset: host,
        length,
      });
  }
}
