"""Train a dictionary or a small language model from a YAML config.

  jaxinterp train configs/stories260k/clt.yaml --out runs/clt model=stories260K.bin steps=2000

Run again with the same --out, an interrupted run goes on from its last checkpoint with the same result.
"""

from __future__ import annotations

import argparse
from typing import Any


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("config", help="YAML file with a 'task:' key")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config, dotted keys")
    sub.add_argument("--out", help="folder of the run (default: runs/NAME of the config file)")
    sub.add_argument(
        "--mesh",
        metavar="DATA,MODEL",
        help="devices along the batch and along features, as in 4,2, or data=2,expert=2,model=2 (default: one device)",
    )
    sub.add_argument("--multihost", action="store_true", help="join the other hosts of a slice first")
    sub.add_argument("--json", action="store_true", help="print the run's card as JSON at the end")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Train and say where the result is."""
    from pathlib import Path

    from jaxinterp.cli import shared
    from jaxinterp.core.files import read_json
    from jaxinterp.training import train

    if options.multihost:
        from jaxinterp.parallel.hosts import start

        start()
    config = Path(options.config)
    out = options.out or Path("runs") / f"{config.parent.name}-{config.stem}"
    done = train(config, options.overrides, out, quiet=options.quiet, mesh=_mesh(options.mesh))
    card = done / "card.json"
    if options.json:
        shared.print_json(read_json(card) if card.exists() else {"out": str(done)})
    else:
        print(f"done: {done}")
    return 0


def _mesh(text: str | None) -> Any:
    if text is None:
        return None
    from jaxinterp.core.errors import InputError
    from jaxinterp.parallel.mesh import make, parse

    if "=" in text:
        sizes = parse(text)
        return make(sizes.get("data", 1), sizes.get("model", 1), expert=sizes.get("expert", 1))
    try:
        data, model = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--mesh {text!r}: expected two whole numbers, as in 4,2, or data=2,expert=2,model=2"
        ) from error
    return make(data, model)
