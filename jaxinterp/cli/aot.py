"""Compile a model's forward pass for a TPU slice that is not here, and say what each chip's memory would hold.

  jaxinterp aot --model llama-3.1-8b --topology v5e:2x2 --mesh data=1,model=4 --batch 8 --length 1024

The pass returns what --sites names, of every layer, and the logits. Weights are not needed: --model is the name of a
public model's shape, a folder or a config.json. Needs libtpu (installed with jax[tpu], or named by TPU_LIBRARY_PATH).
Says that a program compiles and fits, not how fast it runs. Exit code 1: it does not fit; the figures say by how much.
"""

from __future__ import annotations

import argparse
from typing import Any


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument(
        "--model", required=True, help="llama-3.1-8b, deepseek-r1 ..., a folder or a config.json"
    )
    sub.add_argument(
        "--topology", required=True, help="generation and chips, as in v5e:4x4, v6e:2x2, v5p:2x2x1"
    )
    sub.add_argument(
        "--mesh",
        required=True,
        metavar="data=N,expert=N,model=N",
        help="chips along each axis; 1 where not named",
    )
    sub.add_argument("--batch", type=int, default=8, help="sequences (default: 8)")
    sub.add_argument("--length", type=int, default=1024, help="tokens of each (default: 1024)")
    sub.add_argument(
        "--sites", default="mlp_in,mlp_out", help="what is returned of every layer (default: mlp_in,mlp_out)"
    )
    sub.add_argument("--no-logits", action="store_true", help="do not return logits")
    sub.add_argument("--dtype", default="bfloat16", help="of weights and activations (default: bfloat16)")
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
    from jaxinterp.checkpoints.shapes import shape
    from jaxinterp.cli import shared
    from jaxinterp.models.ahead import study
    from jaxinterp.parallel.rules import DEFAULT_RULES

    facts = study(
        shape(options.model), options.topology, options.mesh, batch=options.batch, length=options.length,
        sites=[site for site in options.sites.split(",") if site], logits=not options.no_logits,
        dtype=options.dtype, dispatch=None if options.dispatch == "own" else options.dispatch,
        rules=DEFAULT_RULES.changed(options.rules),
    )  # fmt: skip
    facts = {"model": options.model, **facts}
    if options.json:
        shared.print_json(facts)
    else:
        print("\n".join(lines(facts)))
    return 0 if facts["fits"] else 1


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
