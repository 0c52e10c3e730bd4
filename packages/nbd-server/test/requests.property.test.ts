import { BlockError } from "@blocklayer/errors";
import { NbdCommand, NbdErrno } from "@blocklayer/nbd-protocol";
import fc from "fast-check";
import { expect, it } from "vitest";
import { Loopback } from "./loopback.ts";
import { expectNothingLeft, makeWorld, TestClient } from "./test-client.ts";
import { TestDisk } from "./test-disk.ts";

const SLOT = 1024;
const SLOTS = 16;

interface Step {
  readonly kind: "read" | "write" | "zeroes" | "hold" | "go" | "release" | "fail" | "flush";
  readonly slot: number;
  readonly start: number;
  readonly length: number;
  readonly fill: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom("read", "write", "zeroes", "hold", "go", "release", "fail", "flush"),
  slot: fc.nat(SLOTS - 1),
  start: fc.nat(SLOT - 1),
  length: fc.nat(SLOT),
  fill: fc.nat(255),
});

interface Expected {
  readonly slot: number;
  readonly data: Uint8Array | undefined;
  /** Makes the change happen in the model, when it succeeded. */
  readonly apply: () => void;
}

/** The dumbest correct server: an array, and what each request must be answered. */
class Model {
  readonly bytes: Uint8Array;
  readonly expected = new Map<number, Expected>();

  constructor(bytes: Uint8Array) {
    this.bytes = bytes.slice();
  }

  isBusy(slot: number): boolean {
    return [...this.expected.values()].some((each) => each.slot === slot);
  }

  send(client: TestClient, { kind, slot, start, length: wanted, fill }: Step): void {
    const offset = slot * SLOT + start;
    const length = Math.min(wanted, SLOT - start);
    if (kind === "flush") {
      this.expected.set(client.send(NbdCommand.FLUSH), none(-1));
    } else if (kind === "read") {
      const data = this.bytes.slice(offset, offset + length);
      this.expected.set(client.read(offset, length), { slot, data, apply: () => undefined });
    } else if (kind === "write") {
      const payload = Uint8Array.from({ length }, (_, at) => (at + fill) & 0xff);
      const apply = (): void => this.bytes.set(payload, offset);
      const cookie = client.send(NbdCommand.WRITE, { offset, payload });
      this.expected.set(cookie, { slot, data: undefined, apply });
    } else {
      const apply = (): void => void this.bytes.fill(0, offset, offset + length);
      const cookie = client.send(NbdCommand.WRITE_ZEROES, { offset, length });
      this.expected.set(cookie, { slot, data: undefined, apply });
    }
  }

  /** Reads all replies that have arrived, each of which must be due. */
  check(client: TestClient): void {
    while (client.wire.unread > 0) {
      const cookie = client.peekCookie();
      const due = this.expected.get(cookie);
      if (due === undefined)
        throw new Error(`cookie ${cookie} is answered twice or was never sent`);
      this.expected.delete(cookie);
      const { error, data } = client.reply(due.data?.length ?? 0);
      expect([NbdErrno.SUCCESS, NbdErrno.EIO]).toContain(error);
      if (error !== NbdErrno.SUCCESS) continue;
      if (due.data !== undefined) expect(data).toEqual(due.data);
      due.apply();
    }
  }
}

function none(slot: number): Expected {
  return { slot, data: undefined, apply: () => undefined };
}

it("any requests, in any pieces, ending in any order, are answered once each with the bytes of an array", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      fc.integer({ min: 1, max: 200 }),
      fc.boolean(),
      converse,
    ),
    { numRuns: 200 },
  );
});

async function converse(
  steps: readonly Step[],
  piece: number,
  lendsMemory: boolean,
): Promise<void> {
  const disk = new TestDisk(SLOT * SLOTS);
  const world = await makeWorld({}, {}, disk);
  const client = new TestClient(world, new Loopback({ lendsMemory, piece }));
  client.go();
  const model = new Model(disk.bytes);
  for (const each of steps) {
    const index = each.fill % (disk.held.length + 1);
    if (each.kind === "hold") disk.isHolding = true;
    else if (each.kind === "go") disk.isHolding = false;
    else if (each.kind === "release") disk.release(1, undefined, index);
    else if (each.kind === "fail") disk.release(1, new BlockError("EIO", "made up"), index);
    else if (!model.isBusy(each.slot)) model.send(client, each);
    await client.settle();
    model.check(client);
  }
  disk.release();
  await client.settle();
  model.check(client);
  expect(model.expected.size).toBe(0);
  expect(disk.bytes).toEqual(model.bytes);
  client.wire.destroy();
  await expectNothingLeft(world);
}
