"""What a run will be: of which features, over how many tokens, in how much memory; known before it starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxinterp.activations.text import Source
from jaxinterp.core.errors import InputError, near
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.evaluation.applying import check_fit
from jaxinterp.interpret import tally
from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.reading import COLUMNS
from jaxinterp.models.model import Model
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh

ATTENTION, MLP = ("attn_z", "attn_out_raw", "attn_out"), ("mlp_out_raw", "mlp_out")


class Plan(NamedTuple):
    """What is computed.

    Attributes:
      part: where the dictionary writes: attention, mlp or residual.
      groups: the dictionary's groups of features, each of which gets a file.
      layers: what these files are called: the model's layers, or 0 where one group is of all layers.
      model_layers: the model's layers that all of the dictionary's are.
      features: of a group.
      sequences, tokens: of the run.
      documents: whether the text tells documents apart by numbers of its own.
    """

    part: str
    groups: tuple[int, ...]
    layers: tuple[int, ...]
    model_layers: tuple[int, ...]
    features: int
    sequences: int
    tokens: int
    documents: bool


def plan(model: Model, dictionary: Dictionary, config: DashboardConfig, source: Source) -> Plan:
    """Check that everything fits together, and say what will be done.

    Raises:
      InputError: the dictionary does not fit the model, a layer that it has not, sequences longer than the context.
    """
    if not isinstance(dictionary, Dictionary):
        raise InputError("dashboards need the whole dictionary in memory: load it without lazy")
    if config.text.length > model.config.context:
        raise InputError(
            f"dashboards: sequences of {config.text.length} tokens are longer than the model's context of "
            f"{model.config.context}"
        )
    if source.tokens % config.text.length:
        raise InputError(
            f"dashboards: the text gives {source.tokens} tokens at a time, no whole sequences of {config.text.length}"
        )
    own = dictionary.config
    model_layers = check_fit(dictionary, model.config)
    count = kind_of(own).groups(own)
    names = model_layers if count == own.n_layers else tuple(range(count))
    wanted = config.layers or names
    for layer in wanted:
        if layer not in names:
            raise InputError(
                f"dashboards: {dictionary.name or 'the dictionary'} has no layer {layer}{near(layer, names)}: it has "
                f"{', '.join(map(str, names))}"
            )
    if len(set(wanted)) < len(wanted):
        raise InputError(f"dashboards: layers {wanted}: each once")
    layers = tuple(sorted(wanted))
    part = "attention" if own.write_site in ATTENTION else "mlp" if own.write_site in MLP else "residual"
    sequences = min(config.sequences, source.sequences or config.sequences)
    return Plan(
        part, tuple(names.index(layer) for layer in layers), layers, model_layers, own.n_features, sequences,
        sequences * config.text.length, source.documents,
    )  # fmt: skip


def estimate(
    model: Model, dictionary: Dictionary, config: DashboardConfig, source: Source, mesh: Mesh | None = None,
    rules: Rules = DEFAULT_RULES,
) -> dict[str, Any]:  # fmt: skip
    """What a run takes, as JSON values: bytes of memory and disk, operations; nothing is computed.

    "host" and "device" are what is there at once, beside the model and the dictionary ("weights"): on a CPU both are
    the same memory. "written" is the most that the files can have before they are compressed.
    """
    planned = plan(model, dictionary, config, source)
    rows, groups, n = config.block * config.text.length, len(planned.groups), planned.features
    ways = 1 if mesh is None else math.prod(mesh.shape[a] for a in rules.targets("batch", mesh))
    per_layer = tally.bytes_of(n, config)
    leaves = jax.tree.leaves((model.params, dictionary.params))
    slots = config.top + config.quantiles * config.in_quantile
    sampled = min(config.coactive_tokens if config.coactive else 0, planned.tokens)
    own = dictionary.config
    operations = 2 * (model.config.n_params() + groups * n * own.d_model)
    return {
        "part": planned.part, "layers": list(planned.layers), "features": groups * n, "tokens": planned.tokens,
        "blocks": -(-planned.sequences // config.block), "block_tokens": rows, "ways": ways,
        "bytes": {
            "weights": sum(leaf.nbytes for leaf in leaves),
            "device": 2 * 4 * rows * (groups * n + own.n_layers * own.d_model),
            "host": groups * per_layer + 2 * 4 * rows * ways * groups * n + sampled * 16 * min(groups * n, 64 * groups),
            "scratch": planned.tokens * 4 * COLUMNS + groups * per_layer,
            "written": groups * n * (600 + slots * (26 + config.window * 4)),
        },
        "operations": operations * planned.tokens,
    }  # fmt: skip
