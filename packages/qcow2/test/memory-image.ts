import { ReferenceDisk, TestHost, type TestHostOptions, testChild } from "@blocklayer/driver-tests";
import { type Env, manualEnv } from "@blocklayer/env";
import { qcow2 } from "./image-rig.ts";

/** A file in memory that grows with what is written to it. */
export function growingFile(bytes: Uint8Array = new Uint8Array(0)): ReferenceDisk {
  const disk = new ReferenceDisk({ size: 0, growing: true });
  disk.bytes = bytes.slice();
  return disk;
}

/** Makes an image in memory. */
export async function createInMemory(
  options: Readonly<Record<string, unknown>>,
  dataFile?: ReferenceDisk,
): Promise<Uint8Array> {
  const parsed = qcow2.createSchema?.parse(options);
  if (parsed === undefined || !parsed.ok) throw new Error("the options do not parse");
  const disk = growingFile();
  await qcow2.create?.(parsed.value, {
    env: manualEnv(),
    file: testChild(disk),
    ...(dataFile === undefined ? {} : { dataFile: testChild(dataFile) }),
  });
  return disk.bytes;
}

/** Opens an image whose file is in memory. */
export function openInMemory(
  file: ReferenceDisk | Uint8Array,
  settings: TestHostOptions & { readonly options?: unknown; readonly env?: Env } = {},
): Promise<TestHost> {
  const { children, ...rest } = settings;
  const disk = file instanceof ReferenceDisk ? file : growingFile(file);
  return TestHost.open(qcow2, { ...rest, children: { file: disk, ...children } });
}
