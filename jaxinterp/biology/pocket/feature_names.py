"""Names for pocket's features, from the world that is known: what a feature is active on, told by three plain rules.

A name is a state ("pelandia"), if the feature is active in two-hop questions about cities of one state (at least 80 %)
and in those of no other state on more than 35 %; else a token in quotes, if at least 90 % of the tokens on which it is
active are that one; else "say ..." with a token, if at least 80 % of the tokens that follow are that one. What was
counted stands in the explanation. Other features stay without a name.

`python -m jaxinterp.biology.pocket.feature_names` writes them beside the bundled dashboards.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinterp.biology.pocket import items, mixture, vocabulary, words
from jaxinterp.biology.pocket.states import fires
from jaxinterp.checkpoints import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dashboards.labels import FILE, FORMAT, key
from jaxinterp.dashboards.opening import BUNDLED
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model

OWN_STATE, OTHER_STATE = 0.80, 0.35
SAME_TOKEN, SAME_NEXT = 0.90, 0.80
LEAST = 20  # tokens on which a feature must be active
SEED, BATCH, LENGTH = 2_000_005, 32, 64
TOKENS = 131_072
BY = "counted in pocket's world"


class Name(NamedTuple):
    """A feature's name and what was counted, with the share that the rule is about."""

    label: str
    text: str
    share: float


def state_names(active: np.ndarray, states: Sequence[str]) -> dict[tuple[int, int], Name]:
    """Names by state. active [B, L, N] bool: whether a feature is active in a question; states [B]: its state."""
    about = np.array(states)
    shares = np.stack([active[about == state].mean(axis=0) for state in words.STATES])
    order = np.argsort(-shares, axis=0, kind="stable")
    best, second = (np.take_along_axis(shares, order[i : i + 1], axis=0)[0] for i in (0, 1))
    found = {}
    for layer, index in zip(*np.nonzero((best >= OWN_STATE) & (second <= OTHER_STATE)), strict=True):
        own, other = (words.STATES[order[i, layer, index]] for i in (0, 1))
        rest = (shares[:, layer, index].sum() - best[layer, index]) / (len(words.STATES) - 1)
        text = (
            f"active in {best[layer, index]:.0%} of two-hop questions about cities of {own}, in {rest:.0%} of those "
            f"about other states ({other}: {second[layer, index]:.0%})"
        )
        found[int(layer), int(index)] = Name(own, text, float(best[layer, index]))
    return found


def token_names(counts: np.ndarray, least_share: float, label: str, text: str) -> dict[tuple[int, int], Name]:
    """Names by the commonest token. counts [L, N, V]: how often a feature is active with each token.

    label and text have a place {token}, text one for the share as well.
    """
    total, top = counts.sum(axis=2), counts.argmax(axis=2)
    share = counts.max(axis=2) / np.maximum(total, 1)
    found = {}
    for layer, index in zip(*np.nonzero((total >= LEAST) & (share >= least_share)), strict=True):
        token = vocabulary.tokens()[int(top[layer, index])]
        said = text.format(token=token, share=f"{share[layer, index]:.0%}")
        found[int(layer), int(index)] = Name(label.format(token=token), said, float(share[layer, index]))
    return found


@partial(jax.jit, static_argnums=(1, 3))
def _active(
    params: Tree, config: ModelConfig, features: Tree, dictionary: DictionaryConfig, batch: dict[str, Array]
) -> Array:
    """Packed tokens [B, T] → [L, B, T, N]: whether a feature is active."""
    _, activations = forward(
        params, config, batch["tokens"], positions=batch["positions"], segments=batch["segments"],
        sites=(dictionary.read_site,),
    )  # fmt: skip
    return kind_of(dictionary).encode(features, dictionary, getattr(activations, dictionary.read_site)) > 0


def count(model: Model, dictionary: Dictionary, tokens: int = TOKENS) -> tuple[np.ndarray, np.ndarray]:
    """How often each feature is active with each token, and before each token: two arrays [L, N, V].

    The first token of every document does not count.
    """
    shape = dictionary.config.n_layers, dictionary.config.n_features, len(vocabulary.tokens())
    here, after = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for step in range(-(-tokens // (BATCH * LENGTH))):
        batch = mixture.batch(SEED, step, BATCH, LENGTH)
        rows = {name: batch[name] for name in ("tokens", "positions", "segments")}
        active = np.array(_active(model.params, model.config, dictionary.params, dictionary.config, rows))
        active &= (batch["positions"] > 0)[None, :, :, None]
        layers, b, t, index = np.nonzero(active)
        np.add.at(here, (layers, index, batch["tokens"][b, t]), 1)
        np.add.at(after, (layers, index, batch["targets"][b, t]), 1)
    return here, after


def names(model: Model, dictionary: Dictionary, tokens: int = TOKENS) -> dict[tuple[int, int], Name]:
    """The names of a dictionary's features by (layer, index), in the order of the rules."""
    questions = [i for i in items.all_items() if i.family == "facts" and i.kind == "composite"]
    here, after = count(model, dictionary, tokens)
    found = token_names(after, SAME_NEXT, "say {token}", "{share} of the tokens that follow it are {token}")
    found |= token_names(
        here, SAME_TOKEN, "“{token}”", "{share} of the tokens on which it is active are {token}"
    )
    return found | state_names(fires(model, dictionary, questions), [item.about for item in questions])


def document(found: dict[tuple[int, int], Name]) -> dict[str, Any]:
    """The labels file of these names."""
    features = {
        key(layer, index): {
            "label": name.label, "explanations": [{"text": name.text, "by": BY, "score": round(name.share, 3)}],
        }
        for (layer, index), name in sorted(found.items())
    }  # fmt: skip
    return {"format": FORMAT, "version": 1, "features": features}


def main(arguments: Sequence[str]) -> None:
    """Name the features of the dictionaries that are named, or of both."""
    for name in arguments or ("pocket-clt", "pocket-plt"):
        if name not in BUNDLED:
            raise InputError(f"nothing bundled is called {name!r}: there are {', '.join(BUNDLED)}")
        found = names(load_model("pocket"), load_dictionary(name))
        write_json(BUNDLED[name] / FILE, document(found))
        print(f"{name}: {len(found)} features have a name")


if __name__ == "__main__":
    main(sys.argv[1:])
