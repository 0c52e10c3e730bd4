import { defineConfig } from "vitest/config";

export const shared = defineConfig({
  resolve: { conditions: ["@blocklayer/source"] },
  ssr: { resolve: { conditions: ["@blocklayer/source"] } },
  // Tests do not wait, so a limit only ends what hangs; machines may be busy.
  test: { include: ["test/**/*.test.ts"], testTimeout: 30_000 },
});
