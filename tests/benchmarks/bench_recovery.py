"""Known ground truth: how many of 100 superposed features each way of keeping features sparse recovers.

``python tests/benchmarks/bench_recovery.py [NAME ...] [--seeds 3]`` prints a row of a table for each. Recipes were
tuned by hand on seed 0 (of directions, rows and start) before the others were looked at; those of quadratic rows and of
nested prefixes were changed once after that, see docs/measurements.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from typing import Any, NamedTuple

from jaxinterp.evaluation.synthetic import SyntheticFeatures, decoders, recovery
from jaxinterp.training.dictionary_specs import DictionaryRun, DictionarySpec, StartConfig
from jaxinterp.training.objective import ObjectiveConfig
from jaxinterp.training.optimiser import OptimiserConfig
from jaxinterp.training.resample import ResampleConfig
from jaxinterp.training.sparsity.base import SparsityConfig
from jaxinterp.training.synthetic import train_synthetic


class Result(NamedTuple):
    """What one run found."""

    found: float
    matched: float
    at_start: float
    nmse: float
    l0: float
    dead: float
    seconds: float


def recipe(
    method: str, n_features: int = 200, steps: int = 4000, nesting: tuple[int, ...] = (), **sparsity: Any
) -> DictionaryRun:
    """A sparse autoencoder of ``n_features`` on synthetic features; what all recipes have in common.

    Sites are scaled (as in any run), features start at data points, and dead ones are started again.
    """
    return DictionaryRun(
        "synthetic", steps, batch=512,
        dictionary=DictionarySpec("plt", n_features, centre=True, read_site="resid_post", write_site="resid_post"),
        start=StartConfig(rate=0.02),
        sparsity=SparsityConfig(method, **{"pre_activation": 0.0, **sparsity}),
        optimiser=OptimiserConfig(learning_rate=3e-3, warmup=100, decay=0.4),
        resample=ResampleConfig(dead_after=40, every=80, until=0.6, at_most=0.05),
        objective=ObjectiveConfig(nesting=nesting),
    )  # fmt: skip


STRAIGHT: dict[str, Any] = {"threshold": 0.3, "ramp": 0.5}
RECIPES: dict[str, DictionaryRun] = {
    "l1": recipe("l1", coefficient=0.05, ramp=0.2),
    "gated": recipe("gated", coefficient=0.4, ramp=0.05),
    "top-k": recipe("top-k", l0=3, start_l0=6),
    "batch-top-k": recipe("batch-top-k", l0=2, start_l0=4),
    "group-max": recipe("group-max", n_features=256, l0=4),
    "layer-threshold": recipe("layer-threshold", l0=1.5, start_l0=4, threshold=0.5),
    "jumprelu-step": recipe("straight-through", penalty="step", coefficient=0.05, bandwidth=0.5, **STRAIGHT),
    "jumprelu-tanh": recipe("straight-through", coefficient=0.06, bandwidth=1.0, scale=1.0, **STRAIGHT),
    "jumprelu-quadratic": recipe(
        "straight-through", penalty="quadratic", coefficient=1.0, l0=1.5, start_l0=4, bandwidth=0.5, **STRAIGHT
    ),
    "jumprelu-quadratic-rows": recipe(
        "straight-through", penalty="quadratic-rows", coefficient=0.02, l0=1.0, start_l0=4, bandwidth=0.5, **STRAIGHT
    ),
    "matryoshka, l1": recipe("l1", 256, nesting=(128,), coefficient=0.05, ramp=0.2),
    "matryoshka, top-k": recipe("top-k", 300, nesting=(200,), l0=3, start_l0=6),
}  # fmt: skip


def measure(run: DictionaryRun, seed: int, least: float = 0.95) -> Result:
    """Train and compare with the truth."""
    data = SyntheticFeatures(seed=seed)
    started = time.process_time()
    trained, history = train_synthetic(run, data)
    seconds = time.process_time() - started
    found = recovery(data.directions(), decoders(trained), least)
    start = recovery(data.directions(), decoders(train_synthetic(run, data, steps=0)[0]), least)
    last = {name: float(values[-50:].mean()) for name, values in history.items()}
    return Result(found.found, found.matched, start.found, last["nmse"], last["l0"], last["dead"], seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all when none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="instead of each recipe's")
    arguments = parser.parse_args()
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # before the first array is made
    print("| kind | recovered, by seed | each decoder once | at the start | NMSE | L0 | dead | CPU s a run |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.names or RECIPES:
        run = RECIPES[name]
        if arguments.steps:
            run = dataclasses.replace(run, steps=arguments.steps)
        results = [measure(run, seed) for seed in range(arguments.seeds)]
        mean = Result(*(statistics.mean(column) for column in zip(*results, strict=True)))
        each = [
            "/".join(f"{100 * value:.0f}" for value in column)
            for column in list(zip(*results, strict=True))[:3]
        ]
        print(
            f"| {name} | {' | '.join(each)} | {mean.nmse:.3f} | {mean.l0:.2f} | {mean.dead:.2f} | {mean.seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
