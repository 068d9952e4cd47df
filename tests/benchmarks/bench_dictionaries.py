"""Training steps of dictionaries, beside SAELens and sparsify, and beside what the machine can do.

Run: python tests/benchmarks/bench_dictionaries.py --peers PYTHON [--lines topk-4096 ...] [--repeats 5] [--json FILE]

PYTHON is an interpreter of another environment that has sae-lens and eai-sparsify; without it only ours is measured.
A step is forward, backward, clipping, Adam and statistics of features, with whatever else the program does at each step
(sparsify: decoders of length one, the gradient along them taken out). float32, d = 512, 4,096 rows, k = 32, rows from a
normal distribution, the same for all. The programs take turns within seconds of each other, with the same number of
threads. Lines:

  topk-4096, topk-16384    TopK autoencoders of so many features; ours, sparsify, SAELens
  jumprelu-4096            JumpReLU with all pre-activations, tanh penalty; bound: 12 rows × d × features
  clt                      a cross-layer transcoder, 1 % of its features active; beside its encoder's gradient alone

Printed: CPU seconds a step (user and system, all threads; the least of the repeats), the median of the ratios of
neighbouring runs, and the floor: operations at the rate of a matrix product measured in between, and bytes of weights
and moments at the best memory bandwidth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

D, ROWS, K = 512, 4096, 32
CLT = {"layers": 8, "features": 4096, "rows": 1024}
LINES = ("topk-4096", "topk-16384", "jumprelu-4096", "clt")
Job = Callable[[], Any]


def cpu() -> float:
    """User and system seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(job: Job) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    wall, spent = time.monotonic(), cpu()
    job()
    return {"wall": time.monotonic() - wall, "cpu": cpu() - spent}


def sparsify_step(features: int) -> Job:
    """One step of sparsify's TopK autoencoder, as its trainer does it."""
    import torch
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(D, SparseCoderConfig(num_latents=features, k=K))
    adam = torch.optim.Adam(coder.parameters(), lr=1e-4)
    x = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(0))
    silent = torch.zeros(features, dtype=torch.long)

    def step() -> None:
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x)
        out.fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            silent.add_(ROWS)
            silent[out.latent_indices.flatten()] = 0

    return step


def saelens_step(line: str, features: int) -> Job:
    """One step of SAELens, as its trainer does it."""
    import torch
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    if line.startswith("topk"):
        sae: Any = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D, d_sae=features, k=K))
    else:
        settings = {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_init_threshold": 1.0}
        sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(d_in=D, d_sae=features, **settings))
    adam = torch.optim.Adam(sae.parameters(), lr=1e-4)
    x = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(0))
    silent, fired = torch.zeros(features, dtype=torch.long), torch.zeros(features)
    names = sae.get_coefficients()

    def step() -> None:
        weights = {name: getattr(value, "value", value) for name, value in names.items()}
        given = TrainStepInput(
            sae_in=x, dead_neuron_mask=None, coefficients=weights, n_training_steps=1, is_logging_step=False
        )
        out = sae.training_forward_pass(step_input=given)
        with torch.no_grad():
            active = out.feature_acts.bool().float()
            silent.add_(1)
            silent[active.sum(-2).bool()] = 0
            fired.add_(active.sum(0))
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.step()
        adam.zero_grad()

    return step


def work(line: str, threads: int) -> None:
    """The loop of another program: a line of input names it and is answered with the time of a step."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    features = int(line.split("-")[1])
    jobs = {"saelens": saelens_step(line, features)}
    if line.startswith("topk"):
        jobs["sparsify"] = sparsify_step(features)
    for request in sys.stdin:
        print(json.dumps(timed(jobs[request.strip()])), flush=True)


class Peers:
    """Other programs, which do a step when they are told to."""

    def __init__(self, python: str, line: str, threads: int) -> None:
        command = [python, __file__, "--worker", line, "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, who: str) -> dict[str, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(who + "\n")
        self.process.stdin.flush()
        for text in self.process.stdout:
            if text.startswith("{"):
                return json.loads(text)
        raise SystemExit("the other program ended")

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def our_step(line: str, sparse: bool | str = "auto") -> tuple[Job, int]:
    """A step of ours, compiled; how many parameters it trains."""
    import jax

    from jaxinterp.dictionaries.config import DictionaryConfig
    from jaxinterp.training.dictionary_specs import DictionaryRun, StartConfig
    from jaxinterp.training.dictionary_step import init, step
    from jaxinterp.training.objective import ObjectiveConfig
    from jaxinterp.training.resample import ResampleConfig
    from jaxinterp.training.sparsity.base import SparsityConfig, make_gate

    clt = line == "clt"
    layers, rows = (CLT["layers"], CLT["rows"]) if clt else (1, ROWS)
    features = CLT["features"] if clt else int(line.split("-")[1])
    active = round(features / 100) if clt else K
    sparsity = SparsityConfig("top-k", l0=active, ranked=False, pre_activation=0.0)
    if line.startswith("jumprelu"):
        sparsity = SparsityConfig("straight-through", pre_activation=0.0, threshold=1.0, bandwidth=2.0)
    parts = 4 if line.startswith("jumprelu") else 1  # 1,024 rows at a time: what they take stays in a cache
    run = DictionaryRun(
        "none", steps=1000, batch=rows, accumulate=parts, normalise=False, sparsity=sparsity,
        start=StartConfig("random", rate=None), resample=ResampleConfig(every=0),
        objective=ObjectiveConfig(sparse=sparse),
    )  # fmt: skip
    shape: dict[str, Any] = {"kind": "clt"}
    if not clt:
        shape = {"kind": "plt", "centre": True, "read_site": "resid_post", "write_site": "resid_post"}
    config = make_gate(sparsity).config(
        DictionaryConfig(n_layers=layers, n_features=features, d_model=D, activation="jumprelu", **shape)
    )
    x = jax.random.normal(jax.random.key(0), (layers, rows, D))
    y = jax.random.normal(jax.random.key(1), (layers, rows, D)) if clt else x
    state = jax.jit(lambda x, y: init(run, config, jax.random.key(2), x, y))(x, y)
    jitted = jax.jit(lambda state, x, y: step(run, config, state, (x, y)), donate_argnums=0)

    def job() -> None:
        nonlocal state
        state, found = jitted(state, x, y)
        jax.block_until_ready((state, found))

    return job, sum(leaf.size for leaf in jax.tree.leaves(state["params"]))


def encoder_alone() -> Job:
    """Forward and backward of the encoder of the cross-layer transcoder, all pre-activations."""
    import jax
    import jax.numpy as jnp

    shape = CLT["layers"], CLT["features"], D
    weights = jax.random.normal(jax.random.key(0), shape)
    x = jax.random.normal(jax.random.key(1), (CLT["layers"], CLT["rows"], D))

    def value(weights: Any, bias: Any) -> Any:
        h = jnp.einsum("lrd,lnd->lrn", x, weights, precision="highest") + bias[:, None, :]
        return jnp.sum(jax.nn.relu(h) ** 2)

    gradient = jax.jit(jax.value_and_grad(value, (0, 1)))
    bias = jnp.zeros(shape[:2])
    return lambda: jax.block_until_ready(gradient(weights, bias))


def machine() -> dict[str, Callable[[], float]]:
    """Operations in a float32 matrix product of a step's shape a CPU second; bytes read a CPU second."""
    import jax
    import jax.numpy as jnp

    a, b = jnp.ones((ROWS, D)), jnp.ones((4096, D))
    product = jax.jit(lambda a, b: jnp.einsum("rd,nd->rn", a, b, precision="highest"))
    big = jnp.ones((2**26,), jnp.float32)
    total = jax.jit(jnp.sum)
    operations = 2 * ROWS * D * 4096
    return {
        "operations": lambda: operations / timed(lambda: product(a, b).block_until_ready())["cpu"],
        "bytes": lambda: 2**28 / timed(lambda: total(big).block_until_ready())["cpu"],
    }


def floor(line: str, parameters: int, rates: dict[str, float]) -> dict[str, float]:
    """CPU seconds of what a step cannot do without: products, and weights and moments read and written once."""
    if line == "clt":
        products = 2 * CLT["layers"] * CLT["rows"] * D * CLT["features"]
    else:
        products = (2 if line.startswith("topk") else 12) * ROWS * D * int(line.split("-")[1])
    return {
        "products": products / rates["operations"],
        "weights_and_moments": 6 * 4 * parameters / rates["bytes"],
    }


def measure(line: str, python: str | None, repeats: int, threads: int) -> dict[str, Any]:
    """One line, the programs taking turns."""
    job, parameters = our_step(line)
    programs: dict[str, Callable[[], dict[str, float]]] = {"ours": lambda: timed(job)}
    if line == "clt":
        alone = encoder_alone()
        programs["encoder alone"] = lambda: timed(alone)
    peers = Peers(python, line, threads) if python and line != "clt" else None
    if peers is not None:
        for who in ("sparsify", "saelens") if line.startswith("topk") else ("saelens",):
            programs[who] = lambda who=who: peers(who)  # type: ignore[misc]
    looks = machine()
    runs: dict[str, list[float]] = {who: [] for who in programs}
    rates: dict[str, list[float]] = {what: [] for what in looks}
    for repeat in range(repeats + 1):  # the first compiles
        for who, go in programs.items():
            found = go()["cpu"]
            if repeat:
                runs[who].append(found)
        for what, look in looks.items():
            rates[what].append(max(look() for _ in range(2)))
    if peers is not None:
        peers.close()
    best = {what: max(seen) for what, seen in rates.items()}
    ours = runs["ours"]
    result: dict[str, Any] = {
        "cpu_seconds": {who: round(min(seen), 3) for who, seen in runs.items()},
        "gflop_per_cpu_second": round(best["operations"] / 1e9, 1),
        "gigabytes_per_cpu_second": round(best["bytes"] / 1e9, 1),
        "floor": {what: round(value, 3) for what, value in floor(line, parameters, best).items()},
        "of_others": {
            who: {
                "of_least": round(min(seen) / min(ours), 2),
                "median": round(statistics.median(b / a for a, b in zip(ours, seen, strict=True)), 2),
            }
            for who, seen in runs.items()
            if who != "ours"
        },
    }
    if line.startswith("jumprelu"):
        each = [
            time_ * rate / (12 * ROWS * D * 4096)
            for time_, rate in zip(ours, rates["operations"][1:], strict=True)
        ]
        result["of_the_bound"] = {
            "of_least": round(min(ours) / result["floor"]["products"], 2),
            "median": round(statistics.median(each), 2),
        }
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="Python interpreter with sae-lens and eai-sparsify")
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads)
        return
    found = {}
    for line in options.lines:
        found[line] = measure(line, options.peers, options.repeats, options.threads)
        print(json.dumps({line: found[line]}, indent=2), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
