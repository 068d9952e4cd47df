"""What a feature reads and writes on any prompt: virtual weights, weighted by co-activation if asked for.

  jaxinterp weights --model pocket --dictionary pocket --feature 3/17 --feature 5/2 --top 8
  jaxinterp weights --model gpt2 --dictionary clt --feature 6/1024 --kind twera --tokens 65536 --text corpus.txt
  jaxinterp weights --model gpt2 --dictionary clt --feature 6/1024 --kind era --tokens 1000000 --counter all.npz

Printed for each feature LAYER/NUMBER: the strongest features and tokens that write what it reads, and the strongest
features and logits that read what it writes, along the residual stream (or through heads, --through LAYER.HEAD). With
--kind era or twera, features are weighted by how often and how strongly they are active together on --tokens of text;
--counter FILE counts all pairs of layers instead of those of the named features, keeps the sums there, and goes on with
them when it is run again. See docs/global_weights.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from jaxinterp.cli import shared
from jaxinterp.core.errors import InputError

_SHOWN = "virtual"
SAVE_EVERY = 64
BATCH, BLOCK = 32, 8


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    shared.model_options(sub)
    sub.add_argument(
        "--feature", action="append", required=True, metavar="LAYER/NUMBER", help="may be repeated"
    )
    sub.add_argument("--top", type=int, default=10, help="how many of each kind (default: 10)")
    sub.add_argument("--sign", choices=("absolute", "positive", "negative"), default="absolute")
    sub.add_argument(
        "--through", action="append", default=[], metavar="LAYER.HEAD",
        help="a head to go through, with an attention of one; repeated, in order",
    )  # fmt: skip
    sub.add_argument("--kind", choices=(_SHOWN, "era", "twera"), default=_SHOWN, help=f"default: {_SHOWN}")
    sub.add_argument("--tokens", type=int, help="of text to count co-activation on")
    sub.add_argument("--text", default="sampled", help="as of 'evaluate' (default: the model's own text)")
    sub.add_argument("--length", type=int, help="tokens a sequence (default: 256, or the model's context)")
    sub.add_argument("--seed", type=int, default=1, help="of the text (default: 1)")
    sub.add_argument(
        "--counter", metavar="FILE.npz", help="count all pairs of layers, and keep the sums here"
    )
    sub.add_argument(
        "--mean-norms", action="store_true", help="mean denominators of norms on that text, in place of one"
    )
    sub.add_argument("--lazy", action="store_true", help="leave the dictionary in its files")
    sub.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    """Find the weights and print them."""
    features, through = [_feature(text) for text in options.feature], [_head(t) for t in options.through]
    if options.kind != _SHOWN and not (options.tokens or options.counter):
        raise InputError(f"--kind {options.kind} needs text to count on: give --tokens, or a --counter")
    if options.kind != _SHOWN and through:
        raise InputError(
            "co-activation is counted at the same token, which heads leave: no --through with --kind"
        )
    if options.mean_norms and not options.tokens:
        raise InputError("--mean-norms needs text to take the mean over: give --tokens")
    if options.top < 1 or (options.tokens is not None and options.tokens < 1):
        raise InputError("--top and --tokens are at least 1")
    shared.check_out(options.counter, (".npz",))
    model, dictionary = shared.load(options)
    from jaxinterp.attribution.residual_paths import mean_factors

    factors = mean_factors(model, _batches(options, model)) if options.mean_norms else None
    scale = None if options.kind == _SHOWN else _scale(options, model, dictionary, features)
    found = [_one(options, model, dictionary, at, through, factors, scale) for at in features]
    if options.json:
        shared.print_json(found)
    else:
        for one in found:
            _print(one)
    return 0


def _one(
    options: argparse.Namespace, model: Any, dictionary: Any, at: tuple[int, int], through: Any, factors: Any,
    scale: Any,
) -> dict[str, Any]:  # fmt: skip
    """The four lists of a feature, JSON-ready."""
    import numpy as np

    from jaxinterp.attribution.global_weights import virtual_weights
    from jaxinterp.attribution.strongest import strongest

    text = getattr(model.tokenizer, "text", str)
    lists = {"inputs": [], "tokens": [], "outputs": [], "logits": []}  # type: dict[str, list[dict[str, Any]]]
    for name, source, target, side in (
        ("inputs", dictionary, dictionary, "target"), ("tokens", "tokens", dictionary, "target"),
        ("outputs", dictionary, dictionary, "source"), ("logits", dictionary, "logits", "source"),
    ):  # fmt: skip
        weights = virtual_weights(model, source, target, through=through, factors=factors)
        features = name in ("inputs", "outputs")
        best = strongest(
            weights, side, at[0], np.array([at[1]]), k=options.top, sign=options.sign,
            scale=scale if features else None,
        )  # fmt: skip
        for layer, feature, weight in zip(*(column[0].tolist() for column in best), strict=True):
            if layer >= 0:
                end = (
                    {"layer": layer, "feature": feature}
                    if features
                    else {"token": feature, "text": text(feature)}
                )
                lists[name].append({**end, "weight": weight})
    return {"layer": at[0], "feature": at[1], "kind": options.kind, **lists}


def _scale(options: argparse.Namespace, model: Any, dictionary: Any, features: list[tuple[int, int]]) -> Any:
    """Co-activation of the named features with all others, or of all."""
    import numpy as np

    from jaxinterp.attribution.coactivation import new_counter
    from jaxinterp.attribution.coactivation_run import count, from_model
    from jaxinterp.attribution.expected_weights import scale

    config = dictionary.config

    def counted(counter: Any, **more: Any) -> Any:
        done, rest = divmod(counter.blocks, BATCH // BLOCK)
        texts = _batches(options, model, done)
        blocks = from_model(model, [config.read_site], texts, size=BLOCK, skip=rest)
        return count(counter, blocks, dictionary, **more)

    if options.counter:
        return scale(_whole(options, model, dictionary, counted), options.kind)
    chosen: dict[int, list[int]] = {}
    for layer, feature in features:
        chosen.setdefault(layer, []).append(feature)
    last = config.n_layers - 1
    into = [layer for layer in chosen if layer > 0]
    out = [layer for layer in chosen if layer < last]
    made = []
    if into:
        pairs = tuple((s, t) for t in into for s in range(t))
        made.append(counted(new_counter(config, pairs=pairs, targets={t: chosen[t] for t in into})))
    if out:
        pairs = tuple((s, t) for s in out for t in range(s + 1, last + 1))
        made.append(counted(new_counter(config, pairs=pairs, sources={s: chosen[s] for s in out})))
    scales = [scale(one, options.kind) for one in made]
    # A pair of two named features is in both counters, with the same value.
    return lambda *ends: reduce(np.maximum, [one(*ends) for one in scales])


def _whole(options: argparse.Namespace, model: Any, dictionary: Any, counted: Any) -> Any:
    """The counter of all pairs of layers in a file, begun or gone on with where tokens are asked for."""
    from jaxinterp.attribution.coactivation import new_counter
    from jaxinterp.attribution.coactivation_files import load_coactivation, save_coactivation

    made_by = {"model": model.digest(), "dictionary": dictionary.digest()}
    if Path(options.counter).exists():
        counter = load_coactivation(options.counter)
        if counter.made_by != made_by:
            raise InputError(f"{options.counter} was counted with another model or dictionary")
    elif options.tokens:
        counter = new_counter(dictionary.config, made_by=made_by)
    else:
        raise InputError(f"there is no counter {options.counter}: give --tokens to make it")
    if not options.tokens:
        return counter

    def after(one: Any) -> None:
        if one.blocks % SAVE_EVERY == 0:
            save_coactivation(one, options.counter)

    before = counter.blocks
    counted(counter, after=after)
    if counter.blocks > before:
        save_coactivation(counter, options.counter)
    return counter


def _batches(options: argparse.Namespace, model: Any, first: int = 0) -> Iterator[Any]:
    """The batches of the text that hold the tokens that were asked for, from one on."""
    from jaxinterp.activations import TextConfig, make_source

    length = options.length or min(256, model.config.context)
    config = TextConfig(source=options.text, length=length, batch=BATCH)
    source = make_source(config, model, options.seed)
    return (source.batch(i) for i in range(first, -(-options.tokens // source.tokens)))


def _feature(text: str) -> tuple[int, int]:
    layer, slash, number = text.partition("/")
    if not (slash and layer.isdecimal() and number.isdecimal()):
        raise InputError(f"--feature {text!r}: expected LAYER/NUMBER, as in 3/17")
    return int(layer), int(number)


def _head(text: str) -> tuple[int, int | str]:
    layer, dot, head = text.partition(".")
    if not (dot and layer.isdecimal() and (head.isdecimal() or head == "skip")):
        raise InputError(f"--through {text!r}: expected LAYER.HEAD, as in 2.5, or LAYER.skip")
    return int(layer), head if head == "skip" else int(head)


def _print(found: dict[str, Any]) -> None:
    print(f"feature {found['layer']}/{found['feature']}, {found['kind']} weights")
    for name, title in (
        ("inputs", "reads features"), ("tokens", "reads tokens"),
        ("outputs", "is read by features"), ("logits", "writes logits"),
    ):  # fmt: skip
        virtual = " (virtual)" if found["kind"] != _SHOWN and name in ("tokens", "logits") else ""
        print(f"  {title}{virtual}")
        for one in found[name]:
            end = f"{one['layer']}/{one['feature']}" if "layer" in one else repr(one["text"])
            print(f"    {one['weight']:+10.4g}  {end}")
        if not found[name]:
            print("    none")
