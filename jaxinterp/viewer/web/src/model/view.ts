// What a user has made of a graph: pins, groups, names, places. Immutable; every edit gives a new View.

export interface Group {
  name: string;
  members: number[];
}

export interface View {
  pinned: number[];
  groups: Group[];
  /** Labels changed by the user, by node number. */
  labels: Record<string, string>;
  clicked: number | null;
  /** Places in the subgraph pane, 0..1, by "n<node>" or "g:<group name>". */
  positions: Record<string, [number, number]>;
  hidden: number[];
  link_type: string;
  views: { name: string; view: Omit<View, "views"> }[];
  notes: string;
}

export const EMPTY: View = {
  pinned: [],
  groups: [],
  labels: {},
  clicked: null,
  positions: {},
  hidden: [],
  link_type: "both",
  views: [],
  notes: "",
};

/** A View from what a file held; what is missing is empty, nodes that do not exist are dropped. */
export function complete(found: Partial<View>, n: number): View {
  const real = (nodes: number[] | undefined): number[] => [...new Set((nodes ?? []).filter((i) => Number.isInteger(i) && i >= 0 && i < n))];
  const taken = new Set<number>();
  const groups: Group[] = [];
  for (const group of found.groups ?? []) {
    const members = real(group.members).filter((i) => !taken.has(i));
    members.forEach((i) => taken.add(i));
    if (members.length) groups.push({ name: uniqueName(groups, String(group.name)), members });
  }
  const pinned = real([...(found.pinned ?? []), ...groups.flatMap((g) => g.members)]);
  const clicked = found.clicked ?? null;
  return {
    ...EMPTY,
    ...found,
    pinned,
    groups,
    labels: { ...(found.labels ?? {}) },
    positions: { ...(found.positions ?? {}) },
    hidden: real(found.hidden),
    clicked: clicked !== null && clicked >= 0 && clicked < n ? clicked : null,
    views: found.views ?? [],
    notes: found.notes ?? "",
    link_type: found.link_type ?? "both",
  };
}

function uniqueName(groups: Group[], name: string): string {
  const used = new Set(groups.map((g) => g.name));
  if (!used.has(name)) return name;
  let k = 2;
  while (used.has(`${name} (${k})`)) k++;
  return `${name} (${k})`;
}

export const pin = (view: View, nodes: number[]): View => ({
  ...view,
  pinned: [...view.pinned, ...nodes.filter((i) => !view.pinned.includes(i))],
});

/** Unpinned nodes leave their groups; a group without members goes away. */
export function unpin(view: View, nodes: number[]): View {
  const gone = new Set(nodes);
  return {
    ...view,
    pinned: view.pinned.filter((i) => !gone.has(i)),
    groups: view.groups.map((g) => ({ ...g, members: g.members.filter((i) => !gone.has(i)) })).filter((g) => g.members.length),
  };
}

/** Put nodes into a new group; they leave the groups they were in and are pinned. */
export function group(view: View, name: string, nodes: number[]): View {
  if (!nodes.length) return view;
  const taken = new Set(nodes);
  const rest = view.groups.map((g) => ({ ...g, members: g.members.filter((i) => !taken.has(i)) })).filter((g) => g.members.length);
  return pin({ ...view, groups: [...rest, { name: uniqueName(rest, name), members: [...nodes] }] }, nodes);
}

export const ungroup = (view: View, name: string): View => ({ ...view, groups: view.groups.filter((g) => g.name !== name) });

export function addToGroup(view: View, name: string, nodes: number[]): View {
  const taken = new Set(nodes);
  const groups = view.groups
    .map((g) => (g.name === name ? { ...g, members: [...new Set([...g.members, ...nodes])] } : { ...g, members: g.members.filter((i) => !taken.has(i)) }))
    .filter((g) => g.members.length);
  return pin({ ...view, groups }, nodes);
}

export function renameGroup(view: View, old: string, name: string): View {
  if (old === name || !name.trim()) return view;
  const others = view.groups.filter((g) => g.name !== old);
  const fresh = uniqueName(others, name.trim());
  const positions = { ...view.positions };
  const at = positions[`g:${old}`];
  if (at) {
    positions[`g:${fresh}`] = at;
    delete positions[`g:${old}`];
  }
  return { ...view, positions, groups: view.groups.map((g) => (g.name === old ? { ...g, name: fresh } : g)) };
}

/** An empty label takes the user's label away again. */
export function label(view: View, node: number, text: string): View {
  const labels = { ...view.labels };
  if (text.trim()) labels[String(node)] = text.trim();
  else delete labels[String(node)];
  return { ...view, labels };
}

export const place = (view: View, key: string, x: number, y: number): View => ({ ...view, positions: { ...view.positions, [key]: [x, y] } });

export const setGroups = (view: View, groups: Group[]): View => groups.reduce((v, g) => group(v, g.name, g.members), { ...view, groups: [] as Group[] });

export const hide = (view: View, nodes: number[]): View => ({ ...view, hidden: [...new Set([...view.hidden, ...nodes])] });

export const show = (view: View, nodes: number[]): View => ({ ...view, hidden: view.hidden.filter((i) => !nodes.includes(i)) });
