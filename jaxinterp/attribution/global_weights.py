"""Virtual weights: what a feature adds to another's pre-activation for each unit of its own, on any prompt.

*Circuit Tracing* (2025), "Global weights": ``V_st = < Σ_{l_s <= l < l_t} W_dec^{s,l}, W_enc^t >``, along the residual
stream alone. Tokens (their embeddings) write too and logits (unembedding minus its mean) read. Norms: see
`residual_paths`. Nothing of size features × features is made: blocks, rows, pairs, and the strongest of each feature.

Letters: L layers, N features, D width, V vocabulary, s sources, t targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import residual_paths as paths
from jaxinterp.attribution.residual_paths import Factors, Read
from jaxinterp.attribution.weight_sides import (
    EVERY,
    Ids,
    Side,
    feature_source,
    feature_target,
    logit_target,
    through_skip,
    token_source,
)
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.lazy import AnyDictionary
from jaxinterp.models.model import Model, require_ours

CHUNK = 8192
Step = tuple[int, int | str]
"""A part of a path: (layer, head), or (layer, "skip")."""


@dataclass(frozen=True)
class GlobalWeights:
    """Weights from every source to every target.

    Attributes:
      source, target: who writes and who reads.
      model: whose residual stream it is.
      through: (layer, head) and (layer, "skip") in the order in which they are gone through; none means the residual
        stream alone.
      factors: see `residual_paths.Factors`.
      skips: the dictionary whose skips these are.
    """

    source: Side
    target: Side
    model: Model
    through: tuple[Step, ...]
    factors: Factors
    skips: AnyDictionary | None

    def read(self, layer: int, ids: Ids = EVERY) -> Read:
        """What targets of a layer read, before the first of what is gone through."""
        found = self.target.vectors(layer, ids)
        for at, head in reversed(self.through):
            if isinstance(head, int):
                found = paths.through_head(self.model, found, at, head, self.factors)
            else:
                found = through_skip(self.model, self.skips, found, at, self.factors)
        if found.branch is not None:
            raise InputError(
                f"{self.target.name} reads {found.branch[0]}, which sees other features through heads only: name one"
            )
        return found

    def block(self, source: int, target: int, sources: Ids = EVERY, targets: Ids = EVERY) -> Array:
        """Weights ``[s, t]`` from features of one layer to features of another; zero where there is no path."""
        read = self.read(target, targets)
        written = self.source.vectors(source, sources, read.order)
        if written is None:
            return jnp.zeros((_count(sources, self.source.size), len(read.vectors)), read.vectors.dtype)
        return einsum("sd,td->st", written, read.vectors)

    def pairs(self, source: int, target: int, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Weights ``[n]`` of single pairs: from ``sources [n]`` of one layer to ``targets [n]`` of another."""
        out = np.zeros(len(sources))
        for start in range(0, len(sources), CHUNK):
            part = slice(start, start + CHUNK)
            read = self.read(target, targets[part])
            written = self.source.vectors(source, sources[part], read.order)
            if written is None:
                break
            out[part] = np.asarray(einsum("nd,nd->n", written, read.vectors))
        return out


def virtual_weights(
    model: Model, source: AnyDictionary | str, target: AnyDictionary | str | None = None, *,
    through: Sequence[Step] = (), factors: Factors | None = None,
) -> GlobalWeights:  # fmt: skip
    """The weights between two dictionaries, tokens or logits.

    Args:
      model: the model, of ours.
      source: a dictionary, in memory or lazy, or "tokens".
      target: a dictionary, or "logits"; None means the source's own features.
      through: what to go through, in order: (layer, head), with an attention of one, or (layer, "skip"), the skip of
        the source or else of the target, in a layer of that dictionary.
      factors: one over the denominators of norms; None means one (`residual_paths.mean_factors` measures them).

    Raises:
      InputError: a dictionary of another width, or whose features have no direction to write or read in a layer.
    """
    require_ours(model)
    if isinstance(source, str) and source != "tokens":
        raise InputError(f"source is {source!r}, expected a dictionary or 'tokens'")
    if isinstance(target, str) and target != "logits":
        raise InputError(f"target is {target!r}, expected a dictionary or 'logits'")
    other = source if target is None else target
    if other == "tokens":
        raise InputError("tokens read nothing: give a target, a dictionary or 'logits'")
    chosen = factors or Factors()
    path = tuple((int(layer), head if head == "skip" else int(head)) for layer, head in through)
    skips = next((one for one in (source, other) if not isinstance(one, str) and one.config.skip), None)
    return GlobalWeights(
        token_source(model) if isinstance(source, str) else feature_source(model, source, chosen),
        logit_target(model, chosen) if isinstance(other, str) else feature_target(model, other, chosen),
        model, path, chosen, skips,
    )  # fmt: skip


def _count(ids: Ids, size: int) -> int:
    return len(range(size)[ids]) if isinstance(ids, slice) else len(ids)
