export {
  type RawCreateOptions,
  type RawDefinitionOptions,
  type RawOptions,
  raw,
  rawDefinition,
} from "./raw.ts";
export { RawDriver, type RawHost } from "./raw-driver.ts";
export type { FormatProber, SectorGuard } from "./sector-guard.ts";
export type { RawWindow } from "./window.ts";
