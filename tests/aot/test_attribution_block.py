"""A block of attribution rows divided over a mesh: the same numbers as the engine's, and what each device holds.

The long tests need libtpu and are skipped, with the reason, without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import ahead
from jaxinterp.attribution import nodes as table
from jaxinterp.attribution.divided_block import block_effects, given, node_rows, shardings
from jaxinterp.attribution.readings import FINAL, Readings
from jaxinterp.attribution.rows import Rows
from jaxinterp.attribution.setup import Setup, fit, set_up
from jaxinterp.checkpoints.shapes import shape
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary
from jaxinterp.dictionaries.base import DictionaryConfig
from jaxinterp.models import declare
from jaxinterp.parallel import aot, weights
from jaxinterp.parallel.mesh import make, parse
from jaxinterp.replacement import places
from tests.attribution.cases import TOKENS, random_dictionary
from tests.support import ROOT, tiny_config, tiny_model

TARGETS = 8
needs_libtpu = pytest.mark.skipif(aot.available() is not None, reason=str(aot.available()))


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


def test_a_device_holds_its_part(capsys: Any) -> None:
    """What is compiled for a slice, compiled for the devices that are here."""
    config = tiny_config("llama", n_kv_heads=4)
    dictionary = DictionaryConfig("clt", config.n_layers, 64, config.d_model)
    mesh = make(2, 4)
    found = ahead.abstract(config, dictionary, mesh, length=8, slots=4)
    report = ahead.compile_block(config, dictionary, mesh, targets=4, length=8, slots=4)
    assert report.memory is not None
    decoders, effects = 6 * 64 * 16 * 4 // 8, 3 * 4 * 8 * 4 * 4 // 8
    gradient = 8 * 4 * 16 * 4 // 8
    assert decoders < report.memory.arguments < 3 * decoders
    assert ahead.floor(found, 4, mesh) == pytest.approx(
        report.memory.arguments + effects + gradient, rel=0.05
    )
    for changes, message in (
        ({"targets": 3}, "targets: size 3 is not divisible by the mesh axis 'data' of size 2"),
        ({"length": 6}, "positions: size 6 is not divisible by the mesh axis 'model' of size 4"),
        ({"length": 64}, "longer than the model's context of 32"),
        ({"slots": 0}, "slots is 0"),
    ):
        with pytest.raises(InputError, match=message):
            ahead.compile_block(config, dictionary, mesh, **{"targets": 4, "length": 8, **changes})
    for text in ("lorsa=8", "clt", "clt=many"):
        arguments = ["--topology", "v5e:2x2", "--model", "gpt2", "--mesh", "model=4"]
        assert main(["aot", "--trace", text, *arguments]) == 2
        assert "expected plt or clt and a number of features" in capsys.readouterr().err


def test_what_cannot_be_divided_is_named(x64: None) -> None:
    model = tiny_model("llama", dtype="float64")
    config = DictionaryConfig("plt", 2, 16, 16, "relu", layers=(0, 2))
    some: Any = Dictionary({}, config)
    with pytest.raises(InputError, match="one dictionary of transcoders in every layer"):
        ahead.check_places(places([some], model.config), 3)


def rows() -> list[list[str]]:
    """The table of attribution blocks in docs/scale.md: model, dictionary, slice, mesh, floor, ..., peak, of, over."""
    lines = Path(ROOT / "docs" / "scale.md").read_text().splitlines()
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [row for row in cells if len(row) == 11 and row[1][:4] in ("clt=", "plt=")]


def test_the_table_of_blocks_adds_up() -> None:
    """Floors by arithmetic."""
    assert {row[0] for row in rows()} == {"gemma-2-2b", "llama-3.1-8b"}
    assert {row[2].partition(":")[0] for row in rows()} == {"v5e", "v6e", "v5p"}
    for row in rows():
        floor, arguments, peak, available = (float(row[i]) for i in (4, 5, 8, 9))
        assert arguments < peak < available and floor < peak
        if row[2].startswith("v6e"):
            sizes = parse(row[3])
            config, (kind, _, features) = shape(row[0]), row[1].partition("=")
            there: Any = jax.sharding.AbstractMesh((sizes["data"], sizes["model"]), ("data", "model"))
            dictionary = DictionaryConfig(kind, config.n_layers, int(features), config.d_model)
            given = ahead.abstract(config, dictionary, there, length=1024)
            assert ahead.floor(given, 512, there) / aot.GIB == pytest.approx(floor, abs=0.01)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("row", [row for row in rows() if row[2][:3] == "v5e"], ids=lambda row: row[0])
def test_the_table_of_blocks_is_true(row: list[str]) -> None:
    kind, _, features = row[1].partition("=")
    facts = ahead.study(shape(row[0]), kind, int(features), row[2], row[3])
    assert facts["fits"], facts
    # Compilers of other versions plan a little differently.
    assert facts["arguments_gib"] == pytest.approx(float(row[5]), rel=0.01, abs=0.01)
    assert facts["peak_gib"] == pytest.approx(float(row[8]), rel=0.1)
