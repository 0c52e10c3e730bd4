import { randomFillSync, randomInt } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { connectNbd } from "@blocklayer/nbd-client/node";
import type { WriteArea } from "../disk/write-areas.ts";
import { LANES, REST_MS, WRITE_SIZE } from "./pace.ts";

/*
 * The program of the writer of our own: `client-process.ts URI AREAS`. Writes at random places of the areas until
 * its standard input ends or the server is gone; answers each line of input with the number of its writes.
 */

const [uri = "", areasText = "[]"] = process.argv.slice(2);
const areas = JSON.parse(areasText) as readonly WriteArea[];
let writes = 0;

const connection = await connectNbd(uri);
createInterface({ input: process.stdin })
  .on("line", () => void process.stdout.write(`${writes}\n`))
  .once("close", () => process.exit(0));

await Promise.all(Array.from({ length: LANES }, (_, lane) => writeOn(lane)));

async function writeOn(lane: number): Promise<never> {
  const area = areas[lane % areas.length];
  if (area === undefined) throw new Error("there is no area to write to");
  const buffer = Buffer.alloc(WRITE_SIZE);
  for (;;) {
    const offset = area.offset + randomInt(area.length / WRITE_SIZE) * WRITE_SIZE;
    await connection.write(offset, randomFillSync(buffer));
    writes += 1;
    await sleep(REST_MS);
  }
}
