"""What each named convention reads and writes, computed by hand from the residual stream."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import DictionaryConfig, preset
from jaxinterp.dictionaries.sites import PRESETS
from jaxinterp.models import forward
from jaxinterp.training.dictionary import DictionarySpec
from tests.support import tiny_model

TOKENS = jnp.asarray([[3, 1, 4, 1, 5]])


@pytest.mark.parametrize("name", PRESETS)
def test_preset_on_a_model_with_post_norms(x64: None, name: str) -> None:
    model = tiny_model("gemma2", dtype="float64")
    sites = preset(name)
    config = DictionaryConfig("plt", 3, 8, 16, **sites._asdict())
    asked = ("resid_mid", "mlp_out_raw", "resid_post", config.read_site, config.write_site)
    _, found = forward(model.params, model.config, TOKENS, sites=asked)
    middle, after = np.asarray(found.resid_mid), np.asarray(found.resid_post)
    norm, raw = model.params["layers"]["mlp_norm"]["scale"], np.asarray(found.mlp_out_raw)
    divided = middle / np.sqrt((middle**2).mean(-1, keepdims=True) + model.config.norm_eps)
    read = {
        "circuit-tracing": middle,
        "circuit-tracer-clt": middle,
        "circuit-tracer-plt": divided * (1 + np.asarray(norm)[:, None, None]),
        "gemma-scope-1": divided,
        "gemma-scope-2": divided * (1 + np.asarray(norm)[:, None, None]),
    }[name]
    written = raw if name == "circuit-tracer-plt" else after - middle
    assert np.abs(raw - (after - middle)).max() > 0.1, "the post-norm must matter here"
    np.testing.assert_allclose(getattr(found, sites.read_site), read, atol=1e-12)
    np.testing.assert_allclose(getattr(found, sites.write_site), written, atol=1e-12)


def test_a_run_takes_its_sites_from_a_preset() -> None:
    spec = DictionarySpec(sites="circuit-tracer-plt")
    assert (spec.read_site, spec.write_site) == ("mlp_in", "mlp_out_raw")
    assert DictionarySpec(sites="circuit-tracer-plt", read_site="mlp_in") == spec
    with pytest.raises(
        InputError, match="read_site is 'resid_mid', but 'mlp_in' in the sites 'circuit-tracer-plt'"
    ):
        DictionarySpec(sites="circuit-tracer-plt", read_site="resid_mid")
    with pytest.raises(InputError, match=r"no sites called 'gemma-scope'.*did you mean gemma-scope-"):
        DictionarySpec(sites="gemma-scope")
