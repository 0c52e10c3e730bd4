import { completed } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { HostPin } from "../image/host-pins.ts";
import type { Run } from "../image/mapping.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { readCompressed } from "./compressed-reader.ts";
import { PartQueue } from "./parallel.ts";

/**
 * Reads guests' data.
 *
 * @see spec/qcow2.md section 5
 */
export class Reader {
  readonly #image: Qcow2Image;

  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /** Fills `buffer`. A request within one run whose tables are in memory is one request to the file. */
  read(offset: number, buffer: Uint8Array): Promise<void> {
    const run = this.#image.mapping.find(offset, buffer.length);
    if (run !== undefined && run.length === buffer.length) {
      return this.readRun(run, offset, buffer);
    }
    return this.#readRuns(offset, buffer);
  }

  async #readRuns(offset: number, buffer: Uint8Array): Promise<void> {
    const { mapping } = this.#image;
    const parts = new PartQueue();
    for (let done = 0; done < buffer.length && !parts.hasFailed; ) {
      const at = offset + done;
      const run = mapping.find(at, buffer.length - done);
      if (run === undefined) {
        await parts.need(mapping.load(at));
        continue;
      }
      const part = buffer.subarray(done, done + run.length);
      // The run holds now: what follows within the call uses it before anything else happens.
      const reading = this.readRun(run, at, part);
      if (reading !== completed) await parts.track(reading);
      done += run.length;
    }
    await parts.end();
  }

  /** Reads what a run says; the run was found in this very turn. */
  readRun(run: Run, offset: number, buffer: Uint8Array): Promise<void> {
    switch (run.kind) {
      case "zero-plain":
      case "zero-alloc":
        buffer.fill(0);
        return completed;
      case "unallocated":
      case "unallocated-alloc":
        return this.#readBacking(offset, buffer);
      case "normal":
        return this.#readHost(run.host, buffer);
      case "compressed":
        return this.#readCompressed(run, offset, buffer);
      case "invalid":
        return this.#image.corrupt(this.#image.mapping.damage?.message ?? "invalid entry", {
          offset: run.host,
          length: buffer.length,
        });
    }
  }

  #readBacking(offset: number, buffer: Uint8Array): Promise<void> {
    const { backing } = this.#image;
    if (backing === undefined || offset >= backing.size) {
      buffer.fill(0);
      return completed;
    }
    const inside = backing.size - offset;
    if (inside >= buffer.length) return backing.pread(offset, buffer);
    buffer.fill(0, inside);
    return backing.pread(offset, buffer.subarray(0, inside));
  }

  #readHost(host: number, buffer: Uint8Array): Promise<void> {
    const { file, hasDataFile, data } = this.#image;
    if (hasDataFile) return data.pread(host, buffer);
    const pin = file.pins.pin(host, buffer.length);
    return released(file.read(host, buffer), () => file.pins.unpin(pin));
  }

  async #readCompressed(run: Run, offset: number, buffer: Uint8Array): Promise<void> {
    const { file, geometry } = this.#image;
    const range = run.compressed;
    if (range === undefined) throw new BlockError("EIO", "a compressed cluster has no data");
    const pin: HostPin = file.pins.pin(range.offset, range.length);
    try {
      const cluster = await readCompressed(this.#image, range);
      const start = offset % geometry.clusterSize;
      buffer.set(cluster.subarray(start, start + buffer.length));
    } finally {
      file.pins.unpin(pin);
    }
  }
}

/** Settles as `work` and calls `release` then; within the call when it is completed already. */
function released(work: Promise<void>, release: () => void): Promise<void> {
  if (work === completed) {
    release();
    return completed;
  }
  return work.finally(release);
}
