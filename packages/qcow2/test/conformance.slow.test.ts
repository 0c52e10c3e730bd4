import { testDriver } from "@blocklayer/driver-tests";
import { describe, it } from "vitest";
import { conformanceOf } from "./conformance-families.ts";

const families = [
  conformanceOf("qcow2 with clusters of 512 bytes", { "cluster-size": 512 }),
  conformanceOf(
    "qcow2 with clusters of 512 bytes, in sectors",
    { "cluster-size": 512 },
    { isInSectors: true },
  ),
  conformanceOf("qcow2 with subclusters", { "cluster-size": 16384, "extended-l2": true }),
  conformanceOf(
    "qcow2 with subclusters, in sectors",
    { "cluster-size": 16384, "extended-l2": true },
    { isInSectors: true },
  ),
  conformanceOf("qcow2 of version 2", { version: "v2", "cluster-size": 4096 }),
  conformanceOf(
    "qcow2 over a backing file",
    { "cluster-size": 4096, "backing-file": "below" },
    { hasBacking: true },
  ),
  conformanceOf(
    "qcow2 with subclusters over a backing file",
    { "cluster-size": 16384, "extended-l2": true, "backing-file": "below" },
    { hasBacking: true },
  ),
  conformanceOf(
    "qcow2 of version 2 over a backing file",
    { version: "v2", "cluster-size": 4096, "backing-file": "below" },
    { hasBacking: true },
  ),
  conformanceOf(
    "qcow2 with tables of four slices",
    { "cluster-size": 4096 },
    { hasFewSlices: true },
  ),
];

for (const family of families) testDriver({ ...family, describe, it });
