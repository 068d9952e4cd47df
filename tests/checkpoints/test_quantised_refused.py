"""Quantised checkpoints that are not understood or do not fit together: one clear line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.checkpoints import load_model
from jaxinterp.checkpoints.quantised import read_quantisation
from jaxinterp.core.errors import InputError
from tests.checkpoints import quantised_folders as folders
from tests.checkpoints.quantised_folders import refused
from tests.checkpoints.test_untrusted import JUNK, attempt
from tests.references import stored

DEEPSEEK = "deepseek_v3_groups"
GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"
UP = "model.layers.1.mlp.experts.gate_up_proj"


def replaced(name: str, code: str, array: np.ndarray) -> Any:
    return lambda tensors: {**tensors, name: (code, array)}


def without(name: str) -> Any:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


SCALE = f"{GATE}_scale_inv"
NORM = "model.layers.0.input_layernorm.weight"
BYTES = np.zeros((8, 16), np.uint8)
FP8_FAULTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no factors": (without(SCALE), (GATE, "(8, 16)", f"no {SCALE!r}")),
    "factors of nothing": (without(GATE), (SCALE, f"has no {GATE!r}")),
    "factors of a tensor that is not fp8": (
        replaced(GATE, "F32", np.zeros((8, 16), np.float32)),
        (GATE, "F32", SCALE, "expected F8_E4M3"),
    ),
    "too few factors": (
        replaced(SCALE, "F32", np.ones((2, 1), np.float32)),
        (SCALE, "(2, 1)", "expected (2, 2)", "(8, 16)", "(5, 8)"),
    ),
    "one factor": (replaced(SCALE, "F32", np.ones((), np.float32)), (SCALE, "()", "(2, 2)")),
    "factors of whole numbers": (
        replaced(SCALE, "I32", np.ones((2, 2), np.int32)),
        (SCALE, "I32", "expected F32 or BF16"),
    ),
    "a vector": (
        lambda t: {
            **t, NORM: ("F8_E4M3", np.zeros(16, np.uint8)), f"{NORM}_scale_inv": ("F32", np.ones(1, np.float32)),
        },
        (NORM, "F8_E4M3", "(16,)", "matrices"),
    ),
    "another shape": (
        lambda t: {
            **t, GATE: ("F8_E4M3", np.zeros((9, 16), np.uint8)), SCALE: ("F32", np.ones((2, 2), np.float32)),
        },
        (GATE, "(9, 16)", "the config asks for (8, 16)"),
    ),
    "the other fp8": (replaced(GATE, "F8_E5M2", BYTES), (GATE, "F8_E5M2", "expected F8_E4M3")),
    "whole numbers": (
        lambda t: {**without(SCALE)(t), GATE: ("I8", BYTES)}, (GATE, "dtype I8", "F16, BF16, F32", "fp8 in blocks"),
    ),
    "a code that is no number": (replaced(GATE, "F8_E4M3", np.full((8, 16), 127, np.uint8)), (GATE, "not finite")),
    "an infinite factor": (replaced(SCALE, "F32", np.full((2, 2), np.inf, np.float32)), (GATE, "not finite")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FP8_FAULTS)
def test_faults_of_fp8(tmp_path: Path, fault: str) -> None:
    change, words = FP8_FAULTS[fault]
    folders.fp8_case(tmp_path, DEEPSEEK, change=change)
    refused(tmp_path, str(tmp_path / "model.safetensors"), *words)


def test_products_too_large_for_a_dtype(tmp_path: Path) -> None:
    large = replaced(SCALE, "F32", np.full((2, 2), 200.0, np.float32))
    folders.fp8_case(tmp_path, DEEPSEEK, change=large)
    assert np.isfinite(np.asarray(load_model(tmp_path, dtype="bfloat16").params["experts"]["gate"])).all()
    with pytest.raises(InputError, match=rf"{GATE}.*too large for float16"):
        load_model(tmp_path, dtype="float16")


MXFP4_FAULTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no scales": (without(f"{UP}_scales"), (f"{UP}_blocks", f"no '{UP}_scales'")),
    "no blocks": (without(f"{UP}_blocks"), (f"{UP}_scales", f"no '{UP}_blocks'")),
    "scales of another shape": (
        replaced(f"{UP}_scales", "U8", np.full((4, 64, 1), 127, np.uint8)),
        (f"{UP}_scales", "(4, 64, 1)", "expected (4, 64, 2)", "(4, 64, 2, 16)"),
    ),
    "blocks of another size": (
        replaced(f"{UP}_blocks", "U8", np.zeros((4, 64, 4, 8), np.uint8)),
        (f"{UP}_blocks", "(4, 64, 4, 8)", "(experts, rows, blocks, 16)"),
    ),
    "another model": (
        lambda t: {
            **t, f"{UP}_blocks": ("U8", np.zeros((4, 60, 2, 16), np.uint8)),
            f"{UP}_scales": ("U8", np.zeros((4, 60, 2), np.uint8)),
        },
        (f"{UP}_blocks", "(4, 60, 2, 16)", "(4, 64, 60)", "the config asks for (4, 64, 64)"),
    ),
    "numbers for blocks": (
        replaced(f"{UP}_blocks", "BF16", np.zeros((4, 64, 2, 16), np.uint16)), (f"{UP}_blocks", "BF16", "expected U8"),
    ),
    "numbers for scales": (
        replaced(f"{UP}_scales", "F32", np.ones((4, 64, 2), np.float32)), (f"{UP}_scales", "F32", "expected U8"),
    ),
    "a scale that is no number": (
        replaced(f"{UP}_scales", "U8", np.full((4, 64, 2), 255, np.uint8)), (f"{UP}_blocks", "not finite", "255"),
    ),
    "a scale too large": (
        replaced(f"{UP}_scales", "U8", np.full((4, 64, 2), 254, np.uint8)), (f"{UP}_blocks", "not finite"),
    ),
    "no bias": (without(f"{UP}_bias"), (f"{UP}_bias", "(4, 64)", "missing")),
    "blocks of a part that has none": (
        lambda t: {
            **t, "model.layers.0.mlp.router.weight_blocks": ("U8", np.zeros((1, 4, 2, 16), np.uint8)),
            "model.layers.0.mlp.router.weight_scales": ("U8", np.zeros((1, 4, 2), np.uint8)),
        },
        ("router.weight_blocks", "modules_to_not_convert"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", MXFP4_FAULTS)
def test_faults_of_mxfp4(tmp_path: Path, fault: str) -> None:
    change, words = MXFP4_FAULTS[fault]
    folders.gpt_oss(tmp_path, change)
    refused(tmp_path, *words)


CONFIG_FAULTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    **{
        method: ({"quant_method": method, **more}, (f"the quant_method {method!r} is not supported", "fp8 in blocks"))
        for method, more in (
            ("gptq", {"bits": 4, "group_size": 128}), ("awq", {"bits": 4, "zero_point": True}),
            ("bitsandbytes", {"load_in_4bit": True}), ("compressed-tensors", {"format": "float-quantized"}),
            ("fbgemm_fp8", {"activation_scale_ub": 1200.0}), ("torchao", {"quant_type": "int8"}), ("modelopt", {}),
        )
    },
    "mxfp4": ({"quant_method": "mxfp4"}, ("mxfp4 of a deepseek_v3 model", "of gpt_oss models")),
    "no method": ({"bits": 4, "group_size": 64}, ("names no quant_method", "bits, group_size")),
    "no object": ("fp8", ("quantization_config is 'fp8'", "null")),
    "a method that is no name": ({"quant_method": ["fp8"]}, ("the quant_method ['fp8']",)),
    "one scale a tensor": (dict(folders.FP8), ("weight_block_size is None", "one scale for a tensor")),
    "blocks of one axis": ({**folders.FP8, "weight_block_size": [128]}, ("weight_block_size is [128]",)),
    "empty blocks": ({**folders.FP8, "weight_block_size": [0, 128]}, ("weight_block_size is [0, 128]",)),
    "another format": (
        {**folders.FP8, "fmt": "e5m2", "weight_block_size": [8, 8]}, ("fmt is 'e5m2'", "supported is 'e4m3'"),
    ),
    "static activations": (
        {**folders.FP8, "activation_scheme": "static", "weight_block_size": [8, 8]},
        ("activation_scheme is 'static'", "'dynamic'"),
    ),
    "a new field": (
        {**folders.FP8, "weight_block_sise": [8, 8]},
        ("unknown field 'weight_block_sise' = [8, 8] of fp8", "did you mean weight_block_size"),
    ),
    "modules that are no list": (
        {**folders.FP8, "weight_block_size": [8, 8], "modules_to_not_convert": "lm_head"},
        ("modules_to_not_convert is 'lm_head'", "list of names"),
    ),
    "listed as not quantised": (
        {**folders.FP8, "weight_block_size": [5, 8], "modules_to_not_convert": ["lm_head", "model.layers.*.experts.3"]},
        ("model.layers.1.mlp.experts.3.", "F8_E4M3", "modules_to_not_convert"),
    ),
    "codes that nothing explains": (
        None, ("_proj.weight", "F8_E4M3", "quantization_config would have to explain", "fp8 in blocks"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_faults_of_quantisation_configs(tmp_path: Path, fault: str) -> None:
    content, words = CONFIG_FAULTS[fault]
    folders.fp8_case(tmp_path, DEEPSEEK, quantization_config=content)
    refused(tmp_path, *words)


SIGNS = {
    "model.layers.0.mlp.up_proj.qweight": "GPTQ or AWQ",
    "model.layers.0.mlp.up_proj.g_idx": "GPTQ",
    "model.layers.0.mlp.up_proj.weight.absmax": "bitsandbytes",
    "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4": "bitsandbytes",
    "model.layers.0.mlp.up_proj.SCB": "bitsandbytes",
    "model.layers.0.mlp.up_proj.weight_packed": "compressed-tensors",
    "model.layers.0.mlp.up_proj.weight_scale": "compressed-tensors, ModelOpt or FBGEMM",
    "model.layers.0.mlp.up_proj.weight_scale_inv": "fp8 in blocks",
    "model.layers.0.mlp.experts.gate_up_proj_blocks": "mxfp4",
}


@pytest.mark.parametrize("name", SIGNS)
def test_quantised_without_saying_so(tmp_path: Path, name: str) -> None:
    """A config that says nothing of it: the tensors' names show who wrote them."""
    case = stored.case("llama_mha")
    tensors = {key: ("F32", value) for key, value in case.tensors().items()}
    folders.write(tmp_path, case.config, {name: ("I32", np.zeros((4, 4), np.int32)), **tensors})
    refused(
        tmp_path,
        f"unexpected tensor {name!r}",
        f"as in models quantised by {SIGNS[name]}, ",
        "read are F16, BF16, F32",
    )


@pytest.mark.parametrize("code", ["U8", "I8", "F8_E4M3", "F8_E5M2"])
def test_codes_in_place_of_weights(tmp_path: Path, code: str) -> None:
    case, name = stored.case("llama_mha"), "model.layers.0.mlp.up_proj.weight"
    tensors = {key: ("F32", value) for key, value in case.tensors().items()}
    folders.write(tmp_path, case.config, {**tensors, name: (code, np.zeros((28, 16), np.uint8))})
    refused(tmp_path, str(tmp_path / "model.safetensors"), name, f"dtype {code}", "quantization_config")


def test_junk_in_every_field() -> None:
    """Whatever stands there, the answer is a quantisation or one line."""
    accepted = 0
    for method, known in (
        ("fp8", {**folders.FP8, "weight_block_size": [8, 8]}),
        ("mxfp4", {"quant_method": "mxfp4"}),
    ):
        for field in (*known, "modules_to_not_convert", "scale_fmt", "extra"):
            for value in JUNK:
                content = {**known, field: value}
                found = attempt(lambda content=content: read_quantisation(content, "gpt_oss", "config.json"))
                assert found is None or found.method == method
                accepted += found is not None
    assert accepted >= 6
