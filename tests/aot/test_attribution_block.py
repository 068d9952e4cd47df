"""A block of attribution rows divided over a mesh: the same numbers as the engine's, and what each device holds.

The long tests need libtpu and are skipped, with the reason, without it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution.divided_block import block_effects, given, node_rows, shardings
from jaxinterp.attribution.readings import FINAL, Readings
from jaxinterp.attribution.rows import Rows
from jaxinterp.attribution.setup import Setup, fit, set_up
from jaxinterp.models import declare
from jaxinterp.parallel import weights
from jaxinterp.parallel.mesh import make
from tests.attribution.cases import TOKENS, random_dictionary
from tests.support import tiny_model

TARGETS = 8


def prepared(family: str, name: str) -> tuple[Setup, table.Layout]:
    model = tiny_model(family, dtype="float64")
    parts = fit(model, random_dictionary(model, name, n_features=16))
    found = set_up(model, parts, np.array(TOKENS, np.int32), mesh=make(1, devices=jax.devices()[:1]))
    biases = table.bias_places(model.config, parts.places, found.groups, [])
    layout = table.lay_out_nodes(
        found.groups, len(found.active), biases, 0, model.config.n_layers, len(TOKENS)
    )
    return found, layout


def wanted(found: Setup, layout: table.Layout, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors and positions of targets of a layer (L: directions after the final norm), and the engine's rows."""
    rows = Rows(found.walkers, layout, found.readers, found.active)
    if layer < layout.n_layers:
        group = found.groups[layer]
        few = np.arange(TARGETS) * (len(group.feature) // TARGETS)
        reader = found.readers[0]
        assert reader is not None
        vectors, positions = reader.encoder(group.own, group.feature[few]), group.position[few]
        parts = rows.of_features(group.first + few)
    else:
        vectors = np.random.default_rng(0).normal(size=(TARGETS, found.operator.config.d_model))
        positions = np.arange(TARGETS) % len(TOKENS)
        nothing, every = np.full(TARGETS, -1), np.full(TARGETS, layer)
        parts = rows.of_readings(
            Readings(every, np.full(TARGETS, FINAL), positions, nothing, nothing, vectors)
        )
    out = np.zeros((TARGETS, layout.size))
    for part in parts:
        at = part.numbers if layer == layout.n_layers else np.searchsorted(group.first + few, part.numbers)
        out[at, : part.features] = part.rows[:, : part.features]
        out[at, layout.features :] = part.rows[:, part.features :]
    return vectors, positions.astype(np.int32), out


@pytest.mark.parametrize(
    ("family", "name", "meshes"),
    [("gpt2", "clt", [(1, 1), (2, 4), (8, 1)]), ("gemma2", "skip-plt", [(2, 4)])],
)
def test_a_divided_block_is_the_engines(
    x64: None, family: str, name: str, meshes: list[tuple[int, int]]
) -> None:
    found, layout = prepared(family, name)
    config, dictionary = found.operator.config, found.parts.dictionaries[0].config
    cases = {layer: wanted(found, layout, layer) for layer in (config.n_layers, config.n_layers - 1, 0)}
    whole = given(found)
    for data, model in meshes:
        mesh = make(data, model)
        where = shardings(whole, mesh, weights.fitting(declare(config), mesh))
        placed = jax.device_put(whole, where)
        if dictionary.kind == "clt":
            assert placed.decoders.sharding.shard_shape(placed.decoders.shape) == (6, 16 // data, 16 // model)
        for layer, (vectors, positions, rows) in cases.items():
            effects = block_effects(
                placed, jnp.asarray(vectors), jnp.asarray(positions), jnp.asarray(layer, jnp.int32),
                dictionary=dictionary, mesh=mesh,
            )  # fmt: skip
            spread = effects.feature.sharding.shard_shape(effects.feature.shape)
            assert spread[1:3] == (TARGETS // data, 16 // model)
            there = node_rows(jax.tree.map(np.asarray, effects), layout)
            assert np.abs(rows).max() > 0.1 or layer == 0
            np.testing.assert_allclose(there, rows, rtol=0, atol=1e-10 * max(np.abs(rows).max(), 1))
