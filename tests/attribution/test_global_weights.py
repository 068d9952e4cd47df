"""Virtual and expected weights against the frozen operator, NumPy and counting by hand."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations import CollectConfig, TextConfig, collect, make_source
from jaxinterp.activations.text import plain
from jaxinterp.attribution.coactivation import new_counter
from jaxinterp.attribution.coactivation_files import load_coactivation, save_coactivation
from jaxinterp.attribution.coactivation_run import Block, count, from_model, from_store
from jaxinterp.attribution.expected_weights import expected, factors, scale
from jaxinterp.attribution.global_weights import virtual_weights
from jaxinterp.attribution.residual_paths import mean_factors
from jaxinterp.attribution.strongest import strongest
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig, load_dictionary, save_dictionary
from jaxinterp.dictionaries.from_model import attention_as_lorsa
from jaxinterp.dictionaries.initialise import random
from jaxinterp.models import Model, forward
from jaxinterp.models.decoder import unembedding
from jaxinterp.replacement import freeze, make_operator, part_arrays, places
from jaxinterp.replacement.operator import Reads
from tests.attribution.cases import random_dictionary
from tests.support import tiny_model

FEATURE = np.array([2])


def gradients(model: Model, dictionary: Dictionary, token: int, layer: int, vector: Any) -> Any:
    """Of what a vector at a layer's read site gets from each source of a prompt of one token."""
    where = places([dictionary], model.config)
    run = freeze(model.params, model.config, jnp.asarray([[token]], jnp.int32), places=where)
    parts = part_arrays(where, [dictionary.params], model.config)
    operator = make_operator(model.params, model.config, run, where, parts)
    read, final = (jnp.zeros(like.shape, vector.dtype) for like in jax.tree.leaves(operator.out_structure))
    if layer == model.config.n_layers:
        final = final.at[0].set(vector)
    else:
        read = read.at[layer, 0].set(vector)
    return operator.transpose(Reads((read,), final))


@pytest.mark.parametrize(
    ("family", "name"),
    [("gpt2", "skip-plt"), ("gemma2", "raw-clt"),
     *(pytest.param(*case, marks=pytest.mark.slow) for case in
       (("llama", "clt"), ("latent", "plt"), ("dyt", "raw-clt"), ("gpt_neox", "plt"), ("olmo2", "clt")))],
)  # fmt: skip
@pytest.mark.usefixtures("x64")
def test_all_paths_add_up_to_the_edge(family: str, name: str) -> None:
    """In a prompt of one token every attention is one: the sum over all paths is the edge, activation apart."""
    model = tiny_model(family, dtype="float64")
    dictionary = random_dictionary(model, name)
    factors = mean_factors(model, [plain(np.array([[7]]))])
    vector = dictionary.params["W_enc"][2, FEATURE[0]]
    gradient = gradients(model, dictionary, 7, 2, vector)
    heads = range(model.config.n_heads)
    steps = [(1, h) for h in heads], [(1, "skip")] if dictionary.config.skip else [], [(2, h) for h in heads]
    paths = [tuple(s for s in path if s) for path in product(*([None, *options] for options in steps))]
    if model.config.parallel:
        # Attention and MLP of a layer read the same: no way through both, and the last head is too late.
        paths = [p for p in paths if not any(layer == 2 for layer, _ in p)]
        paths = [p for p in paths if [layer for layer, _ in p].count(1) < 2]
    total = 0.0
    for path in paths:
        weights = virtual_weights(model, dictionary, through=path, factors=factors)
        total = total + np.asarray(weights.block(0, 2, targets=FEATURE))[:, 0]
    written = [
        np.asarray(dictionary.params["W_dec"][layer][0] if dictionary.config.kind == "clt" else
                   dictionary.params["W_dec"][0] if layer == 0 else np.zeros((12, 16))) @
        np.asarray(gradient.layers.write[0][layer, 0])
        for layer in (0, 1)
    ]  # fmt: skip
    assert np.abs(total - sum(written)).max() < 1e-10 * np.abs(written).max()


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
@pytest.mark.usefixtures("x64")
def test_ends(family: str) -> None:
    """Features write logits, tokens write features: the last layer's and the first's, to the operator's numbers."""
    model = tiny_model(family, dtype="float64")
    dictionary = random_dictionary(model, "plt")
    factors = mean_factors(model, [plain(np.array([[7]]))])
    columns = unembedding(model.params, model.config)
    centred = columns[:, 5] - columns.mean(axis=1)
    gradient = gradients(model, dictionary, 7, 3, centred)
    found = virtual_weights(model, dictionary, "logits", factors=factors).block(2, 0, targets=np.array([5]))
    wanted = dictionary.params["W_dec"][2] @ gradient.layers.write[0][2, 0]
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-10)

    gradient = gradients(model, dictionary, 7, 0, dictionary.params["W_enc"][0, 4])
    total = 0.0
    for through in [(), *(((0, head),) for head in range(model.config.n_heads))]:
        weights = virtual_weights(model, "tokens", dictionary, through=through, factors=factors)
        total = total + float(weights.block(0, 0, np.array([9]), np.array([4]))[0, 0])
    embedding = model.params["embed"]["tokens"][9] * model.config.embed_scale
    np.testing.assert_allclose(total, float(embedding @ gradient.embed[0]), rtol=1e-10)


def autoencoder(model: Model, site: str, kind: str = "plt", **changes: Any) -> Dictionary:
    config = DictionaryConfig(
        kind, 3, 9, 16, activation="relu", read_site=site, write_site=site, **changes
    )  # fmt: skip
    return Dictionary(random(config, jax.random.key(3), jnp.float32), config, f"sae-{site}")


def test_autoencoders_read_before_they_write() -> None:
    model = tiny_model("llama")
    sae = autoencoder(model, "resid_post")
    weights = virtual_weights(model, sae)
    w = {name: np.asarray(sae.params[name]) for name in ("W_enc", "W_dec")}
    np.testing.assert_allclose(weights.block(0, 1), w["W_dec"][0] @ w["W_enc"][1].T, rtol=1e-5, atol=1e-6)
    assert not np.any(weights.block(1, 1)) and not np.any(weights.block(1, 0))
    # A transcoder of the next layer reads what the autoencoder wrote; the logits read the last layer's.
    plt = random_dictionary(model, "plt", dtype="float32")
    assert np.any(virtual_weights(model, sae, plt).block(0, 1))
    assert not np.any(virtual_weights(model, sae, plt).block(1, 1))
    assert np.any(virtual_weights(model, sae, "logits").block(2, 0))
    # What is written into a layer of the stream takes the place of what was written before.
    cross = autoencoder(model, "resid_pre", "clt")
    last = cross.params["W_dec"][1][0] @ cross.params["W_enc"][2].T
    np.testing.assert_allclose(virtual_weights(model, cross).block(0, 2), last, rtol=1e-5, atol=1e-6)


def test_attention_side() -> None:
    """Attention-output autoencoders, and heads as a Lorsa: to the same layer's MLP, from the one before."""
    model = tiny_model("llama")
    sae, plt = autoencoder(model, "attn_out"), random_dictionary(model, "plt", dtype="float32")
    assert np.any(virtual_weights(model, sae, plt).block(1, 1))
    with pytest.raises(InputError, match="through heads only"):
        virtual_weights(model, plt, sae).block(0, 1)
    through = virtual_weights(model, plt, sae, through=[(1, 2)]).block(0, 1)
    w = model.params["layers"]
    gain = np.asarray(w["attn_norm"]["scale"][1])
    value = np.asarray(w["v"][1][:, 2 // model.config.group_size]) @ np.asarray(w["o"][1][2])
    wanted = np.asarray(plt.params["W_dec"][0]) * gain @ value @ np.asarray(sae.params["W_enc"][1]).T
    np.testing.assert_allclose(through, wanted, rtol=2e-5, atol=1e-6)
    # A head that writes after the target reads, or of another layer than it reads, is no way to it.
    for target, head in ((plt, 2), (sae, 0), (sae, 2)):
        assert not np.any(virtual_weights(model, plt, target, through=[(head, 0)]).block(0, 1))
        assert not np.any(virtual_weights(model, "tokens", target, through=[(head, 0)]).block(0, 1))
    lorsa = attention_as_lorsa(model)
    assert np.any(virtual_weights(model, lorsa, plt).block(0, 0))
    into = np.asarray(virtual_weights(model, plt, lorsa).block(0, 1))
    wanted = np.asarray(plt.params["W_dec"][0]) * gain @ np.asarray(lorsa.params["W_enc"][1]).T
    np.testing.assert_allclose(into, wanted, rtol=2e-5, atol=1e-6)
    assert not np.any(virtual_weights(model, plt, lorsa).block(0, 0))


@pytest.mark.parametrize("name", ["plt", "clt", "tied"])
def test_strongest_and_lazy(name: str, tmp_path: Path) -> None:
    """The strongest of blocks are the strongest of the whole matrix, from files as from memory."""
    model = tiny_model("llama")
    dictionary = random_dictionary(model, "clt" if name == "tied" else name, dtype="float32")
    if name == "tied":
        params = {**dictionary.params, "W_dec": jnp.stack([w[0] for w in dictionary.params["W_dec"]])}
        dictionary = Dictionary(params, dataclasses.replace(dictionary.config, tied=True), "tied")
    save_dictionary(dictionary, tmp_path / "d", format="native")
    lazy = load_dictionary(tmp_path / "d", lazy=True)
    weights, same = virtual_weights(model, dictionary), virtual_weights(model, lazy)
    whole = {pair: np.asarray(weights.block(*pair)) for pair in product(range(3), repeat=2)}
    for pair, block in whole.items():
        np.testing.assert_array_equal(block, same.block(*pair))
        assert np.any(block) == (pair[0] < pair[1])
    ids = np.array([0, 5, 11])
    out = strongest(weights, "source", 0, ids, k=4, chunk=5)
    row = np.concatenate([whole[0, layer][ids] for layer in range(3)], axis=1)
    best = np.argsort(-np.abs(row), axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(out.layer * 12 + out.feature, best)
    np.testing.assert_allclose(out.weight, np.take_along_axis(row, best, 1), rtol=1e-6)
    into = strongest(same, "target", 2, ids, k=30, chunk=7, sign="negative")
    column = np.concatenate([whole[layer, 2][:, ids] for layer in range(3)]).T
    found = np.minimum(np.sort(column, axis=1)[:, :30], 0)
    np.testing.assert_allclose(into.weight, found, rtol=1e-5, atol=1e-7)
    assert ((into.layer == -1) == (found == 0)).all()
    i, j = np.array([3, 0, 7]), np.array([1, 1, 10])
    np.testing.assert_allclose(same.pairs(0, 2, i, j), whole[0, 2][i, j], rtol=1e-5)


def counted(model: Model, dictionary: Dictionary, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Activations [L, rows, N] of used tokens, and which rows, by the dictionary's own encoder."""
    _, found = forward(
        model.params, model.config, jnp.asarray(batch.tokens), sites=(dictionary.config.read_site,)
    )
    x = getattr(found, dictionary.config.read_site)
    return np.asarray(dictionary.encode(x))[:, batch.use], batch.use


@pytest.mark.usefixtures("x64")
def test_counts_and_expected_weights(tmp_path: Path) -> None:
    """ERA and TWERA by their definitions, dense and sparse, on 1 and 8 devices, saved, resumed and added."""
    model = tiny_model("llama", dtype="float64")
    dictionary = random_dictionary(model, "clt")
    tokens = np.random.default_rng(0).integers(0, 40, (10, 6))
    batch = plain(tokens, use=np.random.default_rng(1).random((10, 6)) < 0.8)
    blocks = list(from_model(model, ["resid_mid"], [batch], size=2))
    a, _ = counted(model, dictionary, batch)
    new = dictionary.config
    every = count(new_counter(new, dense=True), blocks, dictionary)
    thin = count(new_counter(new, dense=False), blocks, dictionary, devices=jax.devices())
    many = count(new_counter(new, dense=True), blocks, dictionary, devices=jax.devices())
    weights = virtual_weights(model, dictionary)
    assert every.rows == len(a[0]) and every.blocks == 5
    np.testing.assert_array_equal(every.fired["source", 1], (a[1] > 0).sum(axis=0))
    np.testing.assert_allclose(every.total["target", 2], a[2].sum(axis=0), rtol=1e-12)
    for s, t in ((0, 1), (0, 2), (1, 2)):
        v = np.asarray(weights.block(s, t))
        both = a[s].T @ a[t] / len(a[s])
        mean = a[t].mean(axis=0)
        wanted = {
            "era": a[s].T @ (a[t] > 0) / len(a[s]) * v,
            "twera": np.divide(both, mean, out=np.zeros_like(both), where=mean > 0) * v,
        }
        for kind, value in wanted.items():
            np.testing.assert_allclose(factors(every, kind, (s, t)) * v, value, rtol=1e-11, atol=1e-14)
            np.testing.assert_allclose(
                factors(thin, kind, (s, t)).toarray() * v, value, rtol=1e-11, atol=1e-14
            )
        assert every.products[s, t].tobytes() == many.products[s, t].tobytes()
    got = dict(expected(weights, thin, "twera"))[1, 2]
    np.testing.assert_allclose(got.weight, wanted["twera"][got.source, got.target], rtol=1e-9)
    assert len(got.weight) == np.count_nonzero(a[1].T @ a[2])

    for counter in (every, thin):
        # The first three blocks, saved, and gone on with: the same bytes.
        part = count(new_counter(new, dense=counter.dense), blocks[:3], dictionary)
        save_coactivation(part, tmp_path / "part.npz")
        on = count(load_coactivation(tmp_path / "part.npz"), blocks[3:], dictionary)
        save_coactivation(on, tmp_path / "on.npz")
        save_coactivation(counter, tmp_path / "whole.npz")
        assert (tmp_path / "on.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
        rest = count(new_counter(new, dense=counter.dense), blocks[3:], dictionary)
        added = part.merge(rest)
        ends = 0, 2, slice(None), np.arange(12)
        np.testing.assert_allclose(scale(added, "era")(*ends), scale(counter, "era")(*ends))
        assert added.rows == counter.rows
    best = strongest(weights, "target", 2, np.array([4]), k=3, scale=scale(thin, "era"), chunk=5)
    rows = np.concatenate([factors(every, "era", (s, 2)) * np.asarray(weights.block(s, 2)) for s in (0, 1)])
    order = np.argsort(-np.abs(rows[:, 4]), kind="stable")[:3]
    np.testing.assert_array_equal(best.layer[0] * 12 + best.feature[0], order)


@pytest.mark.usefixtures("x64")
def test_chosen_features_of_two_dictionaries() -> None:
    """Heads as a Lorsa against an MLP's features of the same layer, some of each."""
    model = tiny_model("llama", dtype="float64")
    lorsa, plt = attention_as_lorsa(model), random_dictionary(model, "plt")
    batch = plain(np.random.default_rng(2).integers(0, 40, (4, 6)))
    blocks = list(from_model(model, ["attn_in", "mlp_normalized"], [batch], size=4))
    counter = new_counter(
        lorsa.config, plt.config, pairs=((1, 1),), sources={1: [3, 17]}, targets={1: [0, 5, 6]}
    )
    count(counter, blocks, lorsa, plt)
    x = blocks[0].values
    s = np.asarray(lorsa.encode(x["attn_in"]))[1].reshape(24, -1)[:, [3, 17]]
    t = np.asarray(plt.encode(x["mlp_normalized"]))[1].reshape(24, -1)[:, [0, 5, 6]]
    np.testing.assert_allclose(counter.products[1, 1], s.T @ t, rtol=1e-11)
    np.testing.assert_allclose(counter.gated[1, 1], s.T @ (t > 0), rtol=1e-11)
    values = scale(counter, "era")(1, 1, np.array([17, 4]), np.array([5, 1]))
    np.testing.assert_allclose(values, [[(s[:, 1] * (t[:, 1] > 0)).mean(), 0], [0, 0]], rtol=1e-11)


def test_from_a_store(tmp_path: Path) -> None:
    """A store of the read site gives the counts of the model itself."""
    model = tiny_model("llama")
    dictionary = random_dictionary(model, "plt", dtype="float32")
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 40, (8, 6)))
    text = TextConfig(source=str(tmp_path / "ids.npy"), length=6, batch=4, start=-1)
    settings = CollectConfig(batches=2, sites=("mlp_normalized",), text=text, microbatch=4)
    store = collect(model, settings, tmp_path / "store")
    stored = count(new_counter(dictionary.config), from_store(store, ["mlp_normalized"], size=4), dictionary)
    source = make_source(text, model, 0)
    texts = [source.batch(i) for i in range(2)]
    blocks = from_model(model, ["mlp_normalized"], texts, size=4)
    live = count(new_counter(dictionary.config), blocks, dictionary)
    assert stored.rows == live.rows == 48
    for pair in live.pairs:
        np.testing.assert_allclose(stored.products[pair], live.products[pair], rtol=1e-5, atol=1e-5)
    half = count(
        new_counter(dictionary.config), from_store(store, ["mlp_normalized"], size=4, skip=1), dictionary
    )
    other = from_model(model, ["mlp_normalized"], texts, size=4, skip=1)
    assert half.rows == count(new_counter(dictionary.config), other, dictionary).rows == 24
    first = from_store(store, ["mlp_normalized"], size=4, first_tokens=False)
    assert sum(int(block.use.sum()) for block in first) == 40
    with pytest.raises(InputError, match="holds no site 'mlp_in'"):
        next(from_store(store, ["mlp_in"]))


def test_bad_input(tmp_path: Path) -> None:
    model, other = tiny_model("llama"), tiny_model("llama", d_model=8, n_heads=2)
    dictionary = random_dictionary(model, "plt", dtype="float32")
    weights = virtual_weights(model, dictionary)
    faults: list[tuple[str, Any]] = [
        ("of width 16, which in the model has 8", lambda: virtual_weights(other, dictionary)),
        ("expected a dictionary or 'tokens'", lambda: virtual_weights(model, "logits")),
        ("tokens read nothing", lambda: virtual_weights(model, "tokens")),
        ("no head 4 in layer 1", lambda: virtual_weights(model, dictionary, through=[(1, 4)]).block(0, 2)),
        ("no dictionary with a skip", lambda: virtual_weights(model, dictionary, through=[(1, "skip")]).block(0, 2)),
        ("has no layer 3", lambda: strongest(weights, "source", 3)),
        ("0 to 11 in a layer, not 0 to 12", lambda: strongest(weights, "source", 0, np.array([0, 12]))),
        ("expected source or target", lambda: strongest(weights, "both", 0)),
        ("take 0.19 GiB", lambda: new_counter(_wide(2048), dense=True, budget=1 << 20)),
        ("no such feature", lambda: new_counter(dictionary.config, sources={0: [12]})),
        ("targets are above sources", lambda: new_counter(dictionary.config, sources={2: [1]})),
        ("has counted no row", lambda: factors(new_counter(dictionary.config), "era", (0, 1))),
        ("cannot read", lambda: load_coactivation(tmp_path / "none.npz")),
    ]  # fmt: skip
    for match, call in faults:
        with pytest.raises(InputError, match=match):
            call()
    path = tmp_path / "counter.npz"
    save_coactivation(new_counter(dictionary.config), path)
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], b"", data.replace(b"gated", b"gatee"), b"PK" + data[5:]):
        path.write_bytes(broken)
        with pytest.raises(InputError):
            load_coactivation(path)


def test_counters_stay_whole_when_a_block_is_refused() -> None:
    model = tiny_model("llama")
    dictionary = random_dictionary(model, "plt", dtype="float32")
    batch = plain(np.random.default_rng(0).integers(0, 40, (4, 6)))
    blocks = list(from_model(model, ["mlp_normalized"], [batch], size=2))
    bad = Block(
        {k: v.at[:].set(jnp.nan) for k, v in blocks[1].values.items()}, blocks[1].layers, *blocks[1][2:]
    )
    counter = new_counter(dictionary.config, dense=False)
    with pytest.raises(InputError, match="not finite"):
        count(counter, [blocks[0], bad], dictionary)
    assert (counter.blocks, counter.rows) == (1, 12)
    with pytest.raises(InputError, match="more than the budget"):
        count(counter, blocks, dictionary, budget=10)
    assert counter.rows == 12


def _wide(n: int) -> DictionaryConfig:
    return DictionaryConfig("plt", 3, n, 16, read_site="mlp_in", activation="relu")
