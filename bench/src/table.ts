import type { Row } from "./row.ts";

/** Prints the rows as a table that Markdown understands. */
export function printTable(rows: readonly Row[]): void {
  const lines = [
    ["row", "ours", "peer", "ratio", "goal", "met"],
    ["---", "---", "---", "---", "---", "---"],
    ...rows.map((row) => [
      row.what,
      row.ours,
      row.peer ?? "",
      row.ratio === undefined ? "" : row.ratio.toFixed(2),
      row.goal,
      row.isMet === undefined ? "peer not installed" : row.isMet ? "yes" : "NO",
    ]),
  ];
  for (const line of lines) console.log(`| ${line.join(" | ")} |`);
}
