"""Say why an attention head looks where it looks: its scores as exact sums over pairs of sources.

  jaxinterp qk --model MODEL --dictionary DICTIONARY --prompt "..." --layer 3 --head 5
  jaxinterp qk ... --query 7 --key 2 --key 4

Printed for each key: the attention, the score before the softmax, its sums by kinds of sources, and the largest
pairs (a feature of the query with a feature of the key, and so on); then the first two keys compared. Without --key
the keys are the fewest that get 95 % of the query's attention.
"""

from __future__ import annotations

import argparse

from jaxinterp.cli import shared


def options(sub: argparse.ArgumentParser) -> None:
    """The verb's options."""
    shared.model_options(sub)
    prompt = sub.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", help="text; the tokenizer adds its own start token")
    prompt.add_argument("--tokens", help="token ids separated by commas or spaces, used as they are")
    sub.add_argument("--layer", type=int, required=True, help="layer of the head, from 0")
    sub.add_argument("--head", type=int, required=True, help="number of the head, from 0")
    sub.add_argument(
        "--query", type=int, default=-1, help="position of the query; negative ones count from the end"
    )
    sub.add_argument("--key", type=int, action="append", help="position of a key; may be repeated")
    sub.add_argument("--top", type=int, default=10, help="pairs that are shown (default: 10)")
    sub.add_argument("--lazy", action="store_true", help="as for trace")
    sub.add_argument("--mlp", choices=("constant", "tangent"), default="constant", help="as for trace")
    sub.add_argument("--dynamic-tanh", choices=("secant", "tangent"), default="secant", help="as for trace")
    sub.add_argument("--json", action="store_true", help="print the terms as JSON")


def run(options: argparse.Namespace) -> int:
    """Attribute, print."""
    from jaxinterp.attribution.qk import qk_attribution
    from jaxinterp.core.errors import InputError

    if options.top < 1:
        raise InputError(f"--top is {options.top}, at least 1 is needed")
    prompt = options.prompt if options.tokens is None else shared.integers("--tokens", options.tokens)
    model, dictionary = shared.load(options)
    found = qk_attribution(
        model, dictionary, prompt, layer=options.layer, head=options.head, query=options.query, keys=options.key,
        dynamic_tanh=options.dynamic_tanh, mlp=options.mlp,
    )  # fmt: skip
    if not options.json:
        print(found.report(options.top))
        return 0
    out = found.to_dict(options.top)
    if len(found.scores) > 1:
        pair = (score.keys[0] for score in found.scores[:2])
        out["contrast"] = found.score_to_dict(found.contrast(*pair), options.top)
    shared.print_json(out)
    return 0
