"""Which features follow two numbers of a prompt, and how: their operand plots, classified.

  jaxinterp operands --model gemma --dictionary clt --template "calc: {a}+{b}=" --out plots.npz
  jaxinterp operands --model M --dictionary D --template "{a} times {b} is" --a 2:12 --b 2:12 --position -2

Every pair of operands is a prompt; features are read at one position, counted from the end. Printed: how many features
have which shape (sum, first operand, mod 10, isolated points, ...), and those that are active on most prompts. --out
keeps the grids: arrays features [n, 2] (layer, number), grids [n, A, B], predicted [A, B], first, second; with
--answers also answers [m], their first tokens [m] and output_weights [n, m]. See docs/global_weights.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from jaxinterp.cli import shared
from jaxinterp.core.errors import InputError


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    shared.model_options(sub)
    sub.add_argument("--template", required=True, help="text with {a} and {b} in it")
    for name in ("a", "b"):
        sub.add_argument(
            f"--{name}", default="0:100", metavar="FROM:TO", help="values, TO excluded (default: 0:100)"
        )
    sub.add_argument("--digits", action="store_true", help="write numbers as digits with blanks between them")
    sub.add_argument("--position", type=int, default=-1, help="token, from the end (default: -1, the last)")
    sub.add_argument(
        "--min-prompts",
        type=int,
        default=10,
        help="features active on fewer prompts are left out (default: 10)",
    )
    sub.add_argument("--top", type=int, default=20, help="features printed of each shape (default: 20)")
    sub.add_argument("--batch", type=int, default=64, help="prompts at a time (default: 64)")
    sub.add_argument("--lazy", action="store_true", help="leave the dictionary in its files")
    sub.add_argument("--out", help="write the grids as .npz")
    sub.add_argument(
        "--answers", metavar="FROM:TO", help="with --out: numbers whose logits features are written for, too"
    )
    sub.add_argument("--json", action="store_true", help="print as JSON")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Run the prompts, classify, print, write."""
    shared.check_out(options.out, (".npz",))
    first, second = _values(options.a), _values(options.b)
    answers = _values(options.answers) if options.answers else None
    if answers is not None and not options.out:
        raise InputError("--answers are written to a file: give --out")
    if min(options.top, options.batch, options.min_prompts) < 1:
        raise InputError("--top, --batch and --min-prompts are at least 1")
    model, dictionary = shared.load(options)
    from jaxinterp.attribution.operands import digits_apart, number_tokens, operand_plots, output_weights
    from jaxinterp.core.progress import Progress

    progress = Progress("prompts", unit="prompts", quiet=options.quiet)

    def advance(done: int, total: int) -> None:
        progress.total = total
        progress.advance(done - progress.done)

    write = digits_apart if options.digits else str
    plots = operand_plots(
        model, dictionary, options.template, first, second, position=options.position, batch=options.batch,
        write=write, progress=advance,
    )  # fmt: skip
    progress.close()
    found: list[dict[str, Any]] = []
    for layer, feature, prompts in plots.active(options.min_prompts):
        shape = plots.shape(layer, feature)
        found.append({
            "layer": layer, "feature": feature, "shape": shape.name, "score": shape.score, "prompts": prompts,
            "width": shape.width,
        })  # fmt: skip
    if options.out:
        more = {}
        if answers is not None:
            between = " " if options.digits else ""
            tokens = number_tokens(model, options.template, answers, write=write, between=between)
            ends = [(one["layer"], one["feature"]) for one in found]
            more = {
                "answers": list(answers), "answer_tokens": tokens,
                "output_weights": output_weights(model, dictionary, ends, tokens),
            }  # fmt: skip
        _write(options.out, plots, found, more)
    if options.json:
        text = getattr(model.tokenizer, "text", str)
        most = Counter(plots.predicted.reshape(-1).tolist()).most_common(options.top)
        predicted = [{"token": token, "text": text(token), "prompts": n} for token, n in most]
        shared.print_json({"prompts": plots.predicted.size, "features": found, "predicted": predicted})
    else:
        _print(found, options.top, plots.predicted.size)
    return 0


def _print(found: list[dict[str, Any]], top: int, prompts: int) -> None:
    print(f"{prompts} prompts, {len(found)} features")
    for name, count in Counter(one["shape"] for one in found).most_common():
        print(f"\n{name}: {count}")
        for one in [one for one in found if one["shape"] == name][:top]:
            score = f"  score {one['score']:.2f}" if one["score"] else ""
            width = f"  width {one['width']:.1f}" if one["width"] else ""
            print(f"  {one['layer']}/{one['feature']}: active on {one['prompts']}{score}{width}")


def _write(path: str, plots: Any, found: list[dict[str, Any]], more: dict[str, Any]) -> None:
    import numpy as np

    from jaxinterp.core.files import atomic

    grids = [plots.grid(one["layer"], one["feature"]) for one in found]
    arrays = {
        "features": np.array([[one["layer"], one["feature"]] for one in found], np.int64).reshape(-1, 2),
        "grids": np.array(grids, np.float32).reshape(-1, *plots.predicted.shape), "predicted": plots.predicted,
        "first": np.array(plots.first), "second": np.array(plots.second),
        **{name: np.asarray(value) for name, value in more.items()},
    }  # fmt: skip
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _values(text: str) -> range:
    start, colon, stop = text.partition(":")
    try:
        found = range(int(start), int(stop))
    except ValueError as error:
        raise InputError(f"{text!r}: expected FROM:TO, as in 0:100") from error
    if not colon or len(found) < 2:
        raise InputError(f"{text!r}: expected FROM:TO with at least two numbers, as in 0:100")
    return found
