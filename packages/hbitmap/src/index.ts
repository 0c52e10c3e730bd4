export { type DirtyArea, HBitmap, type RunStatus } from "./hbitmap.ts";
export { HBitmapIterator } from "./hbitmap-iterator.ts";
