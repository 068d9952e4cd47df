"""Measure global weights: a dictionary left in its files, co-activation and interference, what pruning weights costs.

  python tests/benchmarks/bench_global_weights.py lazy --features 65536
  python tests/benchmarks/bench_global_weights.py together --batches 12
  python tests/benchmarks/bench_global_weights.py pruning --weights 20000

All but the first run on the bundled model and dictionary, on text that the model samples. It asserts nothing.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.activations import TextConfig, make_source
from jaxinterp.attribution.coactivation import new_counter
from jaxinterp.attribution.coactivation_run import count, from_model
from jaxinterp.attribution.effectiveness import effects, pruning_curve, sampled_effectiveness
from jaxinterp.attribution.global_weights import virtual_weights
from jaxinterp.attribution.removals import weights_of, whole_features
from jaxinterp.attribution.strongest import strongest
from jaxinterp.checkpoints import load_model
from jaxinterp.dictionaries import Dictionary, DictionaryConfig, load_dictionary, save_dictionary
from jaxinterp.models import Model, ModelConfig
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights as declared

SHARES = (0.0, 0.5, 0.7, 0.85, 0.95, 1.0)


class Meter:
    """CPU seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.process_time()

    def __str__(self) -> str:
        return f"{time.process_time() - self.start:.1f} CPU s"


def lazy(options: argparse.Namespace) -> None:
    """The strongest weights of 256 features each way, and the memory that takes."""
    import jax

    layers, n, d = 4, options.features, 256
    config = DictionaryConfig("plt", layers, n, d, activation="relu", read_site="mlp_in")
    own = ModelConfig(64, d, layers, 4, 4, 64, 256, 64)
    model = Model(declared.initialise(declare(own), key=jax.random.key(0), dtype="float32"), own)
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "d", config)
        dictionary = load_dictionary(Path(folder) / "d", lazy=True)
        weights = virtual_weights(model, dictionary)
        ids = np.arange(0, n, max(n // 256, 1))
        strongest(weights, "source", 0, ids[:8])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for side, layer in (("source", 0), ("target", layers - 1)):
            meter = Meter()
            strongest(weights, side, layer, ids)
            print(f"{side}: the strongest 10 of {len(ids)} features among {n * (layers - 1)}: {meter}")
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"memory: at most {more / 1024:.0f} MiB more; all weights of a pair of layers {n * n / 2**28:.1f} GiB"
        )


def _write(folder: Path, config: DictionaryConfig) -> None:
    """A random dictionary; what making it took is not counted."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=_save, args=(folder, config))
    process.start()
    process.join()


def _save(folder: Path, config: DictionaryConfig) -> None:
    random = np.random.default_rng(0)
    shape = (config.n_layers, config.n_features, config.d_model)
    params = {name: random.standard_normal(shape, np.float32) for name in ("W_enc", "W_dec")}
    params |= {"b_enc": np.zeros(shape[:2], np.float32), "b_dec": np.zeros(shape[::2], np.float32)}
    save_dictionary(Dictionary(params, config), folder, format="native")


def pocket(batch: int) -> tuple[Any, Any, Any]:
    """The bundled model and dictionary, and text."""
    model = load_model("pocket")
    text = TextConfig(source="sampled", length=64, batch=batch)
    return model, load_dictionary("pocket"), make_source(text, model, 1)


def together(options: argparse.Namespace) -> None:
    """Rates of counting all pairs of layers; how many of the largest weights lie between features that never meet."""
    model, dictionary, source = pocket(64)
    batches = [source.batch(i) for i in range(options.batches)]

    def run(dense: bool, some: list[Any]) -> Any:
        blocks = from_model(model, [dictionary.config.read_site], some, size=64)
        return count(new_counter(dictionary.config, dense=dense), blocks, dictionary)

    for dense in (True, False):
        run(dense, batches)
        meter = Meter()
        counter = run(dense, batches)
        print(f"{'arrays' if dense else 'sparse'}: {counter.rows} tokens: {meter}")
    weights = virtual_weights(model, dictionary)
    size, met, live = [], [], []
    for s, t in counter.pairs:
        size.append(np.abs(np.asarray(weights.block(s, t))).ravel())
        met.append(counter.products[s, t].toarray().ravel() > 0)
        both = (counter.fired["source", s][:, None] > 0) & (counter.fired["target", t][None, :] > 0)
        live.append(both.ravel())
    alive = np.concatenate(live)
    order = np.argsort(-np.where(alive, np.concatenate(size), -1), kind="stable")
    never = ~np.concatenate(met)[order]
    for k in (100, 1000, 10_000, 100_000, int(alive.sum())):
        print(
            f"of the {k} largest weights between features that were active, {never[:k].mean():.1%} never met"
        )


def pruning(options: argparse.Namespace) -> None:
    """Effectiveness of features against the divergence; the loss as weights go by three orders, on other text too."""
    from scipy.stats import spearmanr

    model, dictionary, source = pocket(16)
    scored, other = [source.batch(i) for i in range(6)], [source.batch(6)]
    random = np.random.default_rng(0)
    some = {layer: np.sort(random.choice(1024, 24, replace=False)).tolist() for layer in range(4)}
    meter = Meter()
    found = effects(model, dictionary, whole_features(dictionary, some), scored[:1])
    on = found.effectiveness > 1e-6  # below it float32 has no divergence
    rank = spearmanr(found.effectiveness[on], found.divergence[on]).statistic
    print(f"{on.size} features, {on.sum()} matter on {found.predictions} predictions: {meter}")
    print(
        f"effectiveness and divergence: rank correlation {rank:.2f}; helpful: {(found.helpfulness[on] > 0).mean():.0%}"
    )
    every = weights_of(model, dictionary, options.families.split(","), at_least=0.05, limit=10**8)
    weights = every.take(np.sort(np.argsort(-np.abs(every.value), kind="stable")[: options.weights]))
    meter = Meter()
    fisher = sampled_effectiveness(model, dictionary, weights, scored, draws=2)
    print(
        f"{weights.number} weights, {(fisher > 0).mean():.0%} matter, 2 draws of {len(scored)} batches: {meter}"
    )
    for name, score in (
        ("effectiveness", fisher), ("size", np.abs(weights.value)), ("no order", random.random(weights.number)),
    ):  # fmt: skip
        for where, text in (("scored", scored[:1]), ("other", other)):
            curve = pruning_curve(model, dictionary, weights, score, text, SHARES)
            print(
                f"{name}, {where} text: "
                + ", ".join(f"{s:.0%} {x:.3f}" for s, x in zip(SHARES, curve.loss, strict=True))
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("lazy", "together", "pruning"))
    parser.add_argument("--features", type=int, default=65_536)
    parser.add_argument("--batches", type=int, default=12, help="of 64 sequences of 64 tokens")
    parser.add_argument("--families", default="feature-feature", help="separated by commas")
    parser.add_argument("--weights", type=int, default=20_000)
    options = parser.parse_args()
    {"lazy": lazy, "together": together, "pruning": pruning}[options.what](options)


if __name__ == "__main__":
    main()
