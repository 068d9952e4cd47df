"""Quantised checkpoints: the numbers that their codes stand for, and one clear line where they are not understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import convert, dequantise, load_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths
from jaxinterp.models import forward
from jaxinterp.parallel import mesh as meshes
from jaxinterp.parallel.rules import Rules
from tests.checkpoints import quantised_folders as folders
from tests.references import quantised_cases, stored

GOLDEN = Path(__file__).parent.parent / "references" / "data" / "quantised"
FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
DEEPSEEK = "deepseek_v3_groups"
GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"
UP = "model.layers.1.mlp.experts.gate_up_proj"


# Numbers --------------------------------------------------------------------------------------------


def test_tensors_agree_with_pytorch_and_transformers() -> None:
    with np.load(GOLDEN / "tensors.npz") as golden:
        found = dequantise.mxfp4(golden["mxfp4_blocks"], golden["mxfp4_scales"], FLOAT32, "here")
        assert found.tobytes() == np.swapaxes(golden["mxfp4_numbers"], 1, 2).tobytes()
        every = np.arange(256, dtype=np.uint8)[None, :]
        ones, valid = np.ones((1, 1), np.float32), (every & 127) != 127
        table = dequantise.fp8(np.where(valid, every, 0), ones, (1, 256), FLOAT32, "here")
        assert np.array_equal(table[valid], golden["e4m3"][valid[0]])
        assert np.isnan(golden["e4m3"][~valid[0]]).all()
        found = dequantise.fp8(golden["fp8_codes"], golden["fp8_factors"], (3, 4), FLOAT32, "here")
        assert found.tobytes() == golden["fp8_numbers"].tobytes()
        found = dequantise.fp8(golden["fp8_codes"], golden["fp8_factors"], (3, 4), BFLOAT16, "here")
        assert found.tobytes() == golden["fp8_bfloat16"].tobytes()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_fp8_in_any_blocks(rows: int, columns: int, high: int, wide: int, seed: int) -> None:
    codes, factors = quantised_cases.fp8(seed, "any", (rows, columns), (high, wide))
    found = dequantise.fp8(codes, factors, (high, wide), FLOAT32, "here")
    assert np.array_equal(found, folders.decode(codes, factors, (high, wide)))


def test_every_number_of_mxfp4_is_exact() -> None:
    """All codes under all scales, in float64; bfloat16 and float32 hold each but those beyond their range."""
    codes = np.tile(np.arange(16, dtype=np.uint8), (255, 1))
    magnitude = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])[codes & 7]
    exact = np.where(codes & 8, -1.0, 1.0) * np.ldexp(magnitude, np.arange(255)[:, None] - 127)
    fits = np.abs(exact) < 2.0**128
    # Of both signs, 2, 3, 4 and 6 times 2^127 do not, nor do 4 and 6 times 2^126.
    assert (~fits).sum() == 12
    blocks = np.zeros((255, 1, 16), np.uint8)
    scales = np.arange(255, dtype=np.uint8)[:, None]
    blocks[:, 0, :8] = codes[:, ::2] | codes[:, 1::2] << 4
    for scale in (253, 254):
        with pytest.raises(InputError, match="here holds numbers that are not finite"):
            dequantise.mxfp4(blocks[scale], scales[scale], FLOAT32, "here")
    codes, exact = np.where(fits, codes, 0), np.where(fits, exact, 0)
    blocks[:, 0, :8] = codes[:, ::2] | codes[:, 1::2] << 4
    for dtype in (FLOAT32, BFLOAT16):
        found = dequantise.mxfp4(blocks, scales, dtype, "here")[:, :16]
        assert found.dtype == dtype
        assert np.array_equal(found.astype(np.float64), exact)
        assert np.array_equal(np.signbit(found.astype(np.float64)), np.signbit(exact))


# Models ---------------------------------------------------------------------------------------------


def test_gpt_oss_agrees_with_transformers(tmp_path: Path) -> None:
    model = load_model(folders.gpt_oss(tmp_path / "m"))
    with np.load(GOLDEN / "gpt_oss.npz") as golden:
        logits = np.asarray(forward(model.params, model.config, jnp.asarray(golden["tokens"]))[0])
        assert np.abs(logits - golden["logits"]).max() <= 1e-5 * np.abs(golden["logits"]).max()
    # bfloat16 holds every number of these files.
    half = load_model(tmp_path / "m", dtype="bfloat16")
    for (name, leaf), (_, exact) in zip(paths(half.params), paths(model.params), strict=True):
        assert leaf.dtype == jnp.bfloat16 and np.array_equal(np.asarray(leaf).astype(FLOAT32), exact), name


@pytest.mark.parametrize(
    ("name", "block"),
    [
        (DEEPSEEK, (128, 128)),
        (DEEPSEEK, (5, 8)),
        ("deepseek_v2_groups", (7, 3)),
        ("phi3_gqa_partial", (8, 16)),
    ],
)
def test_fp8_models_hold_what_their_blocks_say(tmp_path: Path, name: str, block: tuple[int, int]) -> None:
    """The same parameters as from a folder with the numbers themselves, which are worked out entry by entry."""
    numbers = folders.fp8_case(tmp_path / "fp8", name, block)
    assert sum(array.dtype == np.float32 for array in numbers.values()) == len(numbers)
    plain = {key: ("F32", array) for key, array in numbers.items()}
    folders.write(tmp_path / "plain", stored.case(name).config, plain)
    found, expected = load_model(tmp_path / "fp8"), load_model(tmp_path / "plain")
    assert found.config == expected.config and found.digest() == expected.digest()
    half = load_model(tmp_path / "fp8", dtype="bfloat16")
    assert half.digest() == expected.astype("bfloat16").digest()
    assert found.digest() != load_model(stored.write_folder(name, tmp_path / "original")).digest()


def test_factors_may_be_bfloat16_and_in_another_shard(tmp_path: Path) -> None:
    numbers = folders.fp8_case(tmp_path / "one", DEEPSEEK, (8, 8))
    expected = load_model(tmp_path / "one")
    tensors: dict[str, Any] = {}

    def keep(stored_tensors: dict[str, Any]) -> None:
        tensors.update(stored_tensors)

    folders.fp8_case(tmp_path / "one", DEEPSEEK, (8, 8), change=keep)
    scales = {name: value for name, value in tensors.items() if name.endswith("_scale_inv")}
    rest = {name: value for name, value in tensors.items() if name not in scales}
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
    files = {"a.safetensors": rest, "b.safetensors": scales}
    for file, inside in files.items():
        quantised_cases.write_safetensors(folder / file, inside)
    place = {name: file for file, inside in files.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    assert load_model(folder).digest() == expected.digest()
    # Rounded factors are others: the numbers change by at most that rounding, and are its exact products.
    half = {name: quantised_cases.bfloat16(value) for name, (_, value) in scales.items()}
    quantised_cases.write_safetensors(folder / "b.safetensors", half)
    leaf = np.asarray(load_model(folder).params["experts"]["gate"][0, 3]).T
    factors = (half[f"{GATE}_scale_inv"][1].astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(leaf, folders.decode(tensors[GATE][1], factors, (8, 8)))
    assert np.abs(leaf - numbers[GATE]).max() <= 2.0**-8 * np.abs(numbers[GATE]).max()


def test_divided_over_a_mesh(tmp_path: Path) -> None:
    mesh, rules = meshes.make(data=4, model=2), Rules().replace(vocab=None)
    folders.fp8_case(tmp_path / "fp8", DEEPSEEK)
    folders.gpt_oss(tmp_path / "mxfp4")
    for name in ("fp8", "mxfp4"):
        divided = load_model(tmp_path / name, mesh=mesh, rules=rules)
        gate = divided.params["experts"]["gate"]
        assert {shard.data.shape[1] for shard in gate.addressable_shards} == {gate.shape[1] // 2}
        assert divided.digest() == load_model(tmp_path / name).digest()


def test_written_without_codes(tmp_path: Path) -> None:
    """A quantised model is exported as numbers, in a dtype that holds them, and says nothing of codes."""
    folders.gpt_oss(tmp_path / "a")
    folders.fp8_case(tmp_path / "b", DEEPSEEK)
    for name, dtype in (("a", "bfloat16"), ("b", "float32")):
        out = tmp_path / f"{name}_out"
        facts = convert(tmp_path / name, out, "huggingface")
        content = json.loads((out / "config.json").read_text())
        assert facts["dtype"] == content["torch_dtype"] == dtype
        assert "quantization_config" not in content
        assert load_model(out).digest() == load_model(tmp_path / name).digest()


# The layers of multi-token prediction ---------------------------------------------------------------


def with_further_layer(tensors: dict[str, Any], layer: int = 3) -> dict[str, Any]:
    """The tensors with a layer after the last one, as the published DeepSeek-V3 has it: fp8 and all."""
    last, after = f"model.layers.{layer - 1}.", f"model.layers.{layer}."
    more = {after + name.removeprefix(last): v for name, v in tensors.items() if name.startswith(last)}
    ones = ("F32", np.ones((16, 16), np.float32))
    for part in ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head"):
        more[f"{after}{part}.weight"] = ones
    return {**tensors, **more}


def test_layers_of_multi_token_prediction_are_left_out(tmp_path: Path) -> None:
    folders.fp8_case(tmp_path / "without", DEEPSEEK)
    expected = load_model(tmp_path / "without")
    folders.fp8_case(tmp_path / "with", DEEPSEEK, change=with_further_layer, num_nextn_predict_layers=1)
    found = load_model(tmp_path / "with")
    assert found.config == expected.config and found.digest() == expected.digest()
    # The config may announce them where the files have them no more.
    folders.fp8_case(tmp_path / "none", DEEPSEEK, num_nextn_predict_layers=1)
    assert load_model(tmp_path / "none").digest() == expected.digest()


@pytest.mark.parametrize(
    ("announced", "further", "words"),
    [
        (0, {}, ("unexpected tensor 'model.layers.3.",)),
        (None, {}, ("unexpected tensor 'model.layers.3.",)),
        (1, {"model.layers.4.enorm.weight": "again"}, ("unexpected", "model.layers.4.enorm.weight")),
        (1, {"model.layers.3.fnorm.weight": "again"}, ("unexpected", "model.layers.3.fnorm.weight")),
        (1, {"model.layers.2.enorm.weight": "again"}, ("unexpected", "model.layers.2.enorm.weight")),
        ("1", {}, ("num_nextn_predict_layers", "'1'", "whole number")),
        (-1, {}, ("num_nextn_predict_layers", "-1", "whole number")),
    ],
)
def test_only_announced_layers_are_left_out(
    tmp_path: Path, announced: Any, further: dict[str, str], words: tuple[str, ...]
) -> None:
    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        longer = with_further_layer(tensors)
        return {**longer, **dict.fromkeys(further, longer["model.layers.3.enorm.weight"])}

    folders.fp8_case(tmp_path, DEEPSEEK, change=change, num_nextn_predict_layers=announced)
    refused(tmp_path, *words)


# What is refused ------------------------------------------------------------------------------------


def refused(folder: Path, *words: str) -> None:
    """Loading raises an InputError of one line with the folder's name and every one of ``words``."""
    with pytest.raises(InputError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


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


def test_listed_modules_stay_as_they_are(tmp_path: Path) -> None:
    """A list that names what is stored as numbers changes nothing, whole names and patterns alike."""
    folders.fp8_case(tmp_path / "a", DEEPSEEK)
    listed = [
        "lm_head",
        "model.layers.*.mlp.gate",
        "model.layers.0.input_layernorm",
        "model.layers.1.mlp.experts.30",
    ]
    quantisation = {**folders.FP8, "weight_block_size": [5, 8], "modules_to_not_convert": listed}
    folders.fp8_case(tmp_path / "b", DEEPSEEK, quantization_config=quantisation)
    assert load_model(tmp_path / "b").digest() == load_model(tmp_path / "a").digest()


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
    refused(tmp_path, f"unexpected tensor {name!r}", f"as written by {SIGNS[name]}; read are F16, BF16, F32")


@pytest.mark.parametrize("code", ["U8", "I8", "F8_E4M3", "F8_E5M2"])
def test_codes_in_place_of_weights(tmp_path: Path, code: str) -> None:
    case, name = stored.case("llama_mha"), "model.layers.0.mlp.up_proj.weight"
    tensors = {key: ("F32", value) for key, value in case.tensors().items()}
    folders.write(tmp_path, case.config, {**tensors, name: (code, np.zeros((28, 16), np.uint8))})
    refused(tmp_path, str(tmp_path / "model.safetensors"), name, f"dtype {code}", "quantization_config")
