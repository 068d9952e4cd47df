"""Every bad input gives one line that says what, where, and what would be right."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from jaxinterp.checkpoints import load_model, save_model
from jaxinterp.checkpoints.llama2c import write_model
from jaxinterp.checkpoints.llama2c_tokenizer import Llama2cTokenizer, write_tokenizer
from jaxinterp.core.errors import InputError
from tests.checkpoints.folders import DATA, SHARDED, copied, edit_config, rewrite
from tests.support import tiny_model

Q = "model.layers.1.self_attn.q_proj.weight"


def refused(path: Path | str, *words: str, **options: Any) -> None:
    """Loading raises an InputError of one line that has every one of ``words``."""
    with pytest.raises(InputError) as caught:
        load_model(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


# Hugging Face tensors -------------------------------------------------------------------------------

TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    "missing": (lambda t: {k: v for k, v in t.items() if k != Q}, (Q, "(16, 16)", "missing")),
    "misspelt": (
        lambda t: {("model.norm.wieght" if k == "model.norm.weight" else k): v for k, v in t.items()},
        ("unexpected", "'model.norm.wieght'", "did you mean model.norm.weight"),
    ),
    "one too many": (lambda t: {**t, "model.layers.7.mlp.up_proj.weight": t[Q]}, ("unexpected", "layers.7")),
    "another shape": (lambda t: {**t, Q: t[Q][:-1].copy()}, (Q, "(15, 16)", "(16, 16)", "model.safetensors")),
    "turned": (
        lambda t: {**t, "lm_head.weight": t["lm_head.weight"].T.copy()},
        ("lm_head.weight", "(16, 50)", "(50, 16)"),
    ),
    "whole numbers": (lambda t: {**t, Q: t[Q].astype(np.int32)}, (Q, "I32", "F16, BF16, F32")),
    "not a number": (lambda t: {**t, Q: np.full_like(t[Q], np.nan)}, (Q, "not finite")),
    "a bias that the config denies": (
        lambda t: {**t, "model.layers.0.mlp.up_proj.bias": np.zeros(28, np.float32)},
        ("unexpected", "up_proj.bias"),
    ),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_tensors(tmp_path: Path, fault: str) -> None:
    folder = copied(tmp_path, "llama_gqa")
    change, words = TENSOR_FAULTS[fault]
    rewrite(folder, change)
    refused(folder, str(folder), *words)


# Files ----------------------------------------------------------------------------------------------


def damage(file: Path, change: Callable[[bytearray], bytes | bytearray]) -> int:
    data = bytearray(file.read_bytes())
    file.write_bytes(change(data))
    return len(data)


def set_header(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize("name", ["llama_gqa", "gemma2"])
@pytest.mark.parametrize("keep", [0, 5, 100, 2000, -1])
def test_truncated_safetensors(tmp_path: Path, name: str, keep: int) -> None:
    folder = copied(tmp_path, name)
    size = damage(folder / "model.safetensors", lambda d: d[:keep])
    words = ("bytes",) if 0 <= keep < 2100 else (str(size - 1), str(size))
    refused(folder, str(folder / "model.safetensors"), *words)


def test_padded_safetensors(tmp_path: Path) -> None:
    folder = copied(tmp_path, "llama_gqa")
    size = damage(folder / "model.safetensors", lambda d: d + b"\0\0\0")
    refused(folder, "model.safetensors", str(size), str(size + 3))


@pytest.mark.parametrize("bit", [0, 3, 12, 20, 40, 63])
def test_flipped_header_length(tmp_path: Path, bit: int) -> None:
    folder = copied(tmp_path, "llama_gqa")

    def flip(data: bytearray) -> bytearray:
        data[bit // 8] ^= 1 << bit % 8
        return data

    damage(folder / "model.safetensors", flip)
    refused(folder, "model.safetensors")


HEADER_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "overlap": (lambda h: h[Q].update(data_offsets=h["model.norm.weight"]["data_offsets"]), Q),
    "negative size": (lambda h: h[Q].update(shape=[-16, -16]), "not a size"),
    "a flag for a size": (lambda h: h[Q].update(shape=[True, 16]), "not a size"),
    "shape without bytes": (lambda h: h[Q].update(shape=[16, 17]), "1088 bytes"),
    "unknown dtype": (lambda h: h[Q].update(dtype="F128"), "F128"),
    "dtype of another kind": (lambda h: h[Q].update(dtype=["F32"]), "['F32']"),
    "no offsets": (lambda h: {**h, Q: {"dtype": "F32", "shape": [16, 16]}}, Q),
    "an entry that is a list": (lambda h: {**h, Q: [1, 2]}, Q),
    "a list": (lambda h: [1], "not a JSON object"),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_headers_that_lie(tmp_path: Path, fault: str) -> None:
    folder = copied(tmp_path, "llama_gqa")
    change, word = HEADER_FAULTS[fault]

    def apply(header: dict[str, Any]) -> Any:
        result = change(header)
        return result if isinstance(result, list) or (isinstance(result, dict) and Q in result) else header

    set_header(folder / "model.safetensors", apply)
    refused(folder, "model.safetensors", word)


def test_shards(tmp_path: Path) -> None:
    folder = copied(tmp_path, SHARDED)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    names = sorted(set(content["weight_map"].values()))
    (folder / names[1]).rename(folder / "elsewhere")
    refused(folder, "lacks the shard", names[1])
    (folder / "elsewhere").rename(folder / names[1])

    moved = dict(content["weight_map"], **{"model.norm.weight": names[0]})
    owner = content["weight_map"]["model.norm.weight"]
    assert owner != names[0]
    index.write_text(json.dumps({"weight_map": moved}))
    refused(folder, "model.norm.weight", owner, names[0])

    index.write_text(json.dumps({"weight_map": {**content["weight_map"], "model.extra": names[0]}}))
    refused(folder, "model.extra", names[0])
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../" + names[0]}}))
    refused(folder, "is not the name of a file in this folder")
    index.write_text("{}")
    refused(folder, "weight_map")

    index.write_text(json.dumps(content))
    shard = safetensors.numpy.load_file(folder / names[0])
    other = safetensors.numpy.load_file(folder / names[1])
    name = next(iter(other))
    safetensors.numpy.save_file({**shard, name: other[name]}, folder / names[0])
    refused(folder, name, names[0])


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    folder = copied(tmp_path, "gpt2")
    (folder / "model.safetensors").unlink()
    evidence = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (evidence,)

    for name in ("pytorch_model.bin", "weights.pt"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
        refused(folder, "never executed", name)
        refused(folder / name, "never executed")
        (folder / name).unlink()
    assert not evidence.exists()


# Configs --------------------------------------------------------------------------------------------

CONFIG_FAULTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "unknown field": ("llama_gqa", {"hidden_sise": 16}, ("'hidden_sise' = 16", "did you mean hidden_size")),
    "a later feature": ("llama_gqa", {"num_experts": 4}, ("num_experts", "4")),
    "positions scaled in an unknown way": (
        "llama_gqa",
        {"rope_scaling": {"rope_type": "dynamic", "factor": 8.0}},
        ("rope_scaling", "dynamic", "supported are the types default, linear, llama3"),
    ),
    "half a scaling": (
        "llama_gqa",
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        ("rope_scaling", "'low_freq_factor' of llama3 is missing"),
    ),
    "a scaling with a new field": (
        "llama_gqa",
        {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "beta_fats": 4}},
        ("unknown field 'beta_fats' of yarn", "did you mean beta_fast"),
    ),
    "two kinds of scaling": (
        "llama_gqa",
        {"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 8.0}},
        ("rope_scaling", "supported are the types"),
    ),
    "a negative factor": (
        "llama_gqa",
        {"rope_scaling": {"rope_type": "linear", "factor": -1.0}},
        ("rope_scaling: factor is -1.0", "positive"),
    ),
    "another family": (
        "llama_gqa",
        {"model_type": "lama"},
        ("'lama'", "did you mean llama", "supported are deepseek_v2, deepseek_v3, gemma"),
    ),
    "no family": (
        "llama_gqa",
        {"model_type": None},
        ("model_type", "supported are deepseek_v2, deepseek_v3, gemma"),
    ),
    "another head": ("gpt2", {"architectures": ["GPT2ForTokenClassification"]}, ("GPT2LMHeadModel",)),
    "activation": ("llama_gqa", {"hidden_act": "mish"}, ("hidden_act", "'mish'", "silu")),
    "size of text": ("llama_gqa", {"hidden_size": "16"}, ("hidden_size", "'16'", "whole number")),
    "size of nothing": ("llama_gqa", {"num_hidden_layers": 0}, ("num_hidden_layers", "0")),
    "flag of text": ("llama_gqa", {"attention_bias": "no"}, ("attention_bias", "'no'", "true or false")),
    "heads that do not divide": ("llama_gqa", {"num_key_value_heads": 3}, ("4 heads", "3 key/value")),
    "negative epsilon": ("llama_gqa", {"rms_norm_eps": -1.0}, ("rms_norm_eps", "-1.0")),
    "quantised": (
        "llama_gqa",
        {"quantization_config": {"bits": 4}},
        ("quantization_config names no quant_method", "bits"),
    ),
    "scaled by layer": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True},
        ("scale_attn_by_inverse_layer_idx",),
    ),
    "cross attention": ("gpt2", {"add_cross_attention": True}, ("add_cross_attention", "True", "False")),
    "layer types": ("gemma2", {"layer_types": ["full_attention"]}, ("layer_types", "list of 3")),
    "layer kind": ("gemma2", {"layer_types": ["full_attention"] * 2 + ["chunked"]}, ("'chunked'",)),
    "no window": ("gemma2", {"sliding_window": None}, ("sliding_window is null",)),
    "two windows": ("gemma2", {"sliding_window_size": 8}, ("sliding_window_size is 8", "4")),
    "both directions": ("gemma2", {"use_bidirectional_attention": True}, ("use_bidirectional_attention",)),
    "vocabulary that does not fit": ("gemma2", {"vocab_size": 51}, ("embed_tokens", "(50, 16)", "(51, 16)")),
    "one layer more": ("gpt2", {"n_layer": 4}, ("transformer.h.3", "missing")),
    "one layer less": ("gpt2", {"n_layer": 2}, ("unexpected", "transformer.h.2")),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_configs(tmp_path: Path, fault: str) -> None:
    name, changes, words = CONFIG_FAULTS[fault]
    folder = copied(tmp_path, name)
    edit_config(folder, **changes)
    refused(folder, str(folder), *words)


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "rms_norm_eps", "max_position_embeddings"])
def test_a_missing_field(tmp_path: Path, field: str) -> None:
    folder = copied(tmp_path, "llama_gqa")
    content = json.loads((folder / "config.json").read_text())
    del content[field]
    (folder / "config.json").write_text(json.dumps(content))
    refused(folder, "config.json", repr(field), "missing")


# Paths ----------------------------------------------------------------------------------------------


def test_paths(tmp_path: Path) -> None:
    folder = copied(tmp_path, "gpt2")
    refused(tmp_path / "gtp2", "gtp2", "did you mean gpt2", "nothing is downloaded")
    refused("someone/some-model-7b", "nothing is downloaded")
    refused(folder / "model.safetensors", "give the folder", str(folder))
    refused(folder / "config.json", "give the folder")
    (folder / "config.json").unlink()
    refused(folder, "no config.json but model.safetensors")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no config.json but nothing")
    refused(DATA / "gpt2", "dtype 'float23'", "did you mean float32", dtype="float23")
    for content, word in (("{", "line 1"), ("[]", "not a JSON object"), ('"x"', "not a JSON object")):
        (folder / "config.json").write_text(content)
        refused(folder, "config.json", word)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    refused(tmp_path / "m.gguf", "GGUF")


def test_tokenizers_that_do_not_fit(tmp_path: Path) -> None:
    folder = copied(tmp_path, "gpt2")
    source = DATA / "tokenizers" / "byte_level" / "tokenizer.json"
    shutil.copy(source, folder)
    refused(folder, str(folder), "300 tokens", "vocabulary of 50")
    refused(DATA / "gpt2", "300 tokens", "vocabulary of 50", tokenizer=source)
    refused(DATA / "gpt2", "no tokenizer at", tokenizer=tmp_path / "absent.json")
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "tokenizer.json is not a tokenizer")
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe")
    refused(folder, "tokenizer.json", "not UTF-8")


# Our own folder -------------------------------------------------------------------------------------


def native(tmp_path: Path) -> Path:
    save_model(tiny_model("llama"), tmp_path / "native")
    return tmp_path / "native"


def test_native_configs(tmp_path: Path) -> None:
    folder = native(tmp_path)
    content = json.loads((folder / "config.json").read_text())
    config = content["config"]
    for change, words in (
        ({"format": "jaxinterp-dictionary"}, ("jaxinterp-dictionary", "jaxinterp-model")),
        ({"version": 2}, ("version is 2", "reads 1")),
        ({"confg": {}}, ("'confg'", "did you mean config")),
        ({"config": None}, ("'config'",)),
        ({"config": {**config, "d_modle": 1}}, ("'d_modle'", "did you mean d_model")),
        ({"config": {**config, "norm": "batch"}}, ("norm", "'batch'", "rms")),
        ({"config": {k: v for k, v in config.items() if k != "d_head"}}, ("'d_head'", "missing")),
        ({"config": {**config, "d_mlp": 25}}, ("layers.", "24", "25")),
        ({"config": {**config, "tied": True}}, ("unknown weight", "unembed")),
    ):
        (folder / "config.json").write_text(json.dumps({**content, **change}))
        refused(folder, str(folder), *words)


def test_native_weights(tmp_path: Path) -> None:
    folder = native(tmp_path)
    rewrite(folder, lambda t: {k: v for k, v in t.items() if k != "layers.q"})
    refused(folder, "model.safetensors", "'layers.q'")
    folder = native(tmp_path)
    rewrite(folder, lambda t: {**t, "layers.qq": t["layers.q"]})
    refused(folder, "unknown weight 'layers.qq'", "did you mean layers.q")
    folder = native(tmp_path)
    rewrite(folder, lambda t: {**t, "layers.q": t["layers.q"].astype(np.int64)})
    refused(folder, "layers.q", "I64")
    folder = native(tmp_path)
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "No such file")


# llama2.c -------------------------------------------------------------------------------------------


def llama2c(tmp_path: Path) -> Path:
    model = tiny_model("llama", rope_pairs="adjacent", tied=True)
    write_model(tmp_path / "m.bin", model.params, model.config)
    return tmp_path / "m.bin"


@pytest.mark.parametrize("cut", [-1, -4, 2000, 40, 28, 27, 3, 0])
def test_truncated_llama2c(tmp_path: Path, cut: int) -> None:
    file = llama2c(tmp_path)
    size = damage(file, lambda d: d[:cut])
    found = str(file.stat().st_size)
    refused(file, str(file), found, *([str(size), "truncated"] if file.stat().st_size >= 28 else ["28"]))


def test_too_long_llama2c(tmp_path: Path) -> None:
    file = llama2c(tmp_path)
    size = damage(file, lambda d: d + bytes(4))
    refused(file, "too long", str(size), str(size + 4))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, -16, ("dim -16",)),
        (0, 17, ("dim 17", "do not fit")),
        (2, 0, ("n_layers 0",)),
        (3, 3, ("n_heads 3", "do not fit")),
        (4, 3, ("n_kv_heads 3", "do not fit")),
        (5, -40, ("truncated",)),
        (6, 2**31 - 1, ("seq_len 2147483647",)),
        (0, 0x616B3432, ("version", "version 0")),
    ],
)
def test_headers_of_llama2c(tmp_path: Path, place: int, value: int, words: tuple[str, ...]) -> None:
    file = llama2c(tmp_path)
    damage(file, lambda d: d[: 4 * place] + struct.pack("<i", value) + d[4 * place + 4 :])
    refused(file, str(file), *words)


def test_text_is_no_llama2c_model(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("Once upon a time there was a file that was no model at all.")
    refused(tmp_path / "m.txt", "m.txt is not a llama2.c model")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    file = llama2c(tmp_path)
    damage(file, lambda d: d[:28] + struct.pack("<f", float("inf")) + d[32:])
    refused(file, "embed.tokens", "not finite")


def test_tokenizers_of_llama2c(tmp_path: Path) -> None:
    file = llama2c(tmp_path)
    beside = tmp_path / "tokenizer.bin"
    tokenizer = Llama2cTokenizer(
        [b"<unk>", b"<s>", b"</s>", *(bytes([97 + i]) for i in range(26))], [0.0] * 29
    )
    write_tokenizer(beside, tokenizer)
    refused(file, "tokenizer.bin", "29 tokens", "40")
    whole = beside.read_bytes()
    for cut in (2, 7, 12, len(whole) - 1):
        beside.write_bytes(whole[:cut])
        refused(file, "tokenizer.bin", str(cut))
    beside.write_bytes(whole[:8] + struct.pack("<i", -5) + whole[12:])
    refused(file, "tokenizer.bin is not a llama2.c tokenizer", "-5 bytes")
