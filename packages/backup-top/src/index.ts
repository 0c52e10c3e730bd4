export {
  type BitmapLookup,
  type CopyBeforeWriteOptions,
  type CopyBeforeWriteSettings,
  copyBeforeWrite,
} from "./copy-before-write.ts";
export {
  asCopyBeforeWrite,
  CopyBeforeWriteDriver,
  type CopyBeforeWriteParts,
  isCopyBeforeWrite,
} from "./copy-before-write-driver.ts";
export { DelayHistogram, type DelaySnapshot } from "./delay-histogram.ts";
export { SnapshotAccessDriver, snapshotAccess } from "./snapshot-access.ts";
export {
  isSnapshotSource,
  type SnapshotReadOptions,
  type SnapshotSource,
} from "./snapshot-source.ts";
