/**
 * Puts a toy in the place of the world `hbitmap`, in every process that is started with `--import` of this file: what it
 * does with the number that it draws comes from the environment.
 */
import { registerHooks } from "node:module";

const TOY = `
  const { TOY_ENDLESS, TOY_ENDS, TOY_FAILS } = process.env;
  const is = (text, fate) => text !== undefined && (text === "always" || Number(text) === fate);
  export const hbitmapWorld = {
    name: "hbitmap",
    situations: ["never seen"],
    run({ decisions }) {
      const fate = decisions.choose("fate", 2 ** 32);
      if (is(TOY_ENDS, fate)) process.kill(process.pid, "SIGKILL");
      if (is(TOY_ENDLESS, fate)) {
        process.stderr.write("endless in " + process.pid + "\\n");
        for (;;);
      }
      return is(TOY_FAILS, fate) ? Promise.reject(new Error("unlucky 7")) : Promise.resolve();
    },
  };
`;

registerHooks({
  load(url, context, nextLoad) {
    if (!url.endsWith("/worlds/hbitmap.ts")) return nextLoad(url, context);
    return { format: "module", source: TOY, shortCircuit: true };
  },
});
