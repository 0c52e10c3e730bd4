import {
  encodeClientFlags,
  encodeInfoRequest,
  encodeOption,
  NbdCommand,
  NbdOption,
} from "@blocklayer/nbd-protocol";
import fc from "fast-check";
import { expect, it } from "vitest";
import { Loopback } from "./loopback.ts";
import { expectNothingLeft, makeWorld, TestClient } from "./test-client.ts";

/** Parts of a conversation, right, wrong and cut off. */
const part: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.uint8Array({ maxLength: 64 }),
  fc
    .tuple(fc.integer({ min: 0, max: 12 }), fc.uint8Array({ maxLength: 40 }))
    .map(([option, data]) => encodeOption(option, data)),
  fc
    .constantFrom("disk", "", "nope", "\u{1f4be}".repeat(40))
    .map((exportName) => encodeOption(NbdOption.GO, encodeInfoRequest({ exportName, infos: [3] }))),
  fc
    .record({
      magic: fc.constantFrom(0x25609513, 0x25609513, 0x25609513, 0x21e41c71),
      flags: fc.constantFrom(0, 0, 1, 2, 4, 8, 16, 32, 0xffff),
      type: fc.constantFrom(...Object.values(NbdCommand), 77),
      offset: fc.constantFrom(
        0,
        512,
        65_535,
        65_536,
        2 ** 31,
        2 ** 32,
        2 ** 53,
        2 ** 63,
        2 ** 64 - 2048,
      ),
      length: fc.constantFrom(0, 1, 64, 65_536, 2 ** 25, 2 ** 25 + 1, 2 ** 31, 2 ** 32 - 1),
    })
    .map(({ magic, flags, type, offset, length }) => {
      const bytes = new Uint8Array(28);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, magic);
      view.setUint16(4, flags);
      view.setUint16(6, type);
      view.setBigUint64(16, BigInt(offset));
      view.setUint32(24, length);
      return bytes;
    }),
);

it("whatever a client sends, only its own connection ends and nothing is left", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(part, { maxLength: 12 }),
      fc.integer({ min: 1, max: 300 }),
      fc.constantFrom("end", "destroy", "stop"),
      fc.boolean(),
      async (parts, piece, end, isHolding) => {
        const world = await makeWorld();
        const other = new TestClient(world);
        other.go();
        const client = new TestClient(world, new Loopback({ piece }));
        world.disk.isHolding = isHolding;
        client.wire.send(encodeClientFlags(3), ...parts);
        await client.settle();
        if (end === "stop") {
          const stopped = world.server.stop(100);
          world.disk.release();
          await world.env.clock.advance(10_000);
          await stopped;
        } else {
          client.wire[end]();
          await client.settle();
          world.disk.release();
          world.disk.isHolding = false;
          await world.env.clock.advance(10_000);
          other.wire.read();
          other.read(0, 4);
          expect(other.reply(4).error).toBe(0);
          other.wire.destroy();
        }
        await expectNothingLeft(world);
      },
    ),
    { numRuns: 200 },
  );
});
