import type { BlockDriver } from "@blocklayer/driver";
import { type ChildSource, TestHost, type TestHostOptions } from "@blocklayer/driver-tests";
import { realEnv } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { qcow2Definition } from "@blocklayer/qcow2";
import { nodeCodecs } from "@blocklayer/qcow2/node";

/** The driver with the codecs of Node. */
export const qcow2: ReturnType<typeof qcow2Definition> = qcow2Definition({ codecs: nodeCodecs() });

/** A file of the operating system as a child. */
export function onDisk(filename: string): ChildSource {
  return { definition: file, options: { filename } };
}

/** Opens an image file. Close the host when done. */
export function openImageFile(
  filename: string,
  settings: TestHostOptions & { readonly options?: unknown } = {},
): Promise<TestHost> {
  const { children, ...rest } = settings;
  return TestHost.open(qcow2, {
    env: realEnv(),
    ...rest,
    children: { file: onDisk(filename), ...children },
  });
}

/** Reads a whole disk. */
export async function contentOf(driver: BlockDriver): Promise<Uint8Array> {
  const bytes = new Uint8Array(driver.size);
  const step = 2 ** 20;
  for (let at = 0; at < bytes.length; at += step) {
    await driver.pread(at, bytes.subarray(at, Math.min(at + step, bytes.length)));
  }
  return bytes;
}
