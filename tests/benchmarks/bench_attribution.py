"""CPU seconds for every row of an attribution graph, beside what the arithmetic costs.

Run: python tests/benchmarks/bench_attribution.py [--tokens 64] [--targets 2048] [--json FILE]

A random 6-layer model, d = 288, 6 heads, with 2,048 features a layer of which about 75 are active at each
layer and token (the "small" size of circuit-tracer comparisons, which needs about 31 ms of CPU a row there).
Printed: CPU milliseconds a row (all threads), the machine's float32 matrix-product rate in the same
minute, the necessary floating-point operations and the share of that rate that was reached.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import trace
from jaxinterp.dictionaries import Dictionary
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.models import Model, ModelConfig, declare, forward
from jaxinterp.parallel import weights

PEER_MS, SCAN_MS = 31.0, 0.8


def matmul_rate(size: int = 2048, repeats: int = 6) -> float:
    """Float32 matrix product, floating-point operations a CPU second."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    product(a).block_until_ready()
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        product(a).block_until_ready()
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def build(kind: str, tokens: int, active: int) -> tuple[Model, Dictionary, np.ndarray]:
    """A random model, a random dictionary with biases set so that about ``active`` features are on."""
    config = ModelConfig(
        vocab_size=4096, d_model=288, n_layers=6, n_heads=6, n_kv_heads=6, d_head=48, d_mlp=768, context=256
    )
    params = weights.initialise(declare(config), key=jax.random.key(1), dtype=jnp.float32)
    d = DictionaryConfig(kind, 6, 2048, 288, activation="relu", read_site="mlp_in")
    features = weights.initialise(kind_of(d).declare(d), key=jax.random.key(2), dtype=jnp.float32)
    ids = np.random.default_rng(0).integers(0, 4096, tokens)
    _, found = forward(params, config, jnp.asarray(ids)[None], sites=("mlp_in",))
    h = np.asarray(kind_of(d).pre_activations(features, d, found.mlp_in[:, 0]))
    bias = -np.quantile(h, 1 - active / 2048, axis=(1, 2))
    features["b_enc"] = jnp.asarray(np.repeat(bias[:, None], 2048, 1), jnp.float32)
    return Model(params, config), Dictionary(features, d), ids


def necessary_flops(model: Model, tokens: int, active: np.ndarray, layers: np.ndarray, kind: str) -> float:
    """Multiply-adds times two of the frozen backward pass and contraction, layers above a target left out.

    A causal position mask would save up to half of it; it is counted in full because the walk does.
    """
    c = model.config
    width, heads, d = c.n_heads * c.d_head, c.n_heads, c.d_model
    block = 2 * tokens * d * width * 2 + 2 * tokens * tokens * heads * c.d_head
    total = 0.0
    for layer in layers:
        for below in range(layer):
            sources = active[below] if kind == "plt" else active[: below + 1].sum()
            total += block + 2 * d * sources
        total += block if layer < c.n_layers else 0.0
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=("plt", "clt"), default="plt")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--targets", type=int, default=2048)
    parser.add_argument("--active", type=int, default=75)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()
    model, dictionary, ids = build(args.kind, args.tokens, args.active)

    seconds, first = [], None
    for _ in range(args.repeats + 1):
        start, wall = time.process_time(), time.monotonic()
        graph = trace(
            model,
            dictionary,
            ids,
            max_feature_nodes=args.targets,
            convention="circuit-tracer",
            memory_budget=2**36,
        )
        spent = time.process_time() - start
        first, seconds = (spent, seconds) if first is None else (first, [*seconds, spent])
        print(f"  trace: {spent:.2f} CPU s, {time.monotonic() - wall:.2f} s wall", flush=True)
    rate = matmul_rate()
    nodes = graph.nodes[graph.nodes["kind"] == 0]
    rows = len(nodes) + len(graph.targets)
    counts = np.full(6, args.active * args.tokens, float)
    layers = np.concatenate([nodes["layer"], np.full(len(graph.targets), 6)])
    flops = necessary_flops(model, args.tokens, counts, layers, args.kind)
    best = min(seconds)
    result = {
        "kind": args.kind, "tokens": args.tokens, "rows": rows, "cpu_seconds": round(best, 3),
        "cpu_seconds_first_call": round(first or 0, 3), "ms_per_row": round(1e3 * best / rows, 3),
        "matmul_gflops_per_cpu_second": round(rate / 1e9, 1), "necessary_gflop": round(flops / 1e9, 1),
        "floor_ms_per_row": round(1e3 * flops / rate / rows, 3), "share_of_floor": round(flops / rate / best, 3),
        "circuit_tracer_ms_per_row": PEER_MS, "einsum_scan_ms_per_row": SCAN_MS,
        "times_faster_than_circuit_tracer": round(PEER_MS / (1e3 * best / rows), 1),
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if args.json:
        from pathlib import Path

        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
