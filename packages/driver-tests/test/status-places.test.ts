import { type BlockStatus, StatusFlag } from "@blocklayer/driver";
import { ConformanceError, checkStatus, ReferenceDisk, testChild } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";

const { data, offsetValid } = StatusFlag;

/** A disk that says of all its bytes where they are: in a child that holds something else. */
class Elsewhere extends ReferenceDisk {
  readonly #flags: number;

  constructor(flags: number) {
    super({ size: 4096 });
    this.#flags = flags;
  }

  override blockStatus(_offset: number, length: number): Promise<BlockStatus> {
    const other = new ReferenceDisk({ size: 4096 });
    other.bytes.fill(7);
    return Promise.resolve({ flags: this.#flags, length, offset: 0, child: testChild(other) });
  }
}

const below = (_offset: number, length: number): Promise<Uint8Array> =>
  Promise.resolve(new Uint8Array(length));

describe("the place of a run", () => {
  it("holds the data where there is some", async () => {
    const work = checkStatus(new Elsewhere(data | offsetValid), new Uint8Array(4096), below);
    await expect(work).rejects.toThrow(ConformanceError);
  });

  it("holds anything where what is below decides", async () => {
    const runs = await checkStatus(new Elsewhere(offsetValid), new Uint8Array(4096), below);
    expect(runs).toHaveLength(1);
  });
});
