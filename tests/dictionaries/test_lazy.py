"""Dictionaries that stay in their files: the same numbers, few bytes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxinterp.attribution import reproduce, trace
from jaxinterp.checkpoints import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, LazyDictionary, load_dictionary, save_dictionary
from jaxinterp.dictionaries import lazy as parts
from jaxinterp.graphs.kinds import FEATURE
from tests.dictionaries.format_tools import cut, edit, made

MLP = {"read_site": "mlp_in", "write_site": "mlp_out_raw"}
FORGE = {"read_site": "mlp_normalized", "write_site": "mlp_out"}
CASES: dict[str, tuple[str, Dictionary]] = {
    "native clt": ("native", made("clt", "gated", skip=True)),
    "native tied": ("native", made("clt", "topk", tied=True)),
    "native plt": ("native", made("plt", "jumprelu", skip=True)),
    "circuit-tracer clt": ("circuit-tracer", made("clt", skip=True)),
    "circuit-tracer plt": ("circuit-tracer", made("plt", "topk", skip=True)),
    "gemma-scope-2": ("gemma-scope-2", made("clt", **FORGE, skip=True)),
    "clt-forge": ("clt-forge", made("clt", **FORGE)),
    "llamascopium": ("llamascopium", made("clt")),
    "crosslayer-coding": ("crosslayer-coding", made("clt", skip=True)),
    "clt-training": ("clt-training", made("clt", "topk", **MLP, skip=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_are_those_of_the_whole(tmp_path: Path, name: str) -> None:
    format, one = CASES[name]
    if format == "gemma-scope-2":
        one = dataclasses.replace(one, config=dataclasses.replace(one.config, read_site="mlp_in"))
    save_dictionary(one, tmp_path / "d", format=format, dtype="float16" if "native" in name else None)
    whole, lazy = load_dictionary(tmp_path / "d"), load_dictionary(tmp_path / "d", lazy=True)
    assert isinstance(lazy, LazyDictionary) and lazy.config == whole.config and lazy.name == whole.name
    assert lazy.digest() == whole.digest()
    assert parts.cast(lazy, "float16").digest() == parts.cast(whole, "float16").digest()
    for layer in range(3):
        ours, theirs = parts.encoder_of(lazy, layer), parts.encoder_of(whole, layer)
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])
    features = [np.array([1, 4]), np.array([], np.int64), np.array([0, 2, 5])]
    small, same = parts.restrict(lazy, features, 4), parts.restrict(whole, features, 4)
    assert small.config == same.config
    for a, b in zip(jax.tree.leaves(small.params), jax.tree.leaves(same.params), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(small.params["W_enc"][2][:3], whole.params["W_enc"][2][features[2]])
    for a, b in zip(jax.tree.leaves(parts.load(lazy).params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_array_equal(a, b)


def wide(layers: int, n: int, d: int) -> Dictionary:
    """The bundled transcoders with features that are never active added behind their own."""
    clt = load_dictionary("pocket")
    more = n - clt.config.n_features

    def pad(values: jax.Array, axis: int, value: float = 0.0) -> np.ndarray:
        widths = [(0, more if i == axis else 0) for i in range(values.ndim)]
        return np.pad(np.asarray(values), widths, constant_values=value)

    params = {name: pad(clt.params[name], 1) for name in ("W_enc", "b_enc")}
    params |= {"threshold": pad(clt.params["threshold"], 1, 1.0), "b_dec": np.asarray(clt.params["b_dec"])}
    params["W_dec"] = tuple(pad(decoder, 1) for decoder in clt.params["W_dec"])
    assert (clt.config.n_layers, clt.config.d_model) == (layers, d)
    return Dictionary(params, dataclasses.replace(clt.config, n_features=n), "wide")


def test_a_trace_reads_encoders_and_active_rows(tmp_path: Path) -> None:
    model, one = load_model("pocket"), wide(4, 8192, 128)
    save_dictionary(one, tmp_path / "wide")
    whole = load_dictionary(tmp_path / "wide")
    lazy = load_dictionary(tmp_path / "wide", lazy=True, digest=whole.digest())
    prompt = [2, 40, 100, 12, 55]
    expected = trace(model, whole, prompt)
    graph = trace(model, lazy, prompt)
    for end in ("json", "jigraph"):
        expected.save(tmp_path / f"a.{end}")
        graph.save(tmp_path / f"b.{end}")
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()
    # Every encoder and bias once more than once, and of the decoders what is active somewhere.
    layers, n, d = 4, 8192, 128
    nodes = graph.nodes[graph.nodes["kind"] == FEATURE]
    active = [len(np.unique(nodes["index"][nodes["layer"] == layer])) for layer in range(layers)]
    rows = sum(count * (1 + layers - layer) for layer, count in enumerate(active)) * d * 4
    encoders = layers * (n * d + 2 * 2 * n + 2 * d) * 4
    assert rows > 0 and lazy.bytes_read <= encoders + rows
    assert rows < 0.02 * sum(decoder.nbytes for decoder in one.params["W_dec"])
    # Without a digest every value is read once more, in pieces.
    before, again = lazy.bytes_read, load_dictionary(tmp_path / "wide", lazy=True)
    assert again.digest() == whole.digest() and again.bytes_read > before
    comparison = reproduce(graph, model, lazy)
    assert comparison.outcome == "identical"


_PEAK = """
import sys
from pathlib import Path
import jaxinterp as ji
from jaxinterp.dictionaries import load_dictionary
model = ji.load_model("pocket")
d = load_dictionary(sys.argv[1], lazy=sys.argv[2] == "lazy", **({"digest": "x"} if sys.argv[2] == "lazy" else {}))
ji.trace(model, d, [2, 40, 100, 12, 55])
# Of this program alone: getrusage counts what the one that started it had.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_a_trace_needs_no_memory_for_decoders(tmp_path: Path) -> None:
    one = wide(4, 65536, 128)
    save_dictionary(one, tmp_path / "wide")
    decoders = sum(decoder.nbytes for decoder in one.params["W_dec"]) / 1024
    peak = {
        how: int(subprocess.run(
            [sys.executable, "-c", _PEAK, str(tmp_path / "wide"), how], capture_output=True, text=True, check=True
        ).stdout) for how in ("lazy", "whole")
    }  # fmt: skip
    assert peak["lazy"] < peak["whole"] - 0.9 * decoders, peak


def test_what_cannot_be_read_lazily_says_so(tmp_path: Path) -> None:
    save_dictionary(
        made("plt", layers=1, read_site="resid_post", write_site="resid_post"),
        tmp_path / "d",
        format="saelens",
    )
    with pytest.raises(InputError, match="the format saelens is not read lazily; native"):
        load_dictionary(tmp_path / "d", lazy=True)
    save_dictionary(made("crosscoder", "relu"), tmp_path / "c", format="native")
    with pytest.raises(InputError, match="the kind crosscoder is not read in pieces"):
        load_dictionary(tmp_path / "c", lazy=True)
    save_dictionary(made("clt", "topk", ranked=True), tmp_path / "r", format="native")
    ranked = load_dictionary(tmp_path / "r", lazy=True)
    with pytest.raises(InputError, match="every decoder is needed"):
        parts.norms_of(ranked)
    with pytest.raises(InputError, match="opened lazily, which is for tracing"):
        _ = ranked.params


def test_damage_is_found_when_it_is_read(tmp_path: Path) -> None:
    save_dictionary(made("clt"), tmp_path / "d")
    lazy = load_dictionary(tmp_path / "d", lazy=True)
    with pytest.raises(InputError, match="has 6 rows, asked for 0 to 6"):
        lazy.pieces.decoder(0, 1).rows(np.array([0, 6]))
    edit(tmp_path / "d" / "W_dec_0.safetensors", lambda t: t["W_dec_0"].__setitem__((2, 1, 0), np.nan))
    lazy = load_dictionary(tmp_path / "d", lazy=True)
    lazy.pieces.decoder(0, 1).rows(np.array([0, 1]))
    with pytest.raises(InputError, match="W_dec_0 holds values that are not finite"):
        lazy.pieces.decoder(0, 1).rows(np.array([0, 2]))
    cut(tmp_path / "d" / "W_dec_1.safetensors")
    with pytest.raises(InputError, match="not a whole safetensors"):
        load_dictionary(tmp_path / "d", lazy=True)
