export { assert } from "./assert.ts";
export {
  BlockError,
  type BlockErrorContext,
  type BlockErrorOptions,
  toBlockError,
} from "./block-error.ts";
export { Emitter, type Listener } from "./emitter.ts";
export { errnoOf, nameOfErrno, textOfErrno } from "./errno.ts";
