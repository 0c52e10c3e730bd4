import {
  type BlockChild,
  type DriverDefinition,
  defineDriver,
  FilterDriver,
  Role,
  rejected,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { object, type Schema } from "@blocklayer/schema";
import { ImageBitmaps } from "./image-bitmaps.ts";
import { METADATA_LENGTH } from "./image-layout.ts";

/** An image of data as it is, followed by bitmaps. Its length is fixed. */
class SimulatedImage extends FilterDriver {
  readonly driverName: string = "x-blocklayer-simulated-image";
  readonly persistentBitmaps: ImageBitmaps;

  constructor(file: BlockChild) {
    super(file);
    this.persistentBitmaps = new ImageBitmaps(file, this.size);
  }

  override get size(): number {
    return this.child.size - METADATA_LENGTH;
  }

  override truncate(): Promise<void> {
    return rejected(new BlockError("ENOTSUP", "a simulated image has a fixed length"));
  }
}

const schema: Schema<Record<never, never>> = object({});

/**
 * The driver `x-blocklayer-simulated-image`: a format that keeps persistent bitmaps in its `file`, behind the data.
 *
 * `open` fails with `EIO` when what it finds is no whole set of bitmaps.
 */
export const simulatedImage: DriverDefinition<
  "x-blocklayer-simulated-image",
  Record<never, never>,
  "file"
> = defineDriver({
  driverName: "x-blocklayer-simulated-image",
  schema,
  children: [{ name: "file", role: Role.image, required: true }],
  isFilter: false,
  isProtocol: false,
  supportsBacking: false,
  open: async (host) => {
    const image = new SimulatedImage(await host.openChild("file", Role.image));
    await image.persistentBitmaps.open();
    return image;
  },
});
