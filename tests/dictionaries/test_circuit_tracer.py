"""circuit-tracer's folders: read, written, read again; and every fault with one clear line."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig, kind_of, load_dictionary, save_dictionary
from jaxinterp.dictionaries.initialise import random
from tests.support import shared

CASES = ("gemma2_plt_jumprelu", "llama_plt_relu_skip", "llama_clt_relu")


def make(kind: str, activation: str = "jumprelu", skip: bool = True) -> Dictionary:
    config = DictionaryConfig(
        kind, 3, 6, 4, activation=activation, skip=skip, read_site="mlp_in", write_site="mlp_out_raw",
        model_name="tiny", scan="set/one",
    )  # fmt: skip
    params = random(config, jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 9))
    small = ("b_enc", "b_dec", "threshold", "W_skip")
    noisy = {n: jax.random.uniform(next(keys), params[n].shape) for n in small if n in params}
    return Dictionary({**params, **noisy}, config, "made")


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("activation", ["relu", "jumprelu"])
@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_a_round_trip_keeps_every_byte(tmp_path: Path, kind: str, activation: str, skip: bool) -> None:
    made = make(kind, activation, skip)
    save_dictionary(made, tmp_path / "d")
    found = load_dictionary(tmp_path / "d")
    assert found.config == made.config
    assert found.digest() == made.digest()
    assert found.name == "d"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_on_disk(tmp_path: Path, dtype: str) -> None:
    made = make("clt")
    save_dictionary(made, tmp_path / "d", dtype)
    found = load_dictionary(tmp_path / "d")
    expected = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), made.params)
    for one, two in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_array_equal(one, two)


def test_the_layout_on_disk_is_the_documented_one(tmp_path: Path) -> None:
    clt, plt = make("clt"), make("plt")
    save_dictionary(clt, tmp_path / "clt")
    save_dictionary(plt, tmp_path / "plt")
    encoder, decoder = (load_file(tmp_path / "clt" / f"W_{part}_1.safetensors") for part in ("enc", "dec"))
    shapes = {name: value.shape for name, value in {**encoder, **decoder}.items()}
    assert shapes == {
        "W_enc_1": (6, 4), "b_enc_1": (6,), "b_dec_1": (4,), "threshold_1": (6,), "W_skip_1": (4, 4),
        "W_dec_1": (6, 2, 4),
    }  # fmt: skip
    np.testing.assert_array_equal(decoder["W_dec_1"][:, 1], clt.params["W_dec"][2][1])
    np.testing.assert_array_equal(encoder["W_skip_1"], clt.params["W_skip"][1].T)
    layer = load_file(tmp_path / "plt" / "layer_2.safetensors")
    assert set(layer) == {"W_enc", "W_dec", "b_enc", "b_dec", "activation_function.threshold", "W_skip"}
    np.testing.assert_array_equal(layer["W_skip"], plt.params["W_skip"][2])
    assert yaml.safe_load((tmp_path / "clt" / "config.yaml").read_text()) == {
        "model_name": "tiny", "model_kind": "cross_layer_transcoder", "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "mlp.hook_out", "scan": "set/one",
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_real_folders_reproduce_the_reference_and_come_out_the_same(tmp_path: Path, case: str) -> None:
    folder = shared(f"cases/{case}")
    found = load_dictionary(folder / "transcoders")
    reference = np.load(folder / "reference.npz")
    x = jnp.asarray(reference["feature_in"])
    h = kind_of(found.config).pre_activations(found.params, found.config, x)
    # The reference sets position 0 to zero.
    np.testing.assert_allclose(h[:, 1:], reference["pre_activations"][:, 1:], atol=1e-5)
    a = found.encode(x).at[:, 0].set(0.0)
    np.testing.assert_allclose(found.decode(a, x), reference["reconstruction"], atol=1e-5)
    active = np.argwhere(np.asarray(a) != 0)
    np.testing.assert_array_equal(active, reference["active_features"])
    save_dictionary(found, tmp_path / "again")
    for file in sorted((folder / "transcoders").glob("*.safetensors")):
        theirs, ours = load_file(file), load_file(tmp_path / "again" / file.name)
        assert theirs.keys() == ours.keys()
        for name in theirs:
            np.testing.assert_array_equal(theirs[name], ours[name])


def _edit(folder: Path, file: str, change: Callable[[dict], None]) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / file)


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.yaml"
    values = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing layer": (
        "plt",
        lambda d: (d / "layer_1.safetensors").unlink(),
        "layer_1.safetensors is missing",
    ),
    "missing decoder": (
        "clt",
        lambda d: (d / "W_dec_2.safetensors").unlink(),
        "W_dec_2.safetensors is missing",
    ),
    "no layers": ("plt", lambda d: [f.unlink() for f in d.glob("*.safetensors")], "holds no layer files"),
    "wrong layer count": (
        "clt",
        lambda d: [(d / f"W_{p}_2.safetensors").unlink() for p in ("enc", "dec")],
        "layer 0 of 2 layers must write to 2",
    ),
    "foreign file": (
        "plt",
        lambda d: shutil.copy(d / "layer_0.safetensors", d / "x.safetensors"),
        "no file of that",
    ),
    "unknown tensor": (
        "plt",
        lambda d: _edit(d, "layer_1.safetensors", lambda t: t.update(W_skp=t.pop("W_skip"))),
        "unknown tensor 'W_skp' .did you mean W_skip",
    ),
    "missing tensor": (
        "clt",
        lambda d: _edit(d, "W_enc_1.safetensors", lambda t: t.pop("b_dec_1")),
        "'b_dec_1' is missing",
    ),
    "wrong shape": (
        "plt",
        lambda d: _edit(d, "layer_2.safetensors", lambda t: t.update(W_dec=t["W_dec"].T)),
        r"W_dec has shape \(4, 6\), expected \(6, 4\)",
    ),
    "wrong type": (
        "plt",
        lambda d: _edit(d, "layer_2.safetensors", lambda t: t.update(b_dec=t["b_dec"].astype(np.int32))),
        "b_dec is of type I32",
    ),
    "not finite": (
        "plt",
        lambda d: _edit(d, "layer_0.safetensors", lambda t: t["b_enc"].__setitem__(0, np.nan)),
        "b_enc holds values that are not finite",
    ),
    "skip in one layer": (
        "plt",
        lambda d: _edit(d, "layer_1.safetensors", lambda t: t.pop("W_skip")),
        "W_skip is in some layers and not in others",
    ),
    "truncated": (
        "clt",
        lambda d: (d / "W_dec_0.safetensors").write_bytes((d / "W_dec_0.safetensors").read_bytes()[:-9]),
        "not a whole safetensors file",
    ),
    "empty": ("plt", lambda d: (d / "layer_0.safetensors").write_bytes(b""), "not a whole safetensors file"),
    "no config": ("plt", lambda d: (d / "config.yaml").unlink(), "no config.yaml"),
    "config not YAML": ("plt", lambda d: (d / "config.yaml").write_text("a: [1"), "is not YAML"),
    "config a list": ("plt", lambda d: (d / "config.yaml").write_text("- 1"), "found list"),
    "unknown field": ("plt", lambda d: _config(d, feature_input_hok="x"), "did you mean feature_input_hook"),
    "missing field": ("plt", lambda d: _config(d, model_kind=None), "'model_kind' is missing"),
    "unknown kind": (
        "plt",
        lambda d: _config(d, model_kind="transcoder_sets"),
        "did you mean transcoder_set",
    ),
    "unknown hook": (
        "plt",
        lambda d: _config(d, feature_output_hook="hook_resid_post"),
        "expected one of hook_mlp_out",
    ),
    "top-k without k": ("plt", lambda d: _config(d, activation="topk"), "the layer files hold thresholds"),
    "k without top-k": ("plt", lambda d: _config(d, k=3), "expected activation: topk"),
    "elsewhere": ("plt", lambda d: _config(d, transcoders=["hf://a/b"]), "download them"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path: Path, fault: str) -> None:
    kind, damage, message = FAULTS[fault]
    save_dictionary(make(kind), tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)


def test_no_such_folder_or_dtype(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pocket-plt"):
        load_dictionary(tmp_path / "nothing")
    with pytest.raises(InputError, match="expected one of float16"):
        load_dictionary(tmp_path, "int8")


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    made = make("plt")
    save_dictionary(made, tmp_path / "d")
    huge = jax.tree.map(lambda leaf: leaf * 1e6, made)
    with pytest.raises(InputError, match="float16 cannot hold"):
        save_dictionary(huge, tmp_path / "d", "float16")
    assert load_dictionary(tmp_path / "d").digest() == made.digest()
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    wrong = dataclasses.replace(made, config=dataclasses.replace(made.config, n_features=5))
    with pytest.raises(InputError, match="expected"):
        save_dictionary(wrong, tmp_path / "e")
