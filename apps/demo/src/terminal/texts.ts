import { formatBytes, formatMs } from "../scenario/quantities.ts";
import type { Advance, GuestWriteMeasure } from "../scenario/stage.ts";

/** Says how far something is. */
export function progressText({ what, done, total, detail }: Advance): string {
  const percent = percentOf(done, total);
  const rest = detail === "" ? "" : `, ${detail}`;
  return `${what}: ${percent} % (${formatBytes(done)} of ${formatBytes(total)}${rest})`;
}

export function percentOf(done: number, total: number): number {
  return total === 0 ? 100 : Math.min(100, Math.floor((done / total) * 100));
}

const HEAD = ["guest writes", "count", "delay: p50", "p99", "max", "in all", "writer's writes/s"];

/** Returns the lines of a table with aligned columns. */
export function tableLines(rows: readonly GuestWriteMeasure[]): string[] {
  const cells = [HEAD, ...rows.map(cellsOf)];
  const widths = HEAD.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  return cells.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column === 0 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("  "),
  );
}

function cellsOf({ what, delay, writesPerSecond }: GuestWriteMeasure): string[] {
  const speed = `${Math.round(writesPerSecond)}`;
  if (delay === undefined) return [what, "-", "-", "-", "-", "-", speed];
  const times = [delay.p50Ms, delay.p99Ms, delay.maxMs, delay.sumMs].map(formatMs);
  return [what, `${delay.count}`, ...times, speed];
}
