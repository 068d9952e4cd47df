"""A live replacement model from which single virtual weights, or features, are taken out by any share.

The model is `replacement.live`: the dictionary in place of MLPs (or of the values at its site), attention and norms as
they come. Taking the share ε of the weight from source s to target t out leaves everything that s writes where it is,
but t reads ``h_t - ε a_s V_st / n``: n is the denominator of the norm that t reads through, at this token of this run,
and V is at denominators of one (`global_weights`). What comes after t follows. Taking a feature out multiplies its
activation by 1 - ε.

Letters: E weights, L layers, N features, B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution.global_weights import virtual_weights
from jaxinterp.attribution.residual_paths import replaces
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries import encoder
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.models.decoder import forward, places
from jaxinterp.models.model import Model, require_ours
from jaxinterp.models.swap import SiteSwap
from jaxinterp.replacement.live import Live, why_not

TOKENS, FEATURE = -1, -1
FAMILIES = ("token-feature", "feature-feature", "feature-logit", "token-logit")
LIMIT = 1 << 20


class Weights(NamedTuple):
    """E things that can be taken out, arrays ``[E]``; layers as the dictionary numbers them.

    Attributes:
      source_layer, source: a feature, or `TOKENS` (-1) and a token.
      target_layer, target: a feature; L and a token, its logit; or `FEATURE` (-1): all that the source does.
      value: V_st at denominators of one; of a whole feature 1.
    """

    source_layer: Any
    source: Any
    target_layer: Any
    target: Any
    value: Any

    @property
    def number(self) -> int:
        """E."""
        return len(self.value)

    def take(self, index: Any) -> Weights:
        """Some of them."""
        return Weights(*(np.asarray(column)[index] for column in self))


def weights_of(
    model: Model, dictionary: Dictionary, families: Sequence[str] = FAMILIES, *, at_least: float = 0.0,
    limit: int = LIMIT,
) -> Weights:  # fmt: skip
    """Every virtual weight of some families along the residual stream.

    Args:
      families: of `FAMILIES`.
      at_least: weights of smaller size are left out.
      limit: how many there may be.

    Raises:
      InputError: an unknown family, or more weights than the limit (with their number).
    """
    check(model, dictionary)
    layers = dictionary.config.n_layers
    found: list[Weights] = []
    for family in families:
        if family not in FAMILIES:
            raise InputError(f"no family {family!r}{near(family, FAMILIES)}: there are {', '.join(FAMILIES)}")
        source, target = family.split("-")
        weights = virtual_weights(
            model,
            "tokens" if source == "token" else dictionary,
            "logits" if target == "logit" else dictionary,
        )
        for s in range(weights.source.layers):
            for t in range(weights.target.layers):
                value = np.asarray(weights.block(s, t))
                i, j = np.nonzero(np.abs(value) >= max(at_least, np.finfo(value.dtype).tiny))
                ends = TOKENS if source == "token" else s, layers if target == "logit" else t
                found.append(Weights(np.full(len(i), ends[0]), i, np.full(len(i), ends[1]), j, value[i, j]))
                if (total := sum(one.number for one in found)) > limit:
                    raise InputError(
                        f"{total} weights or more, the limit is {limit}: give at_least, fewer families or a limit"
                    )
    if not found:
        raise InputError(f"no family of weights was named: there are {', '.join(FAMILIES)}")
    return Weights(*(np.concatenate(column) for column in zip(*found, strict=True)))


def whole_features(dictionary: Dictionary, features: Mapping[int, Sequence[int]]) -> Weights:
    """Features (layer → numbers) to be taken out with all that they do."""
    pairs = [(layer, int(f)) for layer, ids in features.items() for f in ids]
    config = dictionary.config
    for layer, feature in pairs:
        if not (0 <= layer < config.n_layers and 0 <= feature < config.n_features):
            raise InputError(
                f"no feature {feature} of layer {layer}: there are {config.n_layers} layers of {config.n_features}"
            )
    layers, ids = np.array(pairs, np.int64).reshape(-1, 2).T
    none = np.full(len(pairs), FEATURE)
    return Weights(layers, ids, none, np.zeros_like(none), np.ones(len(pairs)))


def check(model: Model, dictionary: Dictionary) -> None:
    """Raises an `InputError` where weights cannot be taken out one by one, which says why."""
    require_ours(model)
    config, name = dictionary.config, dictionary.name or "the dictionary"
    why = why_not(config)
    if config.kind not in ("plt", "clt"):
        why = f"features of a {config.kind} do not read one direction of their own token"
    elif config.normalise_rows != "none":
        why = "it normalises rows, by what it reads there"
    elif replaces(config.write_site):
        why = f"it writes {config.write_site}, in place of all that was written there before"
    elif model.config.post_norms and config.write_site.endswith("_raw"):
        why = f"it writes {config.write_site}, before a norm whose denominator is of all that is written"
    elif model.config.norm == "tanh":
        why = "Dynamic Tanh has no denominator common to all entries"
    elif model.config.final_softcap is not None:
        why = "the model's logits go through a softcap, so that a weight to a logit is no term of it"
    if why:
        raise InputError(f"{name}: no single weights can be taken out: {why}")


class _Removing(Live):
    """The functions of the live pass; made anew for every pass, it remembers what features did."""

    def __init__(self, dictionary: Dictionary, where: Any, tokens: Array, out: Weights) -> None:
        super().__init__(dictionary, where)
        config = dictionary.config
        self.tokens, self.out = tokens, out
        self.scale: Array | None = None
        self.scale_site = config.read_site.split("_")[0] + "_scale"
        self.norms = kind_of(config).decoder_norms(self.params, config) if config.ranked else None
        dtype = self.params["W_enc"].dtype
        # Of tokens it is known from the beginning what they do: 1 where they stand.
        here = (out.source_layer == TOKENS)[:, None, None] & (tokens[None] == out.source[:, None, None])
        self.sources = here.astype(dtype)

    def removed(self, target_layer: int, share: Array, size: int) -> Array:
        """``Σ ε a_s V_st`` of the weights into one layer: [B, T, size], at denominators of one."""
        factor = jnp.where(
            self.out.target_layer == target_layer, share * self.out.value, jnp.zeros_like(share)
        )
        parts = jnp.moveaxis(self.sources * factor[:, None, None], 0, 2)
        total = jnp.zeros((*parts.shape[:2], size), parts.dtype)
        return total.at[:, :, self.out.target].add(parts, mode="drop")

    def features(self, own: int, x: Array, share: Array) -> Array:
        """Activations [B, T, N] of a layer that reads x [B, T, D]."""
        config, out = self.config, self.out
        one = {name: self.params[name][own][None] for name in self.params if name not in ("W_dec", "W_skip")}
        h = encoder.pre_activations(one, config, x[None])[0]
        removed = self.removed(own, share, config.n_features)
        h = h - (removed if self.scale is None else removed / self.scale)
        a = encoder.activations(one, config, h[None], None if self.norms is None else self.norms[own][None])[
            0
        ]
        mine = out.source_layer == own
        whole = jnp.where(mine & (out.target_layer == FEATURE), share, jnp.zeros_like(share))
        off = jnp.zeros(config.n_features, a.dtype).at[out.source].add(whole, mode="drop")
        a = a * (1 - off)[None, None]
        # A weight starts with what is left of its source.
        found = jnp.moveaxis(jnp.take(a, out.source, axis=2, mode="clip"), 2, 0)
        self.sources = jnp.where(mine[:, None, None], found, self.sources)
        return a


def logits_without(
    model: Model, dictionary: Dictionary, out: Weights, share: Array, tokens: Array, *,
    positions: Array | None = None, segments: Array | None = None,
) -> Array:  # fmt: skip
    """Logits ``[B, T, V]`` of the replacement model without shares of some weights.

    Args:
      out: the weights, host arrays or traced ones.
      share: [E], ε of each; 0 leaves the model as it is, 1 takes the weight out.
      tokens: [B, T]; ``positions``, ``segments`` as in `models.forward`.
    """
    where = places(tokens, positions, segments)
    ends = {name: jnp.asarray(value, jnp.int32) for name, value in out._asdict().items() if name != "value"}
    live = _Removing(
        dictionary, where, tokens, out._replace(**ends, value=jnp.asarray(out.value, share.dtype))
    )
    config, b, t = dictionary.config, *tokens.shape
    layers = config.layers or tuple(range(config.n_layers))
    dtype = model.params["embed"]["tokens"].dtype

    def step(carry: tuple[Array, Array], layer: int, site: str, value: Array) -> Any:
        if site == live.scale_site and model.config.pre_norms:
            live.scale = value
        written, x = carry
        if layer not in layers:
            return carry, value
        own = layers.index(layer)
        if site == config.read_site:
            x = value
            a = live.features(own, x, share)
            written = written + live.kind.decode_into(live.params, config, own, a)
        if site == config.write_site:
            value = live.write(written, own, x).astype(value.dtype)
        return (written, x), value

    start = (
        jnp.zeros((config.n_layers, b, t, config.d_out), dtype), jnp.zeros((b, t, config.d_model), dtype)
    )  # fmt: skip
    logits, found = forward(
        model.params, model.config, tokens, sites=("final_scale",), positions=where.positions,
        segments=where.segments, swap=SiteSwap(step, start),
    )  # fmt: skip
    return logits - live.removed(config.n_layers, share, model.config.vocab_size) / found.final_scale
