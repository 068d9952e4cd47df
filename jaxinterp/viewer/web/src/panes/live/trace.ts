// A trace that runs on the server: started, watched, cancelled, and opened when it is done.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Session } from "../../model/session";
import type { Asked } from "./settings";

const PAUSE = 350; // ms between two looks
const PATIENCE = 5; // looks that may fail one after the other

export type TraceState =
  | { kind: "idle" }
  | { kind: "running"; stage: string; fraction: number | null; cancelling: boolean }
  | { kind: "cancelled"; late: boolean }
  | { kind: "failed"; why: string };

export interface Trace {
  state: TraceState;
  start: (asked: Asked) => Promise<void>;
  cancel: () => Promise<void>;
}

export function useTrace(session: Session, done: () => void): Trace {
  const [state, setState] = useState<TraceState>({ kind: "idle" });
  const job = useRef<number | null>(null);
  const gone = useRef(false);
  const unwanted = useRef(false); // cancelled, perhaps before the server gave it a number
  useEffect(() => {
    gone.current = false;
    return () => {
      gone.current = true;
    };
  }, []);

  const fail = (error: unknown): void => setState({ kind: "failed", why: error instanceof Error ? error.message : String(error) });

  const watch = async (id: number): Promise<void> => {
    let failures = 0;
    while (!gone.current && job.current === id) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      try {
        const found = await session.source.job(id);
        failures = 0;
        if (gone.current || job.current !== id) return;
        if (found.state === "queued" || found.state === "running") {
          setState((old) => ({ kind: "running", stage: found.state === "queued" ? "Waiting for its turn" : found.stage || "Working", fraction: found.fraction, cancelling: old.kind === "running" && old.cancelling }));
          continue;
        }
        job.current = null;
        if (found.state === "cancelled") return setState({ kind: "cancelled", late: false });
        if (found.state === "failed" || found.graph === null) return setState({ kind: "failed", why: found.error ?? "the trace failed; the terminal says why" });
        session.files.value = (await session.source.files()).files;
        // Cancelled too late: it is there, but it is not put before the user.
        if (unwanted.current) return setState({ kind: "cancelled", late: true });
        setState({ kind: "idle" });
        done();
        await session.open(found.graph);
        return;
      } catch (error) {
        if (++failures < PATIENCE) continue;
        job.current = null;
        return fail(error);
      }
    }
  };

  const start = async (asked: Asked): Promise<void> => {
    setState({ kind: "running", stage: "Asking", fraction: null, cancelling: false });
    unwanted.current = false;
    try {
      const { job: id } = await session.source.trace({ ...asked });
      job.current = id;
      if (unwanted.current) void cancel();
      void watch(id);
    } catch (error) {
      fail(error);
    }
  };

  const cancel = async (): Promise<void> => {
    setState((old) => (old.kind === "running" ? { ...old, cancelling: true } : old));
    const id = job.current;
    unwanted.current = true;
    if (id === null) return;
    try {
      await session.source.cancel(id);
    } catch (error) {
      fail(error);
    }
  };

  return { state, start, cancel };
}
