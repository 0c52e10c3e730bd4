import type { Options } from "tsup";

/** What every package's `tsup.config.ts` exports, as it is or spread. */
export const base: Options = {
  entry: ["src/index.ts"],
  format: ["esm"],
  target: "node22",
  platform: "node",
  sourcemap: true,
  clean: true,
  // TypeScript 7 has no compiler API, so `tsc -p tsconfig.build.json` writes the declarations.
  dts: false,
};
