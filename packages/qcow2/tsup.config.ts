import { base } from "../../tsup.config.base.ts";

export default { ...base, entry: { index: "src/index.ts", node: "src/node/index.ts" } };
