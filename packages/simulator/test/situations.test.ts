import { runCampaign, worlds } from "@blocklayer/simulator";
import { expect, it } from "vitest";

it.each(worlds)(
  "the world $name is wild enough for its rare situations",
  async (world) => {
    const { counts } = await runCampaign(world, { seeds: 250 });
    expect([...counts.keys()]).toEqual(expect.arrayContaining([...world.situations]));
  },
  120_000,
);
