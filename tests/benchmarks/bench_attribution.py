"""Seconds and memory for a whole attribution graph, beside what the arithmetic costs and beside circuit-tracer.

Run: python tests/benchmarks/bench_attribution.py [--size small] [--kind plt] [--tokens 64] [--targets 2048 | all]
     [--lazy] [--peer PYTHON [--peer-batch 256]] [--threads 1] [--json FILE]

Random models and dictionaries of the sizes on which circuit-tracer 0.4.1 was measured (CPU, float32, two threads), with
about 75 active features at each layer and token; each graph is made under that program's convention. Printed: CPU
seconds of all threads (wall seconds on an accelerator) without compilation, and what compilation took; programs
compiled for the first prompt and for a second one; floating-point operations that no exact method can leave out (layers
and positions that a target does not depend on are not counted), the machine's rate of float32 matrix products in the
same minute, and the share of it. On a CPU also the peak of memory during the first graph of a fresh process, which has
nothing to use again, beyond what it had before and the graph itself, with the dictionary in memory and read lazily.

With ``--peer``, an interpreter of another environment that has torch and circuit-tracer, `peer_circuit_tracer` makes a
graph of the same size between two of ours (of 2,048 nodes, where ours is of all), its decoders read lazily as it does
by default.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peer_circuit_tracer import forget_peak, resident
from scipy import sparse

from jaxinterp.attribution import trace
from jaxinterp.dictionaries import Dictionary, load_dictionary, save_dictionary
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.graphs.kinds import FEATURE, TARGET
from jaxinterp.models import Model, ModelConfig, declare, forward
from jaxinterp.parallel import weights

SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "tiny": (
        {"vocab_size": 4096, "d_model": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "d_head": 16, "d_mlp": 256,
         "context": 8192, "post_norms": True, "activation": "gelu_tanh", "final_softcap": 30.0}, 1024,
    ),
    "small": (
        {"vocab_size": 4096, "d_model": 288, "n_layers": 6, "n_heads": 6, "n_kv_heads": 6, "d_head": 48, "d_mlp": 768,
         "context": 4096}, 2048,
    ),
    "gpt2s": (
        {"vocab_size": 32000, "d_model": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "d_head": 64,
         "d_mlp": 3072, "context": 1024, "norm": "layer", "positions": "learned", "gated": False,
         "activation": "gelu_tanh", "qkv_bias": True, "out_bias": True, "mlp_bias": True}, 16384,
    ),
    "gemma2-2b": (
        {"vocab_size": 256000, "d_model": 2304, "n_layers": 26, "n_heads": 8, "n_kv_heads": 4, "d_head": 256,
         "d_mlp": 9216, "context": 8192, "post_norms": True, "activation": "gelu_tanh", "final_softcap": 30.0,
         "windows": (4096, 0) * 13}, 16384,
    ),
}  # fmt: skip

# (size, kind, tokens, targets) → CPU seconds of circuit-tracer's attribute(), one run each on a shared machine
PEER = {
    ("tiny", "plt", 16, "512"): 0.9, ("tiny", "plt", 16, "2048"): 1.8, ("tiny", "plt", 64, "2048"): 8.2,
    ("tiny", "plt", 64, "7500"): 27.0, ("tiny", "clt", 16, "2048"): 3.7, ("tiny", "clt", 64, "512"): 5.8,
    ("small", "plt", 16, "2048"): 12.8, ("small", "plt", 64, "2048"): 64.8, ("small", "plt", 64, "7500"): 171.1,
    ("small", "plt", 64, "all"): 64.8, ("small", "clt", 16, "2048"): 41.0, ("small", "clt", 64, "512"): 41.5,
    ("gpt2s", "plt", 16, "2048"): 94.8, ("gpt2s", "plt", 64, "512"): 95.6, ("gpt2s", "clt", 16, "512"): 153.2,
}  # fmt: skip
PEER_GB = {
    ("small", "plt", 64): 4.3,
    ("small", "clt", 16): 2.9,
    ("gpt2s", "plt", 16): 4.9,
    ("gpt2s", "clt", 16): 11.5,
}


def matmul_rate(size: int = 2048, repeats: int = 8, precision: str = "highest") -> float:
    """Float32 matrix product, floating-point operations a CPU second (a second on an accelerator)."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=precision))
    product(a).block_until_ready()
    best = math.inf
    for _ in range(repeats):
        start = clock()
        product(a).block_until_ready()
        best = min(best, clock() - start)
    return 2 * size**3 / best


def clock() -> float:
    """CPU seconds of this process; seconds where an accelerator does the work."""
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()


def build_model(size: str, tokens: int) -> tuple[Model, np.ndarray]:
    """A random model and two prompts."""
    config = ModelConfig(**SIZES[size][0])
    params = weights.initialise(declare(config), key=jax.random.key(1), dtype=jnp.float32)
    return Model(params, config), np.random.default_rng(0).integers(0, config.vocab_size, (2, tokens))


def build(size: str, kind: str, tokens: int, active: int = 75) -> tuple[Model, Dictionary, np.ndarray]:
    """A random model, a random dictionary with biases set so that about ``active`` features are on, two prompts."""
    model, ids = build_model(size, tokens)
    config, n_features = model.config, SIZES[size][1]
    write_site = "mlp_out"
    d = DictionaryConfig(
        kind, config.n_layers, n_features, config.d_model, activation="relu", read_site="mlp_in", write_site=write_site
    )  # fmt: skip
    features = weights.initialise(kind_of(d).declare(d), key=jax.random.key(2), dtype=jnp.float32)
    run = jax.jit(lambda p, x: forward(p, config, x, sites=("mlp_in",)))
    _, found = run(model.params, jnp.asarray(ids[:1]))
    bias = []
    for layer in range(config.n_layers):
        h = np.asarray(jnp.matmul(found.mlp_in[layer, 0], features["W_enc"][layer].T, precision="highest"))
        bias.append(np.full(n_features, -np.quantile(h, 1 - active / n_features)))
    features["b_enc"] = jnp.asarray(np.stack(bias), jnp.float32)
    return model, Dictionary(features, d), ids


def necessary_flops(graph: Any, config: ModelConfig, kind: str, active: np.ndarray) -> float:
    """Multiply-adds times two: transposed attention and contraction of every target, at the layers and positions that
    it depends on. ``active [L, T]``: active features."""
    d, inner, kv = (
        config.d_model,
        config.n_heads * config.d_head,
        config.n_kv_heads * config.d_head,
    )
    nodes = graph.nodes
    below = np.cumsum(np.cumsum(active, axis=0) if kind == "clt" else active, axis=0).cumsum(axis=1)
    total = 0.0
    for what, read_in in ((FEATURE, 1), (TARGET, 0)):
        own = nodes[nodes["kind"] == what]
        layers, seen = own["layer"].astype(float), own["position"] + 1.0
        walks = layers + read_in  # a feature's own layer has its attention before the place where it reads
        total += ((walks - 1) * (seen * 2 * d * (inner + kv) + seen * (seen + 1) * inner)).sum()
        # The first layer on the way is entered at one position: a vector a head goes through both products, then mixes.
        total += (4 * d * inner + seen * 2 * d * config.n_heads).sum()
        at = own["layer"] - 1
        inside = at >= 0
        total += 2 * d * below[at[inside], own["position"][inside]].sum()
    return float(total)


def furthest(graph: Any, exact: Any) -> dict[str, float]:
    """How far edges between nodes of both graphs are off: of the largest edge onto the same target, and of all."""
    columns = ("kind", "part", "layer", "position", "index")
    places = {tuple(node): i for i, node in enumerate(exact.nodes[list(columns)].tolist())}
    at = np.array([places.get(tuple(node), -1) for node in graph.nodes[list(columns)].tolist()])
    targets, sources, weights_ = graph.edges()
    there = (at[targets] >= 0) & (at[sources] >= 0)
    size = (len(exact), len(exact))
    ours = sparse.csr_array((weights_[there], (at[targets[there]], at[sources[there]])), shape=size)
    true = sparse.csr_array((exact.weights, exact.indices, exact.indptr), shape=size)
    shared = (ours != 0).multiply(true != 0)
    off = abs((ours - true).multiply(shared)).max(axis=1).toarray().ravel()
    largest = abs(true).max(axis=1).toarray().ravel()
    some = largest > 0
    return {
        "of_row": float((off[some] / largest[some]).max()), "of_all": float(off.max() / largest.max()),
        "nodes_in_both": int((at >= 0).sum()),
    }  # fmt: skip


def held(graph: Any) -> int:
    """Bytes of a graph's arrays."""
    return sum(getattr(graph, name).nbytes for name in ("nodes", "indptr", "indices", "weights"))


def graph_of(
    model: Model, dictionary: Any, ids: np.ndarray, args: argparse.Namespace, precision: str = ""
) -> Any:
    """The graph that the arguments ask for."""
    return trace(
        model, dictionary, ids, max_feature_nodes=None if args.targets == "all" else int(args.targets),
        convention="circuit-tracer", memory_budget=2**37, precision=precision or args.precision,
    )  # fmt: skip


def first_graph(args: argparse.Namespace) -> dict[str, float]:
    """Memory of a graph in this process, which has made none: of the dictionary in the folder ``args.first``, in GB."""
    model, ids = build_model(args.size, args.tokens)
    dictionary = load_dictionary(args.first, lazy=args.lazy)
    before, files = forget_peak(), resident("RssFile")
    graph = graph_of(model, dictionary, ids[0], args)
    beyond, of_files = resident("VmHWM") - before - held(graph), resident("RssFile") - files
    return {
        "gb_before": round(before / 1e9, 3), "gb_beyond_model_and_result": round(beyond / 1e9, 3),
        "gb_of_files_mapped": round(of_files / 1e9, 3),
    }  # fmt: skip


def of_process(command: list[str]) -> dict[str, Any]:
    """The last line that a command prints, as JSON."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peer_graph(args: argparse.Namespace) -> dict[str, Any]:
    """What `peer_circuit_tracer` measures in the other environment."""
    script = Path(__file__).with_name("peer_circuit_tracer.py")
    command = [args.peer, str(script), "--size", args.size, "--kind", args.kind, "--tokens", str(args.tokens)]
    command += ["--nodes", "2048" if args.targets == "all" else args.targets, "--batch", str(args.peer_batch)]
    command += ["--active", str(args.active), "--threads", str(args.threads)]
    return of_process([*command, "--lazy"])


class Compiled:
    """Counts programs that XLA compiled, and seconds of it."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._seen)

    def _seen(self, event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.count, self.seconds = self.count + 1, self.seconds + seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--kind", choices=("plt", "clt"), default="plt")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--targets", default="2048", help="features that become targets, or all")
    parser.add_argument("--active", type=int, default=75)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lazy", action="store_true", help="decoders stay in their file")
    parser.add_argument("--precision", default="highest", choices=("highest", "high", "default"))
    parser.add_argument("--peer", help="Python interpreter with circuit-tracer")
    parser.add_argument("--peer-batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1, help="of the peer; ours has what XLA_FLAGS say")
    parser.add_argument("--no-memory", action="store_true", help="leave the fresh processes out")
    parser.add_argument("--json")
    parser.add_argument("--first", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first:
        print(json.dumps(first_graph(args)))
        return
    compiled = Compiled()
    on_cpu = jax.default_backend() == "cpu"
    model, dictionary, prompts = build(args.size, args.kind, args.tokens, args.active)
    given: Any = dictionary
    memory: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        look = on_cpu and not args.no_memory
        if args.lazy or look:
            save_dictionary(dictionary, folder)
        if args.lazy:
            given = load_dictionary(folder, lazy=True)
            del dictionary
        if look:
            again = [sys.executable, *sys.argv, "--first", folder]
            memory = {"memory": of_process(again), "memory_lazy": of_process([*again, "--lazy"])}
        result = measure(args, model, given, prompts, compiled) | memory
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


def measure(
    args: argparse.Namespace, model: Model, given: Any, prompts: np.ndarray, compiled: Compiled
) -> dict[str, Any]:
    """Graphs of ours, the peer's in between if it is there, and the machine's rate."""
    compiled.count, compiled.seconds = 0, 0.0
    start = clock()
    graph_of(model, given, prompts[0], args)
    first, programs, compile_seconds = clock() - start, compiled.count, compiled.seconds
    compiled.count = 0
    start = clock()
    graph_of(model, given, prompts[1], args)
    second, again = clock() - start, compiled.count
    seconds: list[float] = []
    rate, peer = 0.0, None
    for repeat in range(args.repeats):
        if args.peer and repeat == args.repeats // 2:
            peer = peer_graph(args)
        start, wall = clock(), time.monotonic()
        graph = graph_of(model, given, prompts[0], args)
        seconds.append(clock() - start)
        print(f"  graph: {seconds[-1]:.2f} s, {time.monotonic() - wall:.2f} s wall", flush=True)
        rate = max(
            rate, matmul_rate(2048 if jax.default_backend() == "cpu" else 8192, precision=args.precision)
        )
    exact = graph if args.precision == "highest" else graph_of(model, given, prompts[0], args, "highest")
    assert exact.checks().ok, exact.checks()
    active = np.full((model.config.n_layers, args.tokens), args.active, float)
    flops = necessary_flops(graph, model.config, args.kind, active)
    best, key = min(seconds), (args.size, args.kind, args.tokens)
    theirs = peer["seconds"] if peer else PEER.get((*key, args.targets))
    return {
        "size": args.size, "kind": args.kind, "tokens": args.tokens, "targets": args.targets, "lazy": args.lazy,
        "device": str(jax.devices()[0]), "rows": int((np.diff(graph.indptr) > 0).sum()), "edges": len(graph.weights),
        "seconds": round(best, 3), "clock": "CPU" if jax.default_backend() == "cpu" else "wall",
        "all_seconds": [round(one, 3) for one in seconds], "first_call": round(first, 2), "programs": programs,
        "compile_wall_seconds": round(compile_seconds, 2), "second_prompt": round(second, 3),
        "programs_second_prompt": again, "result_gb": round(held(graph) / 1e9, 3),
        "necessary_gflop": round(flops / 1e9, 1), "matmul_gflops": round(rate / 1e9, 1),
        "floor_seconds": round(flops / rate, 3), "share_of_floor": round(flops / rate / best, 3),
        "circuit_tracer_seconds": theirs, "times_as_fast": theirs and round(theirs / best, 1),
        "circuit_tracer_peak_gb": PEER_GB.get(key), "precision": args.precision,
        "edges_off": None if exact is graph else furthest(graph, exact), "peer": peer, "load": os.getloadavg(),
        "python": platform.python_version(), "jax": jax.__version__,
    }  # fmt: skip


if __name__ == "__main__":
    main()
