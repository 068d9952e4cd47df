"""Flax trees that cannot be read, and what a tree does not say: one line each."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxinterp.checkpoints import load_model
from jaxinterp.checkpoints.flax_gemma import Gemma
from jaxinterp.checkpoints.flax_maxtext import MaxText
from jaxinterp.checkpoints.flax_params import flax_fields, load_flax, to_flax
from jaxinterp.checkpoints.flax_presets import preset
from jaxinterp.core.errors import InputError
from jaxinterp.models.rotary import RopeScaling
from tests.checkpoints.test_flax_bridge import gemma, llama


def refused(message: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_flax(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_bad_trees_are_refused() -> None:
    _, params, config = gemma("second")

    def edited(**layer: Any) -> Any:
        return {**params, "layer_1": {**params["layer_1"], **layer}}

    wrong = {**params["layer_1"]["attn"], "q_einsum": {"w": jnp.ones((4, 12, 5))}}
    refused(r"'layer_1/attn/q_einsum/w' has shape \(4, 12, 5\), the config asks for \(4, 12, 6\)",
            edited(attn=wrong), "gemma", config)  # fmt: skip
    refused("unexpected leaf 'layer_1/pre_ffw_nrm/scale' .*did you mean layer_1/pre_ffw_norm/scale",
            edited(pre_ffw_nrm={"scale": jnp.ones(12)}), "gemma", config)  # fmt: skip
    attn = {k: v for k, v in params["layer_1"]["attn"].items() if k != "attn_vec_einsum"}
    refused("'layer_1/attn/attn_vec_einsum/w' of shape .* is missing", edited(attn=attn), "gemma", config)
    refused("dtype int8", edited(mlp={**params["layer_1"]["mlp"], "linear": jnp.ones((20, 12), jnp.int8)}),
            "gemma", config)  # fmt: skip
    bad = {**params["layer_1"]["mlp"], "linear": jnp.full((20, 12), jnp.nan)}
    refused("'layers.down' holds numbers that are not finite", edited(mlp=bad), "gemma", config)
    refused(
        "n_layers is 3 in the tree and 2 in the config",
        params,
        "gemma",
        config.replace(n_layers=2, windows=(3, 0)),
    )
    refused("batch_stats.* is beside the parameters", {"params": params, "batch_stats": {"mean": jnp.ones(2)}}, "gemma",
            config)  # fmt: skip
    refused("is no tree of parameters", 3, "gemma", config)
    shapes = jax.eval_shape(lambda tree: tree, params)
    refused("'embedder/input_embedding' has a shape and no numbers", shapes, "gemma", config)
    refused("no tokenizer at /nowhere", params, "gemma", config, tokenizer="/nowhere")
    refused("not a tree of the gemma layout", {"a": jnp.ones(2)}, "gemma", config)
    refused("not a tree of the maxtext layout", params, "maxtext", config)
    refused("no layout 'gema' .did you mean gemma", params, "gema", config)
    _, square, other = gemma("first, one key", mlp=12)
    refused("does not show its order", square, "gemma", other)
    load_flax(square, Gemma(transposed=False), other)


def test_what_a_tree_does_not_say_is_not_guessed() -> None:
    _, params, config = gemma("second")
    refused("no tree says its context.*no preset has these sizes", params, "gemma")
    refused("no preset 'gemma2-2b'.*did you mean gemma2_2b", params, "gemma", "gemma2-2b")
    refused("d_model is 12 in the tree and 2304", params, "gemma", "gemma2_2b")
    refused("no models with norm_eps = 1e-05, only 1e-06", params, "gemma", config.replace(norm_eps=1e-5))
    _, params, config, layout = llama("scanned")
    refused("give layout=MaxText.rope_type", params, "maxtext", config)
    refused("the axis of layers is 1 in this tree, not 0", params, MaxText("default", scan_axis=0), config)
    refused(
        "no rope scaling of the kind llama3",
        params,
        layout,
        config.replace(rope_scaling=RopeScaling("llama3", 8.0, 16)),
    )
    refused("no models with windows", params, layout, config.replace(windows=(2, 0, 2)))
    refused("the preset llama2-7b has rope_type 'default'", params, MaxText("llama3.1"), "llama2-7b")
    _, params, config, _ = llama("tied")
    refused("normalize_embedding_logits", params, MaxText("default"), config)
    with pytest.raises(InputError, match="no models with norm_unit_offset = False"):
        to_flax(load_model("pocket"), "gemma")


def test_a_preset_is_named_for_a_tree_of_its_sizes() -> None:
    """Shapes alone are enough to say which presets there are; nothing is allocated."""
    config = preset("gemma2_2b", Gemma())[0]
    small = {f"layer_{i}": {} for i in range(26)}
    shapes = {
        "embedder": {"input_embedding": (256128, 2304)},
        **{
            name: {
                "attn": {"attn_vec_einsum": {"w": (8, 256, 2304)}, "kv_einsum": {"w": (2, 4, 2304, 256)}},
                "mlp": {"linear": (9216, 2304)}, "post_ffw_norm": {"scale": (2304,)},
            }
            for name in small
        },
    }  # fmt: skip
    tree = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.bfloat16), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    refused("presets of these sizes are gemma2_2b", tree, "gemma")
    assert json.dumps({k: flax_fields(tree, "gemma")[k] for k in ("d_model", "n_layers")}) == json.dumps(
        {"d_model": config.d_model, "n_layers": config.n_layers}
    )
