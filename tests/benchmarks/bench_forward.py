"""Forward pass, forward pass with MLP inputs and outputs recorded, and generation, beside `transformers`.

Run: python tests/benchmarks/bench_forward.py --torch PYTHON [--models gpt2 qwen2] [--repeats 5] [--json FILE]

PYTHON is an interpreter of another environment that has torch and transformers; without it only ours is measured.
Random float32 weights in the shapes of GPT-2 (124 M parameters) and Qwen2.5-0.5B, batch 4 x 256 tokens; generation:
4 rows, 16 tokens read and 32 made, greedy. The two programs take turns, job by job, with the same number of threads.
Printed: wall and CPU seconds (user and system, all threads), the least of the repeats each; ratios (above 1: ours is
faster); what recording costs; the floor, which is matrix products at the best rate measured in between or, for
generation, one reading of the weights a token at the best memory bandwidth measured in between.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "qwen2": {
        "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rope_theta": 1e6,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    },
}  # fmt: skip
BATCH, LENGTH, ROWS, PROMPT, NEW = 4, 256, 4, 16, 32
JOBS = ("forward", "recorded", "generation")


def cpu() -> float:
    """User and system seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(job: Callable[[], Any]) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    wall, spent = time.monotonic(), cpu()
    job()
    return {"wall": time.monotonic() - wall, "cpu": cpu() - spent}


def torch_jobs(name: str, threads: int) -> dict[str, Callable[[], Any]]:
    """The jobs in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kinds = {"gpt2": ("GPT2Config", "GPT2LMHeadModel"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM")}
    config, kind = (getattr(transformers, part) for part in kinds[name])
    model = kind(config(**SHAPES[name])).float().eval()
    tokens = torch.randint(0, 50000, (BATCH, LENGTH))
    kept: list[Any] = []

    @torch.no_grad()
    def forward() -> None:
        model(tokens, use_cache=False)

    @torch.no_grad()
    def recorded() -> None:
        kept.clear()
        layers = model.transformer.h if name == "gpt2" else model.model.layers
        hooks = [
            layer.mlp.register_forward_hook(lambda _, given, out: kept.append((given[0], out)))
            for layer in layers
        ]
        model(tokens, use_cache=False)
        for hook in hooks:
            hook.remove()

    @torch.no_grad()
    def generation() -> None:
        prompt = tokens[:ROWS, :PROMPT]
        mask = torch.ones_like(prompt)
        model.generate(
            prompt,
            attention_mask=mask,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )

    return {"forward": forward, "recorded": recorded, "generation": generation}


def our_jobs(name: str) -> tuple[dict[str, Callable[[], Any]], int, int]:
    """The jobs in jaxinterp, compiled; the operations of a forward pass; bytes of the weights."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxinterp.checkpoints.huggingface import read_config
    from jaxinterp.models import declare, forward, generate_tokens
    from jaxinterp.parallel import weights

    content = {"model_type": name, **SHAPES[name]}
    _, config = read_config(content, name)
    params = weights.initialise(declare(config), key=jax.random.key(0), dtype=jnp.float32)
    tokens = jnp.asarray(np.random.default_rng(0).integers(50000, size=(BATCH, LENGTH)), jnp.int32)
    plain = jax.jit(lambda params, tokens: forward(params, config, tokens)[0])
    sites = ("mlp_in", "mlp_out")
    record = jax.jit(lambda params, tokens: forward(params, config, tokens, sites=sites))
    extend = jax.jit(lambda params, tokens: generate_tokens(params, config, tokens, new=NEW))
    jobs = {
        "forward": lambda: jax.block_until_ready(plain(params, tokens)),
        "recorded": lambda: jax.block_until_ready(record(params, tokens)),
        "generation": lambda: jax.block_until_ready(extend(params, tokens[:ROWS, :PROMPT])),
    }
    embeddings = config.vocab_size * config.d_model
    inner = config.n_params() - embeddings * (1 if config.tied else 2)
    inner -= config.context * config.d_model if config.positions == "learned" else 0
    pairs = 2 * 2 * config.n_layers * config.n_heads * config.d_head * BATCH * LENGTH**2
    return jobs, 2 * (inner + embeddings) * BATCH * LENGTH + pairs, 4 * (inner + embeddings)


def machine() -> dict[str, Callable[[], float]]:
    """What the machine can do: operations a second in a float32 matrix product, bytes a second when reading memory."""
    import jax
    import jax.numpy as jnp

    a = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    big = jnp.ones((2**26,), jnp.float32)
    total = jax.jit(jnp.sum)
    return {
        "operations": lambda: 2 * 2048**3 / timed(lambda: product(a).block_until_ready())["wall"],
        "bytes": lambda: 2**28 / timed(lambda: total(big).block_until_ready())["wall"],
    }


class Torch:
    """The other program, which does a job when it is told to."""

    def __init__(self, python: str, name: str, threads: int) -> None:
        command = [python, __file__, "--worker", name, "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, job: str) -> dict[str, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(job + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def work(name: str, threads: int) -> None:
    """The loop of the other program."""
    jobs = torch_jobs(name, threads)
    for line in sys.stdin:
        print(json.dumps(timed(jobs[line.strip()])), flush=True)


def measure(name: str, python: str | None, repeats: int, threads: int) -> dict[str, Any]:
    """Every job of one model, the programs taking turns."""
    jobs, operations, size = our_jobs(name)
    programs: dict[str, Callable[[str], dict[str, float]]] = {"ours": lambda job: timed(jobs[job])}
    if python:
        programs["torch"] = Torch(python, name, threads)
    least = {job: {who: {"wall": math.inf, "cpu": math.inf} for who in programs} for job in JOBS}
    measures, best = machine(), {"operations": 0.0, "bytes": 0.0}
    for repeat in range(repeats + 1):  # the first compiles
        for what, look in measures.items():
            best[what] = max([best[what], *(look() for _ in range(3))])
        for job in JOBS:
            for who, run in programs.items():
                found = run(job)
                if repeat:
                    least[job][who] = {key: min(old, found[key]) for key, old in least[job][who].items()}
    rate, bandwidth = best["operations"], best["bytes"]
    ours = least["forward"]["ours"]
    result: dict[str, Any] = {
        "seconds": least,
        "recording_costs": {key: round(least["recorded"]["ours"][key] / ours[key] - 1, 3) for key in ours},
        "generation_ms_per_token": {who: round(1e3 * t["wall"] / NEW, 1) for who, t in least["generation"].items()},
        "floor_seconds": {"forward": operations / rate, "generation": size * NEW / bandwidth},
        "gflops_per_second": round(rate / 1e9, 1), "gigabytes_per_second": round(bandwidth / 1e9, 1),
    }  # fmt: skip
    if python:
        result["times_as_fast_as_transformers"] = {
            job: {key: round(t["torch"][key] / t["ours"][key], 2) for key in ("wall", "cpu")}
            for job, t in least.items()
        }
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", help="Python interpreter with torch and transformers")
    parser.add_argument("--models", nargs="+", choices=tuple(SHAPES), default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json")
    parser.add_argument("--worker", choices=tuple(SHAPES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads)
        return
    found = {}
    for name in options.models:
        found[name] = measure(name, options.torch, options.repeats, options.threads)
        print(json.dumps({name: found[name]}, indent=2), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
