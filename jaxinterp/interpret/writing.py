"""The files of a finished pass: texts of tokens, a file a layer, and at last the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinterp.core.letters import Array
from jaxinterp.core.progress import Progress
from jaxinterp.dashboards import own
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.interpret import effects, finish
from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.planning import Plan
from jaxinterp.interpret.tally import Tally
from jaxinterp.interpret.together import Together, together
from jaxinterp.models.model import Model


def write(
    folder: Path, model: Model, dictionary: Dictionary, config: DashboardConfig, planned: Plan, tallies: list[Tally],
    tokens: np.ndarray, facts: Mapping[str, Any], *, quiet: bool,
) -> None:  # fmt: skip
    """Write everything; the manifest comes last and makes the folder complete.

    Args:
      tokens: see `reading.Scratch.all`.
      facts: provenance.
    """
    progress = Progress("writing", len(tallies), unit="layers", quiet=quiet)
    own.write_tokens(folder / own.TOKENS, texts(model))
    found: Together | None = None
    if config.coactive and config.coactive_tokens:
        found = together([tally.noted() for tally in tallies], planned.features, config.coactive)
    sides = Sides(model, dictionary, config, planned)
    names = []
    for tally, group, layer in zip(tallies, planned.groups, planned.layers, strict=True):
        name = f"{planned.part}_{layer:02d}.jidash"
        header = {
            "part": planned.part, "layer": layer, "tokens": tally.seen, "length": config.text.length,
            "writes": [planned.model_layers[target] for target in sides.targets(group)],
            "logits": sides.reason or "direct effect of all decoders", "model": facts["model"]["digest"],
            "dictionary": facts["dictionary"]["digest"],
        }  # fmt: skip
        file = finish.Layer(folder / name, header, model.config.vocab_size, planned.documents)
        coactive = finish.coactive(found, tally.number, planned.features, planned.layers)
        finish.write(file, tally, tokens, sides.of(group), coactive, config)
        names.append((name, planned.part, layer, planned.features))
        progress.advance()
    progress.close()
    own.write_manifest(folder, names, {"provenance": facts})


def texts(model: Model) -> list[str]:
    """The text of every token of a model; a number in brackets where there is no tokenizer or it does not know one."""
    tokenizer = model.tokenizer
    known = 0 if tokenizer is None else min(tokenizer.vocab_size, model.config.vocab_size)
    found = [] if tokenizer is None else [tokenizer.text(i) for i in range(known)]
    return [*found, *(f"<{i}>" for i in range(known, model.config.vocab_size))]


class Sides:
    """What features write, a group at a time.

    Attributes:
      reason: why there are no effects on logits, or None.
    """

    def __init__(self, model: Model, dictionary: Dictionary, config: DashboardConfig, planned: Plan) -> None:
        self.model, self.dictionary, self.config, self.planned = model, dictionary, config, planned
        self.reason = effects.why_not(model, dictionary)
        self._others: Array | None = None
        total = planned.features * len(planned.groups)
        if config.neighbours and total <= effects.ACROSS and not kind_of(dictionary.config).maps:
            self._others = jnp.concatenate([self._decoders(group)[1] for group in planned.groups])

    def targets(self, group: int) -> list[int]:
        """The dictionary's layers that a group writes into, where it has decoder vectors."""
        kind, config = kind_of(self.dictionary.config), self.dictionary.config
        return (
            [] if kind.maps else sorted(target for source, target in kind.writes(config) if source == group)
        )

    def _decoders(self, group: int) -> tuple[Array, Array]:
        rows = effects.decoders(self.dictionary, group)
        assert rows is not None
        return effects.lengths_and_units(rows)

    def of(self, group: int) -> finish.Written:
        """Everything about one group."""
        n, config, planned = self.planned.features, self.config, self.planned
        whole, real = np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32)
        logits, near, norms = effects.Logits(whole, real), effects.Neighbours(whole, whole, real), real
        if self.reason is None and config.logits:
            vectors = effects.written(self.model, self.dictionary, planned.model_layers, group)
            logits = effects.logits(self.model, vectors, config.logits)
        if self.targets(group):
            lengths, units = self._decoders(group)
            norms = np.asarray(lengths)[:, self.targets(group)]
            if config.neighbours:
                others, among = (units, (group,)) if self._others is None else (self._others, planned.groups)
                near = effects.neighbours(units, others, group, among, config.neighbours)
        places = np.searchsorted(planned.groups, near.groups)
        layers = np.asarray(planned.layers)[places] if near.groups.size else near.groups
        return finish.Written(logits.tokens, logits.values, norms, layers, near.features, near.cosines)
