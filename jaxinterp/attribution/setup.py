"""A prompt made ready for attribution: the model run once, its replacement model, its active features.

Prompts are padded at the end, where nothing that counts sees it, so that others of similar length use the same compiled
programs.

Letters: L layers, T position (padded where said), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxinterp.attribution.blocks import padded_length
from jaxinterp.attribution.effects import Walker, put_whole
from jaxinterp.attribution.feature_rows import FeatureRows
from jaxinterp.attribution.readings import Junction
from jaxinterp.attribution.sources import Active, Group, find_active, lay_out
from jaxinterp.attribution.writes import KEPT, Writes
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.dictionaries.lazy import AnyDictionary, LazyDictionary, cast
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import softcap, unembedding
from jaxinterp.models.model import Model
from jaxinterp.replacement import (
    Place,
    Run,
    freeze,
    make_operator,
    model_sources,
    own_writes,
    part_arrays,
    places,
)
from jaxinterp.replacement.linearise import linearise
from jaxinterp.replacement.operator import ReplacementOperator, Sources
from jaxinterp.replacement.parts import JUNCTIONS, needs_mlp

PRECISIONS = {name: jax.lax.Precision[name.upper()] for name in ("highest", "high", "default")}
"""Of the products of walks: on a CPU all the same, on accelerators "highest" is float32 and the others are faster."""


class Parts(NamedTuple):
    """Dictionaries, of the model's dtype, and where they stand in it."""

    dictionaries: tuple[AnyDictionary, ...]
    places: tuple[Place, ...]

    def junctions(self) -> list[Junction]:
        """What they offer as targets."""
        return [
            Junction(
                JUNCTIONS.index(place.junction), str(place.read_site), place.layers,
                self.dictionaries[place.dictionary].config.n_features,
            )
            for place in self.places
            if place.dictionary is not None
        ]  # fmt: skip


class Found(NamedTuple):
    """A prompt after the model has read it; fields as in `Setup`."""

    run: Run
    readers: list[FeatureRows | None]
    active: Active
    groups: list[Group]


class Setup(NamedTuple):
    """Everything that rows of the adjacency are computed from.

    Attributes:
      parts: dictionaries and places.
      ids: [T] tokens, without padding.
      run: the model's run on the padded prompt, batch of one.
      operator: its replacement model.
      active, groups: the features.
      readers: rows of the dictionary at each place.
      writes: what sources write.
      walkers: walk blocks of targets, each with what its effects weigh: one, or one for each operator of a
        linearisation that is a mean.
      identity_1: the replacement's logits against the model's, relative to the largest.
    """

    parts: Parts
    ids: np.ndarray
    run: Run
    operator: ReplacementOperator
    active: Active
    groups: list[Group]
    readers: list[FeatureRows | None]
    writes: Writes
    walkers: list[tuple[float, Walker]]
    identity_1: float

    @property
    def walker(self) -> Walker:
        """The only one, of the frozen replacement model."""
        return self.walkers[0][1]

    def lean(self) -> Setup:
        """Without the stack of frozen layers, of each of which the walkers have their own copy."""
        run = self.run._replace(frozen=None)  # type: ignore[arg-type]
        return self._replace(run=run, operator=self.walker.operator)

    def logits(self, position: int) -> np.ndarray:
        """[V] after any softcap."""
        return np.asarray(_position(self.run.logits, position))

    def read(self) -> dict[int, np.ndarray]:
        """Part → [L, T, D] what it reads, padded."""
        found = zip(self.parts.places, self.run.read, strict=True)
        return {JUNCTIONS.index(place.junction): np.asarray(x)[:, 0] for place, x in found if x is not None}

    def mlp_layers(self) -> list[int]:
        """Layers in which a line stands for the MLP."""
        return mlp_layers(self.parts.places, self.operator.config.n_layers)


def mlp_layers(places: Sequence[Place], n_layers: int) -> list[int]:
    """Layers in which a line stands for the MLP."""
    if not needs_mlp(tuple(places), n_layers):
        return []
    place = next((p for p in places if p.junction == "mlp"), None)
    return [n for n in range(n_layers) if place is None or place.reads_itself or n not in place.layers]


def fit(model: Model, dictionaries: AnyDictionary | Sequence[AnyDictionary], mlp: str = "constant") -> Parts:
    """Dictionaries in their places, of the model's dtype.

    Raises:
      InputError: see `replacement.places`.
    """
    if isinstance(dictionaries, Dictionary | LazyDictionary):
        dictionaries = [dictionaries]
    found = list(dictionaries)
    if not found:
        raise InputError("no dictionary was given, at least one is needed")
    where = places(found, model.config, mlp)
    dtype = model.params["embed"]["tokens"].dtype
    return Parts(tuple(_of_dtype(one, dtype) for one in found), where)


def _of_dtype(dictionary: AnyDictionary, dtype: Any) -> AnyDictionary:
    if isinstance(dictionary, Dictionary) and all(
        leaf.dtype == dtype for leaf in jax.tree.leaves(dictionary.params)
    ):
        return dictionary
    return cast(dictionary, dtype)


def set_up(
    model: Model, parts: Parts, ids: np.ndarray, *, mesh: Mesh, skip_first: bool = False,
    dynamic_tanh: str = "secant", linearisation: str = "frozen", steps: int = 16, precision: str = "highest",
    kept: int = KEPT,
) -> Setup:  # fmt: skip
    """Run the model on a prompt and find what its graph is made of.

    Args:
      parts: from `fit`.
      ids: [T] token ids.
      mesh: for the walks.
      skip_first: features and errors at position 0 are no sources.
      dynamic_tanh: see `replacement.freeze`.
      linearisation, steps: see `replacement.linearise`.
      precision: of the products of walks, one of `PRECISIONS`.
      kept: bytes of decoder rows that may be kept; beyond, they stream.

    Raises:
      InputError: logits that are not finite, another linearisation or precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    config, n_tokens = model.config, len(ids)
    run, readers, active, groups = look(model, parts, ids, skip_first, dynamic_tanh)
    arrays = part_arrays(parts.places, [None if r is None else r.small() for r in readers], config)
    operator = make_operator(model.params, config, run, parts.places, arrays)
    sources, difference = _measured(operator, run, n_tokens)
    own = sources.layers.write
    bias = [None if a.decoder_bias is None else np.asarray(a.decoder_bias) for a in arrays]
    writes = Writes(
        groups, parts.places, readers, [np.asarray(x) for x in own], bias, n_tokens, skip_first,
        partial(put_whole, mesh=mesh), kept,
    )  # fmt: skip
    walkers = [
        (
            weight,
            Walker(replace(one, precision=PRECISIONS[precision]), writes, sources.embed, run.patterns, mesh),
        )
        for weight, one in linearise(operator, sources, linearisation, steps=steps)
    ]
    return Setup(
        parts, ids, run, operator, active, groups, readers, writes, walkers, float(np.asarray(difference))
    )


def look(
    model: Model, parts: Parts, ids: np.ndarray, skip_first: bool = False, dynamic_tanh: str = "secant"
) -> Found:
    """Run the model on a prompt and find the active features; decoders are not read.

    Raises:
      InputError: logits or activations that are not finite, naming weights and layer.
    """
    config, n_tokens = model.config, len(ids)
    padded = padded_length(n_tokens, config.context)
    # By a token of the prompt: the embedding of another might not be finite, and zero times that is not zero.
    tokens = np.pad(np.asarray(ids, np.int32), (0, padded - n_tokens), mode="edge")[None]
    lorsas = tuple(
        d if isinstance(d, Dictionary) and d.config.kind == "lorsa" else None for d in parts.dictionaries
    )
    run, finite = _run(model.params, config, tokens, parts.places, lorsas, dynamic_tanh, n_tokens)
    if not finite:
        raise InputError(f"the model's logits are not finite on this prompt: {_bad_weights(model)}")
    readers = [
        None if p.dictionary is None else FeatureRows(parts.dictionaries[p.dictionary]) for p in parts.places
    ]
    active = find_active(parts.dictionaries, parts.places, readers, run, n_tokens, skip_first)
    groups = lay_out(active, parts.places, config.n_layers, n_tokens)
    return Found(run, readers, active, groups)


@partial(jax.jit, static_argnums=(1, 3, 5))
def _run(
    params: Any, config: ModelConfig, tokens: Any, where: tuple[Place, ...], lorsas: Any, dynamic_tanh: str,
    n_tokens: Any,
) -> tuple[Run, Any]:  # fmt: skip
    run = freeze(params, config, tokens, places=where, dictionaries=lorsas, dynamic_tanh=dynamic_tanh)
    inside = jnp.arange(tokens.shape[1], dtype=jnp.int32) < n_tokens
    return run, (jnp.isfinite(run.logits).all(axis=(0, 2)) | ~inside).all()


@jax.jit
def _position(logits: Array, position: Any) -> Array:
    return logits[0, position]


@jax.jit
def _measured(operator: ReplacementOperator, run: Run, n_tokens: Any) -> tuple[Sources, Array]:
    """The sources of the prompt, and I1: the replacement's logits against the model's."""
    sources = model_sources(operator, run, own_writes(operator, run))
    raw = einsum("td,dv->tv", operator.apply(sources).final, unembedding(operator.params, operator.config))
    inside = (jnp.arange(raw.shape[0], dtype=jnp.int32) < n_tokens)[:, None]
    difference = jnp.where(inside, jnp.abs(softcap(raw, operator.config) - run.logits[0]), 0).max()
    largest = jnp.where(inside, jnp.abs(run.logits[0]), 0).max()
    return sources, difference / largest


def _bad_weights(model: Model) -> str:
    from jaxinterp.core.trees import paths

    bad = []
    for name, leaf in paths(model.params):
        right = np.isfinite(np.asarray(leaf, np.float64))
        if right.all():
            continue
        if name.startswith("layers."):
            name = f"{name} of layer {int(np.argmax(~right.reshape(len(right), -1).all(axis=1)))}"
        bad.append(name)
    return f"not finite: {', '.join(bad)}" if bad else "every weight is finite, so an activation overflows"
