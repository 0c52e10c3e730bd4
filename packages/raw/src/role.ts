import { Role, type RoleMask } from "@blocklayer/driver";
import type { RawWindow } from "./window.ts";

/** The role of the file: filtered while it is shown as a whole, data when a window is. */
export function roleOf({ offset, size }: RawWindow): RoleMask {
  const hasWindow = offset !== 0 || size !== undefined;
  return (hasWindow ? Role.data : Role.filtered) | Role.primary;
}
