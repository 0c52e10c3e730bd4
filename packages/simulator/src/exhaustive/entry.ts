export { explore } from "../exhaustive.ts";
export { smallSpaces, spaces } from "./all-spaces.ts";
