import { type DriverDefinition, defineDriver, Role } from "@blocklayer/driver";
import { repairDirty } from "./check/repair-dirty.ts";
import type { Codecs } from "./codecs.ts";
import { MAGIC } from "./format/constants.ts";
import { openImage } from "./image/open-image.ts";
import { amendSchema } from "./operations/amend-options.ts";
import { createImage } from "./operations/create.ts";
import { createSchema } from "./operations/create-options.ts";
import { measureImage } from "./operations/measure.ts";
import { REOPENABLE } from "./operations/reopen.ts";
import { type Qcow2Options, qcow2Schema } from "./options.ts";
import { Qcow2Driver } from "./qcow2-driver.ts";

/** What the driver is made with. */
export interface Qcow2DefinitionOptions {
  /** How clusters are compressed. Without one, compressed clusters of its type cannot be read. */
  readonly codecs?: Codecs;
}

/** Returns the driver `qcow2`. */
export function qcow2Definition(
  settings: Qcow2DefinitionOptions = {},
): DriverDefinition<"qcow2", Qcow2Options, "file" | "backing" | "data-file"> {
  const codecs = settings.codecs ?? {};
  return defineDriver({
    driverName: "qcow2",
    schema: qcow2Schema,
    children: [
      { name: "file", role: Role.image, required: true },
      { name: "backing", role: Role.cow, required: false },
      { name: "data-file", role: Role.data, required: false },
    ],
    isFilter: false,
    isProtocol: false,
    supportsBacking: true,
    open: async (host, options, env) => {
      const { image, snapshots } = await openImage(host, options, env, codecs);
      if (image.isDirty && !image.readOnly && !options["x-blocklayer-check"]) {
        await repairDirty(image);
      }
      return new Qcow2Driver(image, snapshots, options["cache-clean-interval"]);
    },
    create: createImage,
    createSchema,
    amendSchema,
    reopenable: REOPENABLE,
    measure: measureImage,
    probe: (firstBytes) => {
      const isMagic = [0, 8, 16, 24].every(
        (shift, index) => firstBytes[3 - index] === (MAGIC >>> shift) % 256,
      );
      return isMagic ? 100 : 0;
    },
  });
}
