"""Trace a two-hop question through pocket, the bundled model, and show the graph. Needs no arguments.

Pocket knows cities of made-up states. The question names a city; to name the capital, the model has to
find the state first.
"""

from __future__ import annotations

import argparse

from jaxinterp.cli import shared
from jaxinterp.cli.trace import common, show


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    sub.add_argument("--prompt", help="another prompt for pocket (default: a two-hop question)")
    sub.add_argument(
        "--dictionary", default="pocket", help="'pocket' (CLT, the default), 'pocket-plt' or a folder"
    )
    common(sub)


def run(options: argparse.Namespace) -> int:
    """Trace, print, save."""
    from jaxinterp.biology.pocket import demo_prompt
    from jaxinterp.checkpoints import load_model
    from jaxinterp.dictionaries import load_dictionary

    shared.check_out(options.out, (".json", ".jigraph"))
    model, dictionary = load_model("pocket"), load_dictionary(options.dictionary)
    return show(options, model, dictionary, options.prompt or demo_prompt())
