import {
  type ConformanceOptions,
  patternBytes,
  ReferenceDisk,
  TestHost,
  type TestHostOptions,
} from "@blocklayer/driver-tests";
import { graphLikeDefinition } from "./graph-like.ts";
import { createInMemory, growingFile } from "./memory-image.ts";

const SIZE = 128 * 1024;

export interface FamilySettings {
  /** Requests are of whole sectors; then the length can be changed, which is one of them. */
  readonly isInSectors?: boolean;
  readonly hasBacking?: boolean;
  /** Little of a table is in memory at a time. */
  readonly hasFewSlices?: boolean;
}

/** The suite's options for images in memory that are made like this. */
export function conformanceOf(
  name: string,
  create: Readonly<Record<string, unknown>>,
  settings: FamilySettings = {},
): Omit<ConformanceOptions, "describe" | "it"> {
  const { isInSectors = false, hasBacking = false, hasFewSlices = false } = settings;
  const definition = graphLikeDefinition(isInSectors ? { requestAlignment: 512 } : {});
  const options = hasFewSlices ? { "l2-cache-size": 1024, "l2-cache-entry-size": 512 } : {};
  const files = new WeakMap<TestHost, ReferenceDisk>();
  const open = async (file: ReferenceDisk, backing: ReferenceDisk): Promise<TestHost> => {
    const children: TestHostOptions["children"] = hasBacking ? { file, backing } : { file };
    const host = await TestHost.open(definition, { children, options });
    files.set(host, file);
    return host;
  };
  return {
    name,
    open: async () => open(growingFile(await createInMemory({ size: SIZE, ...create })), below()),
    reopen: (earlier) => open(growingFile(files.get(earlier)?.bytes), below()),
    capabilities: {
      writeVector: false,
      truncate: isInSectors,
      makeEmpty: true,
      discardReads: "anything",
    },
  };
}

function below(): ReferenceDisk {
  const disk = new ReferenceDisk({ size: SIZE });
  disk.bytes.set(patternBytes(99, SIZE));
  return disk;
}
