"""A dictionary live: in place of MLPs, at any site of some layers, with documents, and as maps."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations.text import Batch
from jaxinterp.dictionaries.attention import Attention
from jaxinterp.evaluation import LanguageConfig, language
from jaxinterp.evaluation.applying import decode, encode
from jaxinterp.models.decoder import forward
from jaxinterp.models.sites import Edit
from jaxinterp.replacement import live
from tests.evaluation.tiny import dictionary, text
from tests.support import tiny_model


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("gemma2", "clt"),
        ("gpt_neox", "plt"),
        pytest.param("gemma2", "plt", marks=pytest.mark.slow),
        pytest.param("gpt_neox", "clt", marks=pytest.mark.slow),
    ],
)
def test_both_ways_of_replacing_agree(x64: None, family: str, kind: str) -> None:
    """In place of the MLP, and at the sites that are read and written."""
    model = tiny_model(family, dtype="float64")
    d = dictionary(model, kind, read_site="mlp_normalized", write_site="mlp_out_raw", skip=True)
    tokens = jnp.asarray(text(model).tokens)
    one, _ = live.forward(model.params, model.config, d, tokens)
    nowhere = jnp.zeros(tokens.shape, bool)
    two, _ = live.forward(model.params, model.config, d, tokens, keep=nowhere)
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)
    clean, _ = forward(model.params, model.config, tokens)
    three, _ = live.forward(model.params, model.config, d, tokens, keep=~nowhere)
    np.testing.assert_allclose(three, clean, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "site",
    [
        "attn_z", "resid_mid", "resid_post",
        *(pytest.param(site, marks=pytest.mark.slow) for site in ("resid_pre", "attn_out")),
    ],
)  # fmt: skip
def test_a_dictionary_at_any_site_of_some_layers(x64: None, site: str) -> None:
    model = tiny_model("llama", dtype="float64")
    d = dictionary(model, read_site=site, write_site=site, layers=(0, 2))
    tokens = jnp.asarray(text(model).tokens)
    found, read = live.forward(model.params, model.config, d, tokens, sites=(site,))
    edits: list[Edit] = []
    for own, layer in enumerate((0, 2)):
        _, values = forward(model.params, model.config, tokens, sites=(site,), edits=edits)
        x = jnp.zeros((2, *tokens.shape, model.config.d_model)).at[own].set(getattr(values, site)[layer])
        edits.append(Edit(site, "replace", d.reconstruct(x)[own], layer=layer))
    expected, _ = forward(model.params, model.config, tokens, edits=edits)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(getattr(read, site)[0], edits[0].value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["lorsa", "molt"])
def test_kinds_that_see_more_than_a_row_or_write_maps(x64: None, kind: str) -> None:
    """Two documents a sequence, which attention must not mix; features that need their input to write."""
    model = tiny_model("llama", dtype="float64", n_layers=2)
    changes: dict[str, Any] = {
        "lorsa": {"read_site": "attn_in", "write_site": "attn_out", "attention": Attention(2, 4)},
        "molt": {"ranks": ((2, 4), (1, 6)), "skip": True},
    }[kind]
    d = dictionary(model, kind, layers=(1,), **changes)
    tokens = text(model).tokens
    segments = np.repeat([[0] * 3 + [1] * 5], 3, axis=0).astype(np.int32)
    positions = np.array([[0, 1, 2, 0, 1, 2, 3, 4]] * 3, np.int32)
    batch = Batch(tokens, segments, positions, np.ones(tokens.shape, bool))
    places = {"positions": jnp.asarray(positions), "segments": jnp.asarray(segments)}
    sites = (d.config.read_site,)
    clean, found = forward(model.params, model.config, jnp.asarray(tokens), sites=sites, **places)
    x = getattr(found, sites[0])[1:]
    y = decode(d, encode(d, x, **places), x)
    edits = [Edit(d.config.write_site, "replace", y[0], layer=1)]
    expected, _ = forward(model.params, model.config, jnp.asarray(tokens), edits=edits, **places)
    logits, _ = live.forward(model.params, model.config, d, jnp.asarray(tokens), **places)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12)
    figures = language(model, d, [batch], LanguageConfig(each_layer=True))
    assert figures.tokens == 3 * (2 + 4)
    assert figures.effects["replaced", 1].ce == pytest.approx(figures.replaced, abs=1e-12)
    assert abs(figures.gap) > 1e-4 and np.abs(np.asarray(logits) - np.asarray(clean)).max() > 1e-2
