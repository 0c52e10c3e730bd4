import { defineConfig } from "vitest/config";

export const shared = defineConfig({
  resolve: { conditions: ["@blocklayer/source"] },
  ssr: { resolve: { conditions: ["@blocklayer/source"] } },
  test: { include: ["test/**/*.test.ts"] },
});
