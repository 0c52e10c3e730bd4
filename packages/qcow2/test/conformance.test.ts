import { testDriver } from "@blocklayer/driver-tests";
import { describe, it } from "vitest";
import { conformanceOf } from "./conformance-families.ts";

testDriver({
  ...conformanceOf("qcow2 with clusters of 4 KiB", { "cluster-size": 4096 }),
  describe,
  it,
});

testDriver({
  ...conformanceOf("qcow2 in sectors", { "cluster-size": 4096 }, { isInSectors: true }),
  describe,
  it,
});
