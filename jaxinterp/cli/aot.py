"""Compile for a TPU slice that is not here, and say what each chip's memory would hold.

  jaxinterp aot --model llama-3.1-8b --topology v5e:2x2 --mesh model=4 --batch 8 --length 1024
  jaxinterp aot --collect --model llama-3.1-8b --topology v6e:1x1 --mesh model=1 --batch 8 --length 1024
  jaxinterp aot --train configs/pod/clt-gemma-2-2b.yaml --topology v5p:2x2x4 batch=8192
  jaxinterp aot --trace clt=96256 --model gemma-2-2b --topology v5p:2x2x1 --mesh data=2,model=2 --targets 512

A model's forward pass, which returns what --sites names, of every layer, and the logits; with --collect, what
`jaxinterp collect` runs; with --trace, in float32, a block of rows of an attribution graph over a prompt of --length
tokens, through transcoders of a kind with so many features a layer; with --train, one step of training the dictionary
that a configuration describes, or with --first-state the making of its first state. Weights are not needed: --model (of
--train, the configuration's model) is the name of a public model's shape, a folder or a config.json. Needs libtpu
(installed with jax[tpu], or named by TPU_LIBRARY_PATH). Says that a program compiles and fits, not how fast it runs.
Exit code 1: it does not fit; the figures say by how much.
"""

from __future__ import annotations

import argparse
from typing import Any


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes to the configuration of --train"
    )
    sub.add_argument("--model", help="llama-3.1-8b, deepseek-r1 ..., a folder or a config.json")
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--train", metavar="CONFIG", help="a step of training, as in jaxinterp train CONFIG")
    what.add_argument("--collect", action="store_true", help="the collection of --sites")
    what.add_argument("--trace", metavar="KIND=FEATURES", help="rows of a graph: clt=96256, plt=65536")
    sub.add_argument("--targets", type=int, default=512, help="of --trace: rows of a block (default: 512)")
    sub.add_argument(
        "--slots", type=int, default=128,
        help="of --trace: the most active features of a layer and token (default: 128)",
    )  # fmt: skip
    sub.add_argument(
        "--first-state", action="store_true", help="of --train: the first state in place of a step"
    )
    sub.add_argument(
        "--topology", required=True, help="generation and chips, as in v5e:4x4, v6e:2x2, v5p:2x2x1"
    )
    sub.add_argument(
        "--mesh", default="", metavar="data=N,expert=N,model=N",
        help="devices along each axis, 1 where not named (default: all along model)",
    )  # fmt: skip
    sub.add_argument(
        "--batch", type=int, default=8, help="sequences; of --collect, of each part of the batch (default: 8)"
    )
    sub.add_argument("--length", type=int, default=1024, help="tokens of each (default: 1024)")
    sub.add_argument(
        "--sites", default="mlp_in,mlp_out", help="what is returned of every layer (default: mlp_in,mlp_out)"
    )
    sub.add_argument("--no-logits", action="store_true", help="do not return logits")
    sub.add_argument("--dtype", default="bfloat16", help="of weights and activations (default: bfloat16)")
    sub.add_argument(
        "--stored", default="bfloat16", choices=("float32", "bfloat16", "int8"), help="of --collect: as what"
    )
    sub.add_argument(
        "--dispatch", default="own", choices=("own", "sparse", "dense"),
        help="experts: each chip its own (default), or left to the compiler",
    )  # fmt: skip
    sub.add_argument(
        "--rules", default="", metavar="AXIS=MESH,...",
        help="where logical axes go instead, as in kv_heads=none,rank=model,batch=data+expert",
    )  # fmt: skip
    sub.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    """Compile, print, and answer whether it fits."""
    import os

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from jaxinterp.cli import shared

    facts = _training(options) if options.train else _trace(options) if options.trace else _model(options)
    if options.json:
        shared.print_json(facts)
    else:
        print("\n".join(lines(facts)))
    return 0 if facts["fits"] else 1


def _training(options: argparse.Namespace) -> dict[str, Any]:
    from jaxinterp.checkpoints.shapes import shape
    from jaxinterp.core.errors import InputError
    from jaxinterp.training.ahead import study
    from jaxinterp.training.api import load

    changes = [*options.overrides, *([f"model={options.model}"] if options.model else [])]
    name, run, _ = load(options.train, changes)
    if name != "dictionary" or run.dictionaries:
        raise InputError(f"{options.train}: only the training of one dictionary is compiled ahead of time")
    found = study(run, shape(run.model), options.topology, options.mesh, start=options.first_state)
    return {"model": run.model, **found}


def _check_model(options: argparse.Namespace) -> None:
    from jaxinterp.core.errors import InputError

    if not options.model or not options.mesh:
        raise InputError("aot: --model and --mesh are needed, or --train")
    if options.overrides:
        raise InputError(
            f"aot: {options.overrides[0]!r} changes a configuration of --train, which is not given"
        )


def _trace(options: argparse.Namespace) -> dict[str, Any]:
    from jaxinterp.attribution.ahead import study
    from jaxinterp.checkpoints.shapes import shape
    from jaxinterp.core.errors import InputError
    from jaxinterp.parallel.rules import DEFAULT_RULES

    _check_model(options)
    kind, _, features = options.trace.partition("=")
    if kind not in ("plt", "clt") or not features.isdecimal() or int(features) < 1:
        raise InputError(
            f"--trace {options.trace!r}: expected plt or clt and a number of features, as in clt=96256"
        )
    found = study(
        shape(options.model), kind, int(features), options.topology, options.mesh, targets=options.targets,
        length=options.length, slots=options.slots, rules=DEFAULT_RULES.changed(options.rules),
    )  # fmt: skip
    return {"model": options.model, **found}


def _model(options: argparse.Namespace) -> dict[str, Any]:
    from jaxinterp.activations import ahead as collection
    from jaxinterp.checkpoints.shapes import shape
    from jaxinterp.models.ahead import study
    from jaxinterp.parallel.rules import DEFAULT_RULES

    _check_model(options)
    rules = DEFAULT_RULES.changed(options.rules)
    sites = [site for site in options.sites.split(",") if site]
    if options.collect:
        facts = collection.study(
            shape(options.model), options.topology, options.mesh, block=options.batch, length=options.length,
            sites=sites, dtype=options.dtype, stored=options.stored, rules=rules,
        )  # fmt: skip
    else:
        facts = study(
            shape(options.model), options.topology, options.mesh, batch=options.batch, length=options.length,
            sites=sites, logits=not options.no_logits, dtype=options.dtype,
            dispatch=None if options.dispatch == "own" else options.dispatch, rules=rules,
        )  # fmt: skip
    return {"model": options.model, **facts}


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people."""
    found = [
        f"{key:<18} {value:.2f}" if isinstance(value, float) else f"{key:<18} {value}"
        for key, value in facts.items()
        if value is not None and not isinstance(value, dict)
    ]
    for key, value in facts.items():
        if isinstance(value, dict):
            found.append(f"{key:<18} " + ", ".join(f"{name} {number}" for name, number in value.items()))
    return found
