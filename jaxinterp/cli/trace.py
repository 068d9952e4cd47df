"""Trace a prompt to its exact attribution graph and print what it says.

  jaxinterp trace --model MODEL --dictionary DICTIONARY --prompt "..." --out graph.json
  jaxinterp trace --model MODEL --dictionary DICTIONARY --chat --prompt "What is ...?" --reply "It is"

Printed: tokens, next tokens with their probabilities, scores, how exactly the identities hold, the
strongest features for each target and the strongest paths from tokens to target. The saved graph is pruned
(--node-threshold 1 --edge-threshold 1 keeps everything).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jaxinterp.cli import shared
from jaxinterp.core.errors import InputError


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    shared.model_options(sub)
    prompt = sub.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", help="text; the tokenizer adds its own start token")
    prompt.add_argument("--tokens", help="token ids separated by commas or spaces, used as they are")
    sub.add_argument(
        "--chat",
        action="store_true",
        help="the prompt is a user's message, written with the model's chat template",
    )
    sub.add_argument("--system", help="with --chat: the system message before it")
    sub.add_argument("--reply", help="with --chat: how the model's answer begins")
    sub.add_argument("--date", help="with --chat: the date, for templates that write it (2025-01-31)")
    sub.add_argument("--target", action="append", help="a token's text or id to explain; may be repeated")
    common(sub)


def common(sub: argparse.ArgumentParser) -> None:
    """The options that ``demo`` has too."""
    sub.add_argument(
        "--max-feature-nodes", type=int, help="keep at most so many features, chosen by influence"
    )
    sub.add_argument(
        "--node-threshold", type=float, default=0.8, help="share of influence kept (default: 0.8)"
    )
    sub.add_argument(
        "--edge-threshold", type=float, default=0.98, help="share of influence kept (default: 0.98)"
    )
    sub.add_argument(
        "--lazy", action="store_true",
        help="leave the dictionary in its files and read what is needed, for one larger than memory",
    )  # fmt: skip
    sub.add_argument("--convention", choices=("paper", "circuit-tracer"), default="paper")
    sub.add_argument(
        "--dynamic-tanh", choices=("secant", "tangent"), default="secant",
        help="what stands for a Dynamic Tanh, in a model that has it",
    )  # fmt: skip
    sub.add_argument("--out", help="write the graph: .json (Neuronpedia's format) or .jigraph (native)")
    sub.add_argument("--json", action="store_true", help="print the report as JSON")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Trace, print, save."""
    shared.check_out(options.out, (".json", ".jigraph"))
    _check_chat(options)
    model, dictionary = shared.load(options)
    prompt: Any = options.prompt
    if options.chat:
        from jaxinterp.checkpoints import chat

        messages = [{"role": "user", "content": options.prompt}]
        if options.system is not None:
            messages.insert(0, {"role": "system", "content": options.system})
        prompt = chat(model, messages, reply=options.reply or "", now=options.date).ids
    elif options.tokens is not None:
        prompt = _integers(options.tokens)
    return show(options, model, dictionary, prompt, _targets(options.target))


def _check_chat(options: argparse.Namespace) -> None:
    if options.chat and options.prompt is None:
        raise InputError("--chat writes a message given as --prompt, not --tokens")
    if options.chat and not options.prompt.strip():
        raise InputError("the message is empty")
    for name in ("system", "reply", "date"):
        if getattr(options, name) is not None and not options.chat:
            raise InputError(f"--{name} is for prompts written as a chat: give --chat too")


def show(options: argparse.Namespace, model: Any, dictionary: Any, prompt: Any, targets: Any = None) -> int:
    """Trace a prompt through a loaded model, print the report, save the graph."""
    from jaxinterp.attribution import trace
    from jaxinterp.core.progress import Progress
    from jaxinterp.graphs import report, summary
    from jaxinterp.graphs.prune import check_settings

    check_settings(options.node_threshold, options.edge_threshold, options.convention)
    progress = Progress("tracing", unit="rows", quiet=options.quiet)

    def advance(done: int, total: int) -> None:
        progress.total = total
        progress.advance(done - progress.done)

    graph = trace(
        model, dictionary, prompt, targets=targets, max_feature_nodes=options.max_feature_nodes,
        convention=options.convention, dynamic_tanh=options.dynamic_tanh, progress=advance,
    )  # fmt: skip
    progress.close()
    small = graph.prune(options.node_threshold, options.edge_threshold)
    if options.out:
        small.save(options.out)
    if options.json:
        shared.print_json(summary(small))
    else:
        print(report(small, width=shared.width()))
    checks = graph.checks()
    if not checks.ok:
        print(f"WARNING: {checks}", file=sys.stderr)
    if options.out and not options.json:
        print(f"\nsaved {options.out}")
    return 0


def _integers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"--tokens {text!r}: expected whole numbers separated by commas") from error


def _targets(texts: list[str] | None) -> list[Any] | None:
    if not texts:
        return None
    return [int(text) if text.strip().isdecimal() else text for text in texts]
