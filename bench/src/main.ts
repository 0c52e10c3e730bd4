/**
 * Measures blocklayer against the installed peers and prints ratios. Peers take turns within one run, A B A B, because
 * absolute times mean nothing on shared machines; a ratio is that of the medians.
 *
 * `npx pnpm@12.21.0 bench [--quick] [row …]` runs all rows or those whose names are given.
 */
import { parseArgs } from "node:util";
import type { BenchSettings, Row } from "./row.ts";
import { backupThroughput, guestWrites } from "./rows/backup.ts";
import { hbitmapRow } from "./rows/hbitmap.ts";
import { sparseBackupMemory } from "./rows/memory.ts";
import { randomRead, randomWrite, sequentialRead } from "./rows/nbd.ts";
import { printTable } from "./table.ts";
import { Workplace } from "./workplace.ts";

const rows: Readonly<Record<string, (settings: BenchSettings) => Promise<Row[]>>> = {
  "nbd-read": randomRead,
  "nbd-write": randomWrite,
  nbdcopy: sequentialRead,
  backup: backupThroughput,
  "guest-writes": guestWrites,
  hbitmap: hbitmapRow,
  memory: sparseBackupMemory,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: "boolean", default: false } },
});
const unknown = positionals.filter((name) => !(name in rows));
if (unknown.length > 0) {
  console.error(`unknown row ${unknown.join(", ")}; there are ${Object.keys(rows).join(", ")}`);
  process.exit(2);
}
const names = positionals.length > 0 ? positionals : Object.keys(rows);
const workplace = new Workplace();
try {
  const results: Row[] = [];
  for (const name of names) {
    console.error(`measuring ${name} …`);
    const measure = rows[name];
    if (measure === undefined) continue;
    results.push(
      ...(await measure({
        workplace,
        rounds: values.quick ? 1 : 3,
        seconds: values.quick ? 1 : 3,
      })),
    );
  }
  printTable(results);
} finally {
  await workplace.close();
}
