import { manualEnv } from "@blocklayer/env";
import { NbdConnection } from "@blocklayer/nbd-client";
import { NbdCommand } from "@blocklayer/nbd-protocol";
import fc from "fast-check";
import { expect, it } from "vitest";
import { type FakeRequest, FakeServer } from "./fake-server.ts";

const SIZE = 1024;

const operation = fc.record({
  kind: fc.constantFrom("read", "write", "zero"),
  offset: fc.nat(SIZE - 64),
  length: fc.integer({ min: 1, max: 64 }),
  value: fc.integer({ min: 1, max: 255 }),
});

/** Answers requests that are there in an order of the generator's, until all were answered. */
async function serveShuffled(
  server: FakeServer,
  disk: Uint8Array,
  count: number,
  order: readonly number[],
): Promise<void> {
  const open: FakeRequest[] = [];
  let taken = 0;
  for (let done = 0; done < count; done += 1) {
    // The first is waited for, others only if they are complete already.
    while (taken < count && (open.length === 0 || server.receivedLength >= 28)) {
      const request = await server.request();
      // Carried out on arrival, so that the order of changes is that of sending.
      carryOut(disk, request);
      open.push({
        ...request,
        payload: disk.slice(request.offset, request.offset + request.length),
      });
      taken += 1;
    }
    const [request] = open.splice((order[done % order.length] ?? 0) % open.length, 1);
    if (request === undefined) throw new Error("nothing to answer");
    server.reply(request, 0, request.type === NbdCommand.READ ? request.payload : undefined);
  }
}

function carryOut(disk: Uint8Array, { type, offset, length, payload }: FakeRequest): void {
  if (type === NbdCommand.WRITE) disk.set(payload, offset);
  if (type === NbdCommand.WRITE_ZEROES) disk.fill(0, offset, offset + length);
}

it("each answer reaches its request, in any order, cut anywhere", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { minLength: 1, maxLength: 20 }),
      fc.array(fc.nat(30), { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 1, max: 90 }),
      fc.integer({ min: 1, max: 20 }),
      async (operations, order, chunkSize, requestsMax) => {
        const server = new FakeServer({ chunkSize });
        const opening = NbdConnection.open(server.client, { env: manualEnv(), requestsMax });
        await server.accept({ size: SIZE });
        const connection = await opening;
        const model = new Uint8Array(SIZE);
        const work = operations.map(async ({ kind, offset, length, value }) => {
          if (kind === "read") {
            const expected = model.slice(offset, offset + length);
            const buffer = new Uint8Array(length);
            await connection.read(offset, buffer);
            expect(buffer).toEqual(expected);
            return;
          }
          model.fill(kind === "write" ? value : 0, offset, offset + length);
          if (kind === "write") await connection.write(offset, new Uint8Array(length).fill(value));
          else await connection.writeZeroes(offset, length);
        });
        const disk = new Uint8Array(SIZE);
        await Promise.all([...work, serveShuffled(server, disk, operations.length, order)]);
        expect(disk).toEqual(model);
        expect(connection.inFlight).toBe(0);
      },
    ),
    { numRuns: 200 },
  );
});
