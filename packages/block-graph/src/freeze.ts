import type { FreezeHold } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { BlockNode } from "./block-node.ts";
import { chainEdges } from "./chain.ts";

/**
 * Keeps the links of a chain where they are, from `top` down to `base`, whose own link is not included.
 *
 * @param base - default: to the end of the chain
 * @throws BlockError `EPERM` a link is frozen already, or leads to a node that has to stay free to move
 */
export function freezeChain(top: BlockNode, base?: BlockNode): FreezeHold {
  const edges = chainEdges(top, base);
  for (const edge of edges) {
    const parent = (edge.parent as BlockNode).name;
    const context = { node: parent, child: edge.name };
    if (edge.isFrozen) {
      const message = `Cannot freeze '${edge.name}' link to '${edge.node.name}'`;
      throw new BlockError("EPERM", message, context, { hint: "the link is frozen already" });
    }
    if (edge.node.neverFreeze) {
      const message = `Cannot freeze '${edge.name}' link to '${edge.node.name}'`;
      throw new BlockError("EPERM", message, context, { hint: "the node moves by itself" });
    }
  }
  for (const edge of edges) edge.frozenCount += 1;
  let isHeld = true;
  const release = (): void => {
    if (!isHeld) return;
    isHeld = false;
    for (const edge of edges) edge.frozenCount = Math.max(0, edge.frozenCount - 1);
  };
  return { release, [Symbol.dispose]: release };
}
