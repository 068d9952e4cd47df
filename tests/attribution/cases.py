"""Models and dictionaries that attribution tests run on."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from jaxinterp.dictionaries import Dictionary
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.models import Model
from jaxinterp.parallel import weights

TOKENS = (7, 3, 19, 3, 28, 11)

DICTIONARIES: dict[str, dict[str, Any]] = {
    "plt": {"kind": "plt", "activation": "jumprelu", "read_site": "mlp_normalized"},
    "skip-plt": {"kind": "plt", "activation": "relu", "skip": True, "read_site": "mlp_in"},
    "clt": {"kind": "clt", "activation": "jumprelu", "read_site": "resid_mid"},
    "raw-clt": {"kind": "clt", "activation": "relu", "read_site": "mlp_in", "write_site": "mlp_out_raw"},
}


def random_dictionary(
    model: Model, name: str, *, n_features: int = 12, dtype: str = "float64", seed: int = 0
) -> Dictionary:
    """A dictionary of random numbers in which every parameter matters and about a third of features fire."""
    config = DictionaryConfig(
        n_layers=model.config.n_layers,
        n_features=n_features,
        d_model=model.config.d_model,
        **DICTIONARIES[name],
    )
    return of_config(config, f"random-{name}", dtype=dtype, seed=seed)


def of_config(config: DictionaryConfig, name: str, *, dtype: str = "float64", seed: int = 0) -> Dictionary:
    """A dictionary of that config, of random numbers in which every parameter matters."""
    import jax.numpy as jnp

    scale = {"W_enc": 0.5, "b_enc": 0.3, "W_dec": 0.3, "b_dec": 0.3, "W_skip": 0.2}

    def draw(path: str, shape: tuple[int, ...]) -> Any:
        rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
        if path == "threshold":
            return jnp.asarray(rng.uniform(0.1, 0.6, shape), dtype)
        values = scale.get(path.split(".")[0], 0.4) * rng.normal(size=shape)
        return jnp.asarray(values - (0.4 if path == "b_enc" else 0.0), dtype)

    declared = kind_of(config).declare(config)
    params = {
        name: tuple(draw(f"{name}.{i}", w.shape) for i, w in enumerate(leaf))
        if isinstance(leaf, tuple) and not weights.is_weight(leaf)
        else draw(name, leaf.shape)
        for name, leaf in declared.items()
    }
    return Dictionary(params, config, name=name)
