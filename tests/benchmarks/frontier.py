"""Error against sparsity of cross-layer, per-layer and skip transcoders of a small model: many short runs.

    python tests/benchmarks/frontier.py --config configs/stories260k/clt.yaml --model stories260K.bin --out s.jsonl
    python tests/benchmarks/frontier.py --plot docs/frontier.svg s.jsonl pocket.jsonl

Every run is a line of the output; a run that is there already is not made again, so an interrupted sweep goes on. Runs
of one seed share one pool of text and its activations, which do not count in their CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

KINDS = {"CLT": {"kind": "clt"}, "PLT": {"kind": "plt"}, "skip-PLT": {"kind": "plt", "skip": True}}
FIELDS = ("name", "kind", "target", "seed", "steps")


def rows(path: Path) -> list[dict[str, Any]]:
    """The runs in a file; a half-written last line is left out."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def sweep(arguments: argparse.Namespace) -> None:
    """Make the runs that are missing."""
    from jaxinterp.training.api import load
    from jaxinterp.training.dictionary import load_subject, make_stream, task
    from jaxinterp.training.loop import run

    out = Path(arguments.out)
    done = {tuple(row[f] for f in FIELDS) for row in rows(out)}
    overrides = [f"model={arguments.model}", f"steps={arguments.steps}", *arguments.override]
    _, base, loop = load(arguments.config, overrides)
    for seed in arguments.seeds:
        shared, subject = None, None
        for (name, kind), l0 in itertools.product(KINDS.items(), arguments.l0):
            key = (base.name, name, l0, seed, base.steps)
            if key in done:
                continue
            sparsity = dataclasses.replace(base.sparsity, l0=float(l0))
            dictionary = dataclasses.replace(base.dictionary, **kind)
            one = dataclasses.replace(base, seed=seed, sparsity=sparsity, dictionary=dictionary)
            if shared is None:
                subject = load_subject(one.model)
                shared = make_stream(one, subject)
                for step in range(one.steps):  # the pools are made before the clock starts
                    shared.batch(step)
            before = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                run(task(one, subject, shared), steps=one.steps, out=folder, seed=seed, loop=loop, quiet=True)
                figures = json.loads((Path(folder) / "dictionary" / "card.json").read_text())["held_out"]
            row = dict(
                zip(FIELDS, key, strict=True), cpu_seconds=round(time.process_time() - before, 1), **figures
            )
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            print(f"{name} {l0} seed {seed}: NMSE {row['mean_nmse']:.4f} L0 {row['mean_l0']:.2f}", flush=True)


def points(found: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Runs by model and kind, and in each the targets in order with their seeds together."""
    groups: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for row in found:
        groups.setdefault((row["name"], row["kind"]), {}).setdefault(row["target"], []).append(row)
    return {
        key: [{"target": target, "runs": runs} for target, runs in sorted(targets.items())]
        for key, targets in groups.items()
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: a line a point, its seeds side by side."""
    lines = [
        "| model | dictionary | target L0 | mean L0 | mean NMSE | dead | CE gap | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (model, kind), targets in points(found).items():
        for point in targets:
            runs = sorted(point["runs"], key=lambda row: row["seed"])
            cells = [
                " / ".join(f"{row['mean_l0']:.1f}" for row in runs),
                " / ".join(f"{100 * row['mean_nmse']:.2f} %" for row in runs),
                " / ".join(f"{100 * row['dead']:.1f} %" for row in runs),
                " / ".join(f"{row['ce_gap']:.3f}" for row in runs),
                f"{statistics.mean(row['cpu_seconds'] for row in runs):.0f}",
            ]
            lines.append(f"| {model} | {kind} | {point['target']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: list[dict[str, Any]], path: str) -> None:
    """A panel a model: normalised error against L0, a line a kind through the means, a dot a run."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "frontier"
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullLocator

    groups = points(found)
    models = list(dict.fromkeys(model for model, _ in groups))
    figure, axes = pyplot.subplots(1, len(models), figsize=(5 * len(models), 4), squeeze=False)
    colours = dict(zip(KINDS, ("#0072b2", "#d55e00", "#009e73"), strict=True))
    markers = dict(zip(KINDS, "os^", strict=True))
    for axis, model in zip(axes[0], models, strict=True):
        for kind in KINDS:
            targets = groups.get((model, kind), [])
            mean = [
                [statistics.mean(row[f] for row in p["runs"]) for p in targets]
                for f in ("mean_l0", "mean_nmse")
            ]
            axis.plot(*mean, color=colours[kind], label=kind)
            each = [(row["mean_l0"], row["mean_nmse"]) for p in targets for row in p["runs"]]
            if each:
                axis.plot(*zip(*each, strict=True), markers[kind], color=colours[kind], markersize=4)
        axis.set(xscale="log", yscale="log", xlabel="L0, mean over layers", title=model)
        axis.set_xticks([4, 8, 16, 32, 64], minor=False)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.grid(True, linewidth=0.3)
    axes[0][0].set_ylabel("normalised error, mean over layers")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="the configuration of a cross-layer transcoder")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--out", default="frontier.jsonl")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--l0", type=float, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--override", nargs="*", default=[], help="key=value, as in jaxinterp train")
    parser.add_argument("--plot", help="write this figure, and print the table, of the files")
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.plot:
        found = [row for path in arguments.files for row in rows(path)]
        plot(found, arguments.plot)
        print(table(found))
    else:
        sweep(arguments)


if __name__ == "__main__":
    main()
