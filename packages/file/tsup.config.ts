import { base } from "../../tsup.config.base.ts";

// Optional dependencies are not left out by themselves, and this one brings a binary.
export default { ...base, external: ["koffi"] };
