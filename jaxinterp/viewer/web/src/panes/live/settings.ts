// What the form asks for, from what was typed.

export interface Typed {
  prompt: string;
  targets: string;
  features: string;
  nodes: string;
  edges: string;
}

export const FIRST: Typed = { prompt: "", targets: "", features: "", nodes: "0.8", edges: "0.98" };

export interface Asked {
  prompt: string;
  targets: string | null;
  max_feature_nodes: number | null;
  node_threshold: number;
  edge_threshold: number;
}

/** The request, or what is wrong with the form and with which field of it. */
export function request(typed: Typed): { asked: Asked } | { field: keyof Typed; error: string } {
  if (typed.prompt === "") return { field: "prompt", error: "Type a prompt." };
  const features = typed.features.replace(/[,_\s]/g, "");
  if (features !== "" && !/^[1-9]\d{0,8}$/.test(features)) return { field: "features", error: "The cap on features is a whole number, or empty for none." };
  const nodes = share(typed.nodes);
  if (nodes === null) return { field: "nodes", error: "The share of influence kept by nodes is a number above 0, up to 1." };
  const edges = share(typed.edges);
  if (edges === null) return { field: "edges", error: "The share of influence kept by edges is a number above 0, up to 1." };
  const targets = typed.targets.trim();
  return { asked: { prompt: typed.prompt, targets: targets || null, max_feature_nodes: features ? Number(features) : null, node_threshold: nodes, edge_threshold: edges } };
}

function share(text: string): number | null {
  const x = Number(text.trim().replace(",", "."));
  return text.trim() !== "" && x > 0 && x <= 1 ? x : null;
}
