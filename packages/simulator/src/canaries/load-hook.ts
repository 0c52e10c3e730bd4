import { registerHooks } from "node:module";
import { type Canary, plant } from "./canary.ts";

/** A canary that is in place for all modules that are loaded from now on. */
export interface PlantedCanary {
  /** Whether its module was loaded. */
  readonly isLoaded: boolean;
}

/** Plants a bug into the next loading of its module. For a process of its own: nothing takes it out again. */
export function plantCanary(canary: Canary): PlantedCanary {
  const planted = { isLoaded: false };
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context);
      if (!url.endsWith(`/packages/${canary.file}`)) return loaded;
      planted.isLoaded = true;
      const { source } = loaded;
      const text = typeof source === "string" ? source : new TextDecoder().decode(source);
      return { ...loaded, source: plant(canary, text) };
    },
  });
  return planted;
}
