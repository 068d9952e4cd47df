// Reading features: one request at a time counts, the latest; the last few hundred answers are kept.

import { useEffect, useState } from "preact/hooks";
import type { Source } from "../../io/source";
import type { Feature } from "../../io/types";
import { FEATURE, type GraphData } from "../../model/bundle";
import type { Session } from "../../model/session";

const MOST = 300;

export type Loaded = { kind: "loading" } | { kind: "ready"; feature: Feature } | { kind: "absent" } | { kind: "failed"; why: string };

/** Answers by feature, the least recently used forgotten first. A failure is not kept. */
export class Memory {
  private readonly kept = new Map<string, Promise<Feature | null>>();

  constructor(private readonly most = MOST) {}

  get(key: string, read: () => Promise<Feature | null>): Promise<Feature | null> {
    let answer = this.kept.get(key);
    this.kept.delete(key);
    if (!answer) {
      answer = read();
      answer.catch(() => this.kept.get(key) === answer && this.kept.delete(key));
    }
    this.kept.set(key, answer);
    if (this.kept.size > this.most) this.kept.delete(this.kept.keys().next().value!);
    return answer;
  }

  get size(): number {
    return this.kept.size;
  }
}

const memories = new WeakMap<Source, Memory>();

/** The record of the clicked feature. */
export function useFeature(session: Session, graph: GraphData, node: number): Loaded {
  const id = session.current.value;
  const wanted = graph.kind[node] === FEATURE && graph.header.has_features && id !== null;
  const key = `${id} ${graph.part[node]} ${graph.layer[node]} ${graph.index[node]}`;
  const [state, setState] = useState<{ key: string; loaded: Loaded }>({ key: "", loaded: { kind: "loading" } });
  useEffect(() => {
    if (!wanted) return;
    let memory = memories.get(session.source);
    if (!memory) memories.set(session.source, (memory = new Memory()));
    let left = false;
    const set = (loaded: Loaded): void => {
      if (!left) setState({ key, loaded });
    };
    memory.get(key, () => session.source.feature(id!, node)).then(
      (feature) => set(feature ? { kind: "ready", feature } : { kind: "absent" }),
      (error: unknown) => set({ kind: "failed", why: error instanceof Error ? error.message : String(error) }),
    );
    return () => {
      left = true;
    };
  }, [wanted, key]);
  if (!wanted) return { kind: "absent" };
  return state.key === key ? state.loaded : { kind: "loading" };
}
