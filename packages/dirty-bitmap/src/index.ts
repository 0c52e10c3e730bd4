export type { BitmapInfo } from "./bitmap-info.ts";
export {
  type AddOptions,
  type AnonymousOptions,
  BitmapManager,
  type BitmapReference,
} from "./bitmap-manager.ts";
export type { BitmapUse, DirtyBitmap } from "./dirty-bitmap.ts";
