"""What reading and writing graph files costs: CPU seconds, bytes, peak memory of a fresh process for each step.

    python -m tests.benchmarks.bench_graph_files [--nodes 10000] [--edges 1000000] [--folder FOLDER]

The graph is drawn at random (bench_graph) and written in circuit-tracer's JSON dialect, in our own and natively.
With the defaults circuit-tracer's file has 84 MB. Each file is then opened, and saved again, by a process of its
own, whose imports are not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from jaxinterp.graphs import BIAS, EMBEDDING, ERROR, FEATURE, TARGET, Graph, assemble, load_graph
from jaxinterp.graphs.build import only
from jaxinterp.graphs.ids import cantor
from tests.benchmarks.bench_graph import POSITIONS, edges, node_records

FILES = ("circuit-tracer.json", "own.json", "native.jigraph")


def drawn(nodes: int, count: int, layers: int = 26) -> Graph:
    """A random layered graph of that size."""
    rng = np.random.default_rng(0)
    records = node_records(nodes, layers, 1, rng)
    records["activation"] = np.where(records["kind"] == FEATURE, rng.random(nodes) * 20, np.nan)
    labels = tuple(f" word{i}" if kind == TARGET else "" for i, kind in enumerate(records["kind"]))
    csr = edges(records, count, rng)  # about as many, in small graphs more
    kept = np.zeros(len(csr.weights), bool)
    kept[rng.choice(len(kept), min(count, len(kept)), replace=False)] = True
    return assemble(
        records,
        only(csr, kept),
        token_ids=tuple(range(POSITIONS)),
        token_texts=tuple(f" t{i}" for i in range(POSITIONS)),
        prompt="".join(f" t{i}" for i in range(POSITIONS)),
        n_layers=layers,
        labels=labels,
        settings={"convention": "circuit-tracer"},
    )


def circuit_tracer(graph: Graph) -> dict:
    """The graph as circuit-tracer would write it (it has no bias nodes; they pass here as errors of their own)."""
    nodes, names = [], []
    for i, node in enumerate(graph.nodes):
        kind, layer, at, index = (int(node[key]) for key in ("kind", "layer", "position", "index"))
        name, feature, text, shown = {
            FEATURE: (
                f"{layer}_{index + 100}_{at}",
                cantor(layer, index + 100),
                "cross layer transcoder",
                layer,
            ),
            ERROR: (f"0_{layer}_{at}", -1, "mlp reconstruction error", layer),
            BIAS: (f"{layer}_bias_{at}", -1, "bias", layer),
            EMBEDDING: (f"E_{index}_{at}", at, "embedding", "E"),
            TARGET: (f"{graph.n_layers + 1}_{index}_{at}", index, "logit", graph.n_layers + 1),
        }[kind]
        names.append(name)
        target = kind == TARGET
        nodes.append(
            {
                "node_id": name, "feature": feature, "layer": str(shown), "ctx_idx": at, "feature_type": text,
                "token_prob": float(node["probability"]) if target else 0.0, "is_target_logit": target,
                "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": f"{shown}_{index}-0",
                "clerp": f'Output "{graph.labels[i]}" (p={node["probability"]:.3f})' if target else "",
                "influence": None if target else float(node["share"]),
                "activation": float(node["activation"]) if kind == FEATURE else None,
            }
        )  # fmt: skip
    targets, sources, weights = (x.tolist() for x in graph.edges())
    return {
        "metadata": {
            "slug": "large", "scan": "custom-0", "transcoder_list": [], "prompt_tokens": list(graph.token_texts),
            "prompt": graph.prompt, "node_threshold": 0.8, "schema_version": 1,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": [
            {"source": names[s], "target": names[t], "weight": w}
            for t, s, w in zip(targets, sources, weights, strict=True)
        ],
    }  # fmt: skip


def _peak() -> int:
    """The most memory that this process has had, in bytes (not its parent's, as getrusage would count)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


def measure(path: Path, save: bool) -> None:
    """Open one file, print the cost; then, if asked, save it beside itself and print that."""
    warnings.simplefilter("ignore")
    before = _peak()
    start = time.process_time()
    graph = load_graph(path)
    seconds = time.process_time() - start
    peak = _peak()
    print(
        f"{path.name:<22} {path.stat().st_size:>12} bytes  open {seconds:6.2f} CPU s, peak {peak - before:>12} bytes"
        f" above the {before} of the imports ({len(graph)} nodes, {len(graph.weights)} edges)",
        flush=True,
    )
    if save:
        start = time.process_time()
        graph.save(path.with_name(f"again{path.suffix}"))
        seconds = time.process_time() - start
        after = _peak()
        print(
            f"{'':<22} save {seconds:6.2f} CPU s, peak {after - before:>12} bytes above the imports",
            flush=True,
        )


def main() -> None:
    """Make the files that are not there, then measure each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--folder", help="where the files are kept (default: a temporary folder)")
    parser.add_argument("--native-only", action="store_true", help="no JSON, as for 10,000,000 links")
    parser.add_argument("--measure", metavar="FILE", help="open and save one file, in this process")
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.measure), save=True)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        names = FILES[2:] if options.native_only else FILES
        if not all((folder / name).exists() for name in names):
            graph = drawn(options.nodes, options.edges)
            warnings.simplefilter("ignore")
            for name in names:
                if name == FILES[0]:
                    (folder / name).write_text(json.dumps(circuit_tracer(graph)))
                else:
                    graph.save(folder / name)
        for name in names:
            command = [
                sys.executable,
                "-m",
                "tests.benchmarks.bench_graph_files",
                "--measure",
                str(folder / name),
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
