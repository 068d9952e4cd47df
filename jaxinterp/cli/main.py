"""The console script: ``jaxinterp VERB ...``.

Exit codes: 0 done; 1 done, with the answer no (``reproduce``: the graph is not the same); 2 bad input, one
line on stderr; 130 interrupted.

Compiled programs are kept in a folder of the user's (`core.compiled`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

VERBS = {
    "demo": "trace a two-hop question through the bundled model and show it",
    "trace": "trace a prompt to its attribution graph",
    "collect": "run a model over text and store activations",
    "train": "train a dictionary or a small language model from a config",
    "evaluate": "measure a dictionary on held-out text, or compare two",
    "weights": "what features read and write on any prompt: global weights",
    "operands": "which features follow two numbers of a prompt, and how",
    "convert": "write a model or a dictionary in another form",
    "aot": "compile a model for a TPU slice that is not here: does it fit?",
    "info": "say what a file is: model, dictionary of any format, or graph",
    "qk": "say why an attention head looks where it looks: scores as sums over pairs of sources",
    "heads": "open the edges of a graph into the attention heads that carry them",
    "dashboards": "compute what features do: examples, histograms, logits, neighbours; export them",
    "plot": "draw a graph as a figure for a paper: SVG, PDF or PNG",
    "view": "look at graphs in the browser; trace prompts from it (live mode); write them as one HTML file",
    "reproduce": "make a graph again from its record and compare",
}


def parser() -> argparse.ArgumentParser:
    """The whole command line. Each verb's module adds its own options; none imports jax to do so."""
    from jaxinterp import __version__

    top = argparse.ArgumentParser(prog="jaxinterp", description="See how a language model computes.")
    top.add_argument("--version", action="version", version=f"jaxinterp {__version__}")
    top.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        module = importlib.import_module(f"jaxinterp.cli.{verb}")
        sub = verbs.add_parser(
            verb, help=text, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.options(sub)
        sub.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    options = parser().parse_args(arguments)
    from jaxinterp.core.compiled import keep_compiled
    from jaxinterp.core.errors import JaxinterpError

    keep_compiled()
    try:
        return int(options.run(options) or 0)
    except JaxinterpError as error:
        if options.debug:
            raise
        print(f"jaxinterp {options.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (``jaxinterp trace ... | head``): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"jaxinterp {options.verb}: interrupted", file=sys.stderr)
        return 130
    except MemoryError:
        print(f"jaxinterp {options.verb}: out of memory", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
