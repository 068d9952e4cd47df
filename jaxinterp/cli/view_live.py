"""Live mode of ``jaxinterp view``: a model behind the page. Needs the extra "serve"."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from jaxinterp.core.errors import InputError


def live_options(sub: argparse.ArgumentParser) -> None:
    """The options of live mode; docs/serve.md says more of each."""
    group = sub.add_argument_group("live mode", "trace prompts from the page")
    group.add_argument("--model", help="trace prompts with this model, as for trace")
    group.add_argument("--dictionary", action="append", help="its dictionary, as for trace; may be repeated")
    group.add_argument("--tokenizer", help="as for trace")
    group.add_argument("--lazy", action="store_true", help="as for trace: leave the dictionary in its files")
    group.add_argument("--convention", choices=("paper", "circuit-tracer"), default="paper")
    group.add_argument(
        "--out", metavar="FOLDER", help="where traced graphs are kept (default: a new temporary folder)"
    )
    group.add_argument("--target-files", metavar="FOLDER", help="where targets may name .npy and .json files")
    group.add_argument("--no-warm-up", action="store_true", help="compile nothing before the first prompt")
    group.add_argument("--log", action="store_true", help="write every request on the terminal")
    group = sub.add_argument_group("live mode, Neuronpedia's graph-server routes")
    group.add_argument(
        "--secret", help="what the header x-secret-key has to be (default: $JAXINTERP_SECRET, or none)"
    )
    group.add_argument(
        "--allow-upload", action="append", metavar="HOST",
        help="a host beside this machine that graphs may be uploaded to (*.NAME for all below it); may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--model-id", action="append", metavar="NAME",
        help="what a request may call the model, beside the name given here; may be repeated",
    )  # fmt: skip
    group.add_argument("--scan", metavar="NAME", help="what Neuronpedia calls the model, for graphs")
    group.add_argument(
        "--source-set", metavar="NAME", help="what Neuronpedia calls the dictionary, for graphs"
    )


def live(
    options: argparse.Namespace, library: Any, dashboards: Any, *, anyone: bool,
    announce: Callable[[argparse.Namespace, str, list[dict[str, Any]]], None], address: Callable[[str, int], str],
) -> int:  # fmt: skip
    """Serve the files and trace prompts until interrupted. Raises InputError where the extra is missing."""
    try:
        from jaxinterp.serve import serve_live
    except ModuleNotFoundError as error:
        missing = error.name or "an extra"
        raise InputError(
            f"live mode needs {missing}, which is not here: pip install 'jaxinterp[serve]'"
        ) from error
    from jaxinterp.cli import shared

    def ready(port: int) -> None:
        announce(options, address(options.host, port), library.listed() if options.json else [])

    return serve_live(options, library, dashboards, anyone=anyone, load=shared.load, announce=ready)
