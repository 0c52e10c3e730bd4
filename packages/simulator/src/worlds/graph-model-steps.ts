import {
  type GraphModel,
  type ModelEdge,
  type ModelNode,
  type ModelParent,
  ModelRefusal,
} from "./graph-model.ts";

/*
 * The steps of surgery on the model. Each changes pointers only, or throws a ModelRefusal; permissions follow when all
 * steps of a change are done. spec/graph.md section 4.
 */

/** The parents of `from` get `to`, but for those that stay and those inside of `to`. */
export function modelReplaceNode(
  model: GraphModel,
  from: ModelNode,
  to: ModelNode,
  skip = true,
): void {
  if (from === to) return;
  const inside = model.subtree(to);
  for (const edge of model.edgesTo(from)) {
    const { parent } = edge;
    const mayFollow = parent.isRoot ? !parent.stays : !inside.has(parent);
    if (mayFollow) repoint(edge, to);
    else if (!skip) throw new ModelRefusal(`${parent.name} should not follow`);
  }
}

export function modelAppend(model: GraphModel, top: ModelNode, node: ModelNode): void {
  if (top.kind !== "overlay") throw new ModelRefusal(`${top.name} is no overlay`);
  modelAttach(model, top, "backing", "backing", node);
  modelReplaceNode(model, node, top);
}

export function modelDropFilter(model: GraphModel, filter: ModelNode): void {
  const edge = model.child(filter, "file");
  if (edge === undefined || filter.kind !== "filter") throw new ModelRefusal("not a filter");
  modelReplaceNode(model, filter, edge.node);
  modelDetach(model, edge);
}

export function modelSetBacking(
  model: GraphModel,
  overlay: ModelNode,
  backing: ModelNode | undefined,
): void {
  const edge = model.child(overlay, "backing");
  if (edge?.node === backing) return;
  if (edge !== undefined && edge.frozen > 0) throw new ModelRefusal("the backing link is frozen");
  if (backing === undefined) {
    if (edge !== undefined) modelDetach(model, edge);
  } else if (edge === undefined) {
    modelAttach(model, overlay, "backing", "backing", backing);
  } else {
    checkCircle(model, overlay, backing);
    repoint(edge, backing);
  }
}

export function modelReplaceChild(model: GraphModel, edge: ModelEdge, node: ModelNode): void {
  if (!model.edges.includes(edge)) throw new ModelRefusal("the link was detached");
  if (edge.frozen > 0) throw new ModelRefusal("the link is frozen");
  checkCircle(model, edge.parent, node);
  repoint(edge, node);
}

export function modelAttach(
  model: GraphModel,
  parent: ModelParent,
  name: string,
  role: ModelEdge["role"],
  node: ModelNode,
): ModelEdge {
  checkCircle(model, parent, node);
  if (model.child(parent, name) !== undefined) {
    throw new ModelRefusal(`${parent.name} has a child ${name}`);
  }
  const edge = { parent, name, role, node, frozen: 0, perm: 0, shared: 0 };
  model.edges.push(edge);
  return edge;
}

export function modelDetach(model: GraphModel, edge: ModelEdge): void {
  if (edge.frozen > 0) throw new ModelRefusal("the link is frozen");
  model.edges = model.edges.filter((one) => one !== edge);
}

/** The links from `top` down to `base`, which is not entered, along filtered and backing children. */
export function modelChain(
  model: GraphModel,
  top: ModelNode,
  base: ModelNode | undefined,
): ModelEdge[] {
  const edges: ModelEdge[] = [];
  for (let at = top; at !== base; ) {
    const name = at.kind === "filter" ? "file" : "backing";
    const edge = at.kind === "raw" ? undefined : model.child(at, name);
    if (edge === undefined) break;
    edges.push(edge);
    at = edge.node;
  }
  return edges;
}

function repoint(edge: ModelEdge, to: ModelNode): void {
  if (edge.frozen > 0) throw new ModelRefusal(`the link of ${edge.parent.name} is frozen`);
  edge.node = to;
}

function checkCircle(model: GraphModel, parent: ModelParent, node: ModelNode): void {
  if (parent.isRoot || !model.subtree(node).has(parent)) return;
  throw new ModelRefusal(`${node.name} stands above ${parent.name}`);
}
