"""Trace prompts to their exact attribution graphs and print what they say.

  jaxinterp trace --model MODEL --dictionary DICTIONARY --prompt "..." --out graph.json
  jaxinterp trace --model MODEL --dictionary DICTIONARY --chat --prompt "What is ...?" --reply "It is"

Printed: tokens, targets with their probabilities, scores, how exactly the identities hold, the strongest
features for each target and the strongest paths from tokens to target. The saved graph is pruned
(--node-threshold 1 --edge-threshold 1 keeps everything).

Targets (--target, may be repeated; default: the most probable next tokens):
  Paris             a next token by its text, or by its id (42); "42" in double quotes is a text
  Paris@-3          at another position (Paris@2,5 at two); negative ones count from the end
  "A - B"           a logit difference; "A + B - C" of the mean of a group
  feature:12/345@7  a feature, active or not (feature:attention/12/345@7 of a part)
  supernode:NAME=12/345@7,13/9@7*0.5
                    a weighted sum of features
  direction:FILE.npy  a vector read after the final norm (direction:4/FILE.npy where layer 4 reads)
  salient:@3        the most probable next tokens at another position
  FILE.json         targets from a file

Several prompts (--prompt repeated, or --prompts FILE with a prompt a line, or a JSON list of texts and lists of
token ids) give files graph-1.json, graph-2.json, ...

With --multihost rows are spread over the devices of all processes; the first one prints and writes, byte for byte what
one process does.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from jaxinterp.cli import shared
from jaxinterp.core.errors import InputError


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    shared.model_options(sub)
    prompt = sub.add_mutually_exclusive_group(required=True)
    prompt.add_argument(
        "--prompt", action="append", help="text; the tokenizer adds its own start token; may be repeated"
    )
    prompt.add_argument("--tokens", help="token ids separated by commas or spaces, used as they are")
    prompt.add_argument("--prompts", metavar="FILE", help="a file of prompts: a line each, or a JSON list")
    sub.add_argument(
        "--chat",
        action="store_true",
        help="the prompt is a user's message, written with the model's chat template",
    )
    sub.add_argument("--system", help="with --chat: the system message before it")
    sub.add_argument("--reply", help="with --chat: how the model's answer begins")
    sub.add_argument("--date", help="with --chat: the date, for templates that write it (2025-01-31)")
    sub.add_argument("--target", action="append", help="what to explain, see above; may be repeated")
    sub.add_argument(
        "--completion",
        help="continue the prompt with this text and explain each of its tokens (with --tokens: token ids)",
    )
    sub.add_argument(
        "--contrast", nargs="?", const="end", choices=("end", "start", "tokens"),
        help="with two prompts: say what they do differently for the same targets; positions belong together "
        "from the end (default), from the start, or where tokens are equal",
    )  # fmt: skip
    sub.add_argument(
        "--mlp", choices=("constant", "tangent"), default="constant",
        help="what stands for MLPs without a dictionary: their output as an error (default) or their tangent",
    )  # fmt: skip
    sub.add_argument(
        "--linearisation", default="frozen",
        help="frozen (default), live-norms, live, integrated-norms or integrated: what may respond to a source",
    )  # fmt: skip
    sub.add_argument("--steps", type=int, help="operators along the path of an integrated linearisation")
    sub.add_argument("--multihost", action="store_true", help="join the other processes first")
    sub.add_argument(
        "--dry-run",
        action="store_true",
        help="say how long it will take and how much memory, and make no graph",
    )
    common(sub)


def common(sub: argparse.ArgumentParser) -> None:
    """The options that ``demo`` has too."""
    sub.add_argument(
        "--max-feature-nodes", type=int, help="keep at most so many features, chosen by influence"
    )
    sub.add_argument("--seconds", type=float, help="stop choosing features after so long")
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
    if not options.multihost:
        return _run(options)
    from jaxinterp.parallel import hosts

    hosts.start()
    if hosts.lead():
        return _run(options)
    options.out, options.quiet = None, True
    with redirect_stdout(StringIO()):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    _check_chat(options)
    prompts = _prompts(options)
    if options.contrast and len(prompts) != 2:
        raise InputError(f"--contrast compares two prompts, {len(prompts)} given")
    if options.contrast and not options.target and options.completion is None:
        raise InputError("--contrast compares the same targets of both prompts: give --target")
    outs = _outs(options.out, len(prompts), bool(options.contrast))
    targets = _targets(options)
    model, dictionary = shared.load(options)
    if options.chat:
        prompts = [_chat(options, model, prompt) for prompt in prompts]
    if options.dry_run:
        return _estimate(options, model, dictionary, prompts, targets)
    if len(prompts) == 1:
        return show(options, model, dictionary, prompts[0], targets)
    return _several(options, model, dictionary, prompts, targets, outs)


def _several(
    options: argparse.Namespace, model: Any, dictionary: Any, prompts: list[Any], targets: Any,
    outs: list[str | None],
) -> int:  # fmt: skip
    """Trace prompts one after the other; everything that can be wrong with one is found before the first."""
    from jaxinterp.attribution.prompts import each
    from jaxinterp.graphs import summary
    from jaxinterp.models.generation import check_tokens, prompt_ids

    each(prompts, lambda prompt: check_tokens(model.config, prompt_ids(model, prompt)))
    numbers = iter(range(len(prompts)))
    graphs, facts = [], []

    def one(prompt: Any) -> None:
        number = next(numbers)
        graph, small = _trace(options, model, dictionary, prompt, targets, outs[number])
        if options.contrast:
            graphs.append(graph)
        if options.json:
            facts.append(summary(small))
        else:
            print(f"{'' if number == 0 else chr(10)}Prompt {number + 1} of {len(prompts)}\n")
            _print(graph, small, outs[number])

    each(prompts, one)
    whole: dict[str, Any] = {"prompts": facts}
    if options.contrast:
        from jaxinterp.attribution.contrast import contrast

        found = contrast(*graphs, align=options.contrast)
        if outs[-1]:
            found.save(outs[-1])
        if options.json:
            whole["contrast"] = found.to_dict()
        else:
            print("\nA is prompt 1, B is prompt 2\n")
            print("\n\n".join(found.table(row, width=shared.width()) for row in range(len(found))))
            if outs[-1]:
                print(f"\nsaved {outs[-1]}")
    if options.json:
        shared.print_json(whole)
    return 0


def _estimate(
    options: argparse.Namespace, model: Any, dictionary: Any, prompts: list[Any], targets: Any
) -> int:
    from jaxinterp.attribution import estimate

    found = estimate(model, dictionary, prompts, **_arguments(options, targets))
    if options.json:
        plain = [one.to_dict() for one in found]
        shared.print_json(plain[0] if len(plain) == 1 else {"prompts": plain})
    else:
        print("\n\n".join(str(one) for one in found))
    return 0


def _arguments(options: argparse.Namespace, targets: Any) -> dict[str, Any]:
    """Of `trace` and `estimate`."""
    found: dict[str, Any] = {
        "targets": targets, "max_feature_nodes": options.max_feature_nodes, "seconds": options.seconds,
        "convention": options.convention, "dynamic_tanh": options.dynamic_tanh,
    }  # fmt: skip
    for name, default in (("mlp", "constant"), ("linearisation", "frozen"), ("steps", None)):
        if (given := getattr(options, name, default)) != default:
            found[name] = given
    if getattr(options, "multihost", False):
        import jax

        found["devices"] = jax.devices()
    return found


def _check_chat(options: argparse.Namespace) -> None:
    if options.chat and options.prompt is None:
        raise InputError("--chat writes a message given as --prompt, not --tokens or --prompts")
    if options.chat and not all(prompt.strip() for prompt in options.prompt):
        raise InputError("the message is empty")
    for name in ("system", "reply", "date"):
        if getattr(options, name) is not None and not options.chat:
            raise InputError(f"--{name} is for prompts written as a chat: give --chat too")


def _chat(options: argparse.Namespace, model: Any, prompt: str) -> list[int]:
    from jaxinterp.checkpoints import chat

    messages = [{"role": "user", "content": prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    return list(chat(model, messages, reply=options.reply or "", now=options.date).ids)


def show(options: argparse.Namespace, model: Any, dictionary: Any, prompt: Any, targets: Any = None) -> int:
    """Trace a prompt through a loaded model, print the report, save the graph."""
    from jaxinterp.graphs import summary

    graph, small = _trace(options, model, dictionary, prompt, targets, options.out)
    if options.json:
        shared.print_json(summary(small))
    else:
        _print(graph, small, options.out)
    return 0


def _trace(
    options: argparse.Namespace, model: Any, dictionary: Any, prompt: Any, targets: Any, out: str | None
) -> tuple[Any, Any]:
    """The whole graph and the pruned one, which is saved."""
    from jaxinterp.attribution import trace
    from jaxinterp.core.progress import Progress
    from jaxinterp.graphs.prune import check_settings

    check_settings(options.node_threshold, options.edge_threshold, options.convention)
    progress = Progress("tracing", unit="rows", quiet=options.quiet)

    def advance(done: int, total: int) -> None:
        progress.total = total
        progress.advance(done - progress.done)

    # A prompt or two: what only more of them would need is not compiled.
    graph = trace(model, dictionary, prompt, progress=advance, warm_up=False, **_arguments(options, targets))
    progress.close()
    small = graph.prune(options.node_threshold, options.edge_threshold)
    if out:
        small.save(out)
    checks = graph.checks()
    if not checks.ok:
        print(f"WARNING: {checks}", file=sys.stderr)
    return graph, small


def _print(graph: Any, small: Any, out: str | None) -> None:
    from jaxinterp.graphs import report

    print(report(small, width=shared.width()))
    if out:
        print(f"\nsaved {out}")


def _prompts(options: argparse.Namespace) -> list[Any]:
    if options.prompt is not None:
        return list(options.prompt)
    if options.tokens is not None:
        return [shared.integers("--tokens", options.tokens)]
    from jaxinterp.core.files import read_bytes, read_json

    path = options.prompts
    if path.lower().endswith(".json"):
        found = read_json(path)
        right = isinstance(found, list) and all(_is_prompt(one) for one in found)
        if not right or not found:
            raise InputError(f"{path}: expected a JSON list of texts and lists of token ids")
        return list(found)
    try:
        lines = [line for line in read_bytes(path).decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from error
    if not lines:
        raise InputError(f"{path}: no prompts in it, expected one a line")
    return lines


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(type(one) is int for one in value))


def _outs(out: str | None, count: int, contrast: bool) -> list[str | None]:
    """Where each graph goes, and the contrast; all can be written."""
    if out is None:
        return [None] * (count + contrast)
    place = Path(out)
    names = [out] if count == 1 else [
        str(place.with_name(f"{place.stem}-{number:0{len(str(count))}d}{place.suffix}"))
        for number in range(1, count + 1)
    ]  # fmt: skip
    if contrast:
        names.append(str(place.with_name(f"{place.stem}-contrast.json")))
    for name in names:
        shared.check_out(name, (".json", ".jigraph"))
    return list(names)


def _targets(options: argparse.Namespace) -> list[Any] | None:
    if not options.target and options.completion is None:
        return None
    from jaxinterp.attribution.target_text import parse_targets
    from jaxinterp.attribution.wanted import Completion

    found = parse_targets(options.target or [])
    if options.completion is not None:
        text = options.completion
        found.append(Completion(text if options.tokens is None else shared.integers("--completion", text)))
    return found
