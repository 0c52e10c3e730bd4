import { demo } from "./demo.ts";
import { SETTINGS } from "./scenario/settings.ts";

/** Package runners change to the app's folder; this is where their user is. */
const { INIT_CWD: folder = process.cwd() } = process.env;

process.exitCode = await demo(process.argv.slice(2), folder, SETTINGS);
