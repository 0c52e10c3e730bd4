import { existsSync } from "node:fs";
import type { CheckResult, RepairMode } from "@blocklayer/driver";
import { type ChildSource, TestHost } from "@blocklayer/driver-tests";
import { realEnv } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import type { ImageCheckOptions, Qcow2Driver } from "@blocklayer/qcow2";
import { RECIPES, type RecipeName } from "./damages.ts";
import { contentOf, qcow2 } from "./image-rig.ts";
import { Workshop } from "./peers.ts";

/** Members that our result and that of qemu-img have, with the names of qemu-img. */
export type Counts = Readonly<Record<string, number>>;

export function countsOf(result: CheckResult): Counts {
  return {
    corruptions: result.corruptions,
    leaks: result.leaks,
    "check-errors": result.checkErrors,
    "image-end-offset": result.imageEndOffset ?? 0,
    "total-clusters": result.totalClusters ?? 0,
    "allocated-clusters": result.allocatedClusters ?? 0,
    "fragmented-clusters": result.fragmentedClusters ?? 0,
    "compressed-clusters": result.compressedClusters ?? 0,
  };
}

const NOTHING: CheckResult = {
  corruptions: 0,
  leaks: 0,
  checkErrors: 0,
  corruptionsFixed: 0,
  leaksFixed: 0,
};

/** A directory with the images of {@link RECIPES}, each made once. */
export class Gallery extends Workshop {
  /** Returns the name of the image. */
  made(recipe: RecipeName): string {
    const name = `${recipe}.qcow2`;
    if (existsSync(this.file(name))) return name;
    const { options, io, further = [] } = RECIPES[recipe];
    this.create(name, "1M", options);
    this.io(name, ...io);
    for (const [program = "", ...args] of further) {
      this.run(program, ...args.map((arg) => arg.replace("@", name)));
    }
    return name;
  }

  /** What `qemu-img check` finds, or what it says when it finds nothing out. */
  theirs(name: string, repair: RepairMode): Counts | string {
    const mends = repair === "none" ? [] : ["-r", repair];
    const args = ["check", "--output=json", "-f", "qcow2", ...mends, name];
    const { out, err } = this.try("qemu-img", ...args);
    if (out === "") return err;
    const given = JSON.parse(out) as Record<string, number>;
    const members = Object.keys(countsOf(NOTHING));
    return Object.fromEntries(members.map((member) => [member, given[member] ?? 0]));
  }
}

/** Opens an image for a check. Close the host when done. */
export function openForCheck(
  file: ChildSource,
  readOnly = false,
  dataFile?: ChildSource,
): Promise<TestHost> {
  return TestHost.open(qcow2, {
    env: realEnv(),
    generic: { readOnly },
    options: { "x-blocklayer-check": true },
    children: dataFile === undefined ? { file } : { file, "data-file": dataFile },
  });
}

/** What our check finds, or the code of the error that it ends with. */
export async function check(
  file: ChildSource,
  options: ImageCheckOptions = {},
  dataFile?: ChildSource,
): Promise<CheckResult | string> {
  let host: TestHost | undefined;
  try {
    host = await openForCheck(file, (options.repair ?? "none") === "none", dataFile);
    return await (host.driver as Qcow2Driver).check(options);
  } catch (error) {
    if (error instanceof BlockError) return error.code;
    throw error;
  } finally {
    await host?.close();
  }
}

/** The content, if an image can be read as it is. */
export async function readable(file: ChildSource): Promise<Uint8Array | undefined> {
  let host: TestHost | undefined;
  try {
    host = await openForCheck(file, true);
    return await contentOf(host.driver);
  } catch (error) {
    if (error instanceof BlockError) return undefined;
    throw error;
  } finally {
    await host?.close();
  }
}
