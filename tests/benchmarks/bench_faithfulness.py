"""Toy (un)faithfulness: does a transcoder of |x| have its true features, or one for a repeated data point?

``python tests/benchmarks/bench_faithfulness.py [NAME ...] [--seeds 5]`` prints a row of a table for each setting.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import NamedTuple

from jaxinterp.evaluation.absolute_value import AbsoluteValue, Faithfulness, faithfulness
from jaxinterp.training.dictionary_specs import DictionaryRun, DictionarySpec, StartConfig
from jaxinterp.training.objective import ObjectiveConfig
from jaxinterp.training.optimiser import OptimiserConfig
from jaxinterp.training.resample import ResampleConfig
from jaxinterp.training.sparsity.base import SparsityConfig
from jaxinterp.training.synthetic import train_synthetic


class Setting(NamedTuple):
    """One training run: features, the penalty ``λ tanh(c f ‖W_dec‖)``, how often p is repeated, Jacobian matching."""

    n_features: int
    scale: float
    coefficient: float
    repeated: float
    jacobian: float = 0.0
    jacobian_bandwidth: float = 0.0


SETTINGS = {
    "50 features": Setting(50, 4.0, 0.02, 0.0),
    "50 features, p in 20 %": Setting(50, 4.0, 0.02, 0.2),
    "100 features, p in 5 %": Setting(100, 1.0, 0.05, 0.05),
    "100 features, p in 20 %": Setting(100, 1.0, 0.05, 0.2),
    "Jacobian matching": Setting(100, 1.0, 0.05, 0.2, 0.2, 0.1),
    "Jacobian matching, active features held": Setting(100, 1.0, 0.05, 0.2, 0.2),
}


def transcoder(setting: Setting, steps: int = 8000) -> DictionaryRun:
    """Rectified features: JumpReLU whose thresholds are next to nothing and, with as small a bandwidth, stay there."""
    return DictionaryRun(
        "synthetic", steps, batch=512, normalise=False,
        dictionary=DictionarySpec("plt", setting.n_features, read_site="mlp_in", write_site="mlp_out"),
        start=StartConfig("random", rate=None),
        sparsity=SparsityConfig(
            coefficient=setting.coefficient, scale=setting.scale, threshold=1e-6, bandwidth=1e-6, ramp=0.01,
            pre_activation=0.0,
        ),
        optimiser=OptimiserConfig(learning_rate=3e-3, warmup=100, decay=0.2, clip=0.0),
        resample=ResampleConfig(every=0),
        objective=ObjectiveConfig(
            reconstruction="sum", jacobian=setting.jacobian, jacobian_bandwidth=setting.jacobian_bandwidth
        ),
    )  # fmt: skip


def measure(setting: Setting, seed: int, steps: int = 8000) -> tuple[Faithfulness, float, float, float]:
    """What the transcoder is made of, its mean squared error (summed over D), L0 and CPU seconds."""
    data = AbsoluteValue(repeated=setting.repeated, seed=seed)
    started = time.process_time()
    trained, history = train_synthetic(transcoder(setting, steps), data)
    seconds = time.process_time() - started
    return faithfulness(trained, data), history["nmse"][-50:].mean(), history["l0"][-50:].mean(), seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {'; '.join(SETTINGS)}; all when none")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # before the first array is made
    print(
        "| setting | true features of 40, by seed | features for p | their share of the output on p | MSE | CPU s |"
    )
    print("|---|---|---|---|---|---|")
    for name in arguments.names or SETTINGS:
        found = [measure(SETTINGS[name], seed) for seed in range(arguments.seeds)]
        clean = "/".join(str(one[0].clean) for one in found)
        points = "/".join(str(len(one[0].point)) for one in found)
        share = "/".join(f"{one[0].share:.2f}" for one in found)
        error, seconds = (sum(one[i] for one in found) / len(found) for i in (1, 3))
        print(f"| {name} | {clean} | {points} | {share} | {error:.1e} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
