"""Dashboards of a tiny model are what loops over all activations find; on any number of devices, interrupted or not."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxinterp.activations.text import Batch, Source, TextConfig
from jaxinterp.core.errors import InputError
from jaxinterp.dashboards.own import Dashboards
from jaxinterp.dictionaries import kind_of
from jaxinterp.interpret import DashboardConfig, Interrupted, estimate, make_dashboards, making
from jaxinterp.interpret.encoding import encoder
from jaxinterp.models.decoder import forward
from jaxinterp.parallel.mesh import make
from tests.interpret import plainly, small


def activations(model: Any, dictionary: Any) -> np.ndarray:
    """[G, S, T, N] block by block, as a run computes them."""
    groups = tuple(range(kind_of(dictionary.config).groups(dictionary.config)))
    run = jax.jit(encoder(model, dictionary, groups, tuple(range(3)), "sparse"))
    text, parts = small.text(), []
    for begin in range(0, small.SEQUENCES, small.BLOCK):
        here = slice(begin, begin + small.BLOCK)
        found = run(
            model.params, dictionary.params, text.tokens[here], text.segments[here], text.positions[here]
        )
        parts.append(np.asarray(found).reshape(len(groups), small.BLOCK, small.LENGTH, -1))
    return np.concatenate(parts, axis=1)


@cache
def parts() -> tuple[Any, Any, np.ndarray]:
    model, dictionary = small.model(), small.dictionary()
    return model, dictionary, activations(model, dictionary)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dashboards:
    model, dictionary, _ = parts()
    out = tmp_path_factory.mktemp("made") / "it"
    return make_dashboards(model, dictionary, small.CONFIG, out, source=small.source())


def words(tokens: list[int]) -> list[str]:
    shown = {2: "\\ud83d", small.WORDS - 1: f"<{small.WORDS - 1}>"}
    return [shown.get(t, small.Words().text(t)) for t in tokens]


def test_activations_are_those_of_the_dictionary() -> None:
    model, dictionary, a = parts()
    text = small.text()
    _, found = forward(
        model.params, model.config, text.tokens, sites=("mlp_in",), segments=text.segments, positions=text.positions
    )  # fmt: skip
    x = np.asarray(found.mlp_in, np.float64)[:, : small.SEQUENCES]
    p = {name: np.asarray(dictionary.params[name], np.float64) for name in ("W_enc", "b_enc")}
    wanted = np.maximum(np.einsum("lstd,lnd->lstn", x, p["W_enc"]) + p["b_enc"][:, None, None], 0)
    np.testing.assert_allclose(a, wanted, atol=1e-4)


def test_examples_are_the_best_of_all(made: Dashboards) -> None:
    _, _, a = parts()
    text, config = small.plain_text(), small.CONFIG
    for layer in range(3):
        for index in range(small.FEATURES):
            record = made.feature(layer, index)
            assert record is not None
            found = plainly.peaks(a[layer, :, :, index], text, config.before, config.after)
            wanted = plainly.top(found, config.top)
            groups = {group["name"]: group["examples"] for group in record["examples"]}
            top = groups.pop("Top", [])
            assert len(top) == len(wanted)
            for one, other in zip(top, wanted, strict=True):
                assert one["tokens"] == words(other["tokens"]) and one["at"] == other["at"]
                np.testing.assert_allclose(one["values"], other["values"], rtol=1e-5)
                sequence, token = divmod(other["place"], small.LENGTH)
                assert one["where"] == f"sequence {sequence}, token {token}"
            rest = {
                (tuple(words(one["tokens"])), one["at"]): one
                for one in plainly.texts(found)
                if not any(one["place"] == other["place"] for other in wanted)
            }  # fmt: skip
            assert sum(len(group) for group in groups.values()) <= min(len(rest), 4)
            peaks = [one["values"][one["at"]] for group in groups.values() for one in group]
            assert peaks == sorted(peaks, reverse=True)
            for group in groups.values():
                for one in group:
                    other = rest.pop((tuple(one["tokens"]), one["at"]))
                    assert one["repeats"] == other["repeats"]
                    np.testing.assert_allclose(one["values"], other["values"], rtol=1e-5)


def test_counts_and_quantiles(made: Dashboards) -> None:
    _, _, a = parts()
    text = small.plain_text()
    for layer in range(3):
        file = made.layer(layer)
        assert file is not None and file.seen == text.use.sum()
        for index in range(small.FEATURES):
            values = a[layer, :, :, index][text.use]
            active = values[values > 0]
            record = made.feature(layer, index)
            assert record is not None and record["frequency"] == len(active) / text.use.sum()
            assert int(file.counts()[index]) == len(active)
            fields = file.fields(index)
            counted = {
                float(2.0 ** (b // 16 - 16) * (1 + b % 16 / 16)): int(n)
                for b, n in enumerate(fields["counts"], start=int(fields["first_bin"][0]) if len(active) else 0) if n
            }  # fmt: skip
            assert counted == plainly.histogram(active)
            if not len(active):
                assert record["quantiles"] is None and record["max_activation"] == 0
                continue
            assert record["max_activation"] == pytest.approx(active.max(), rel=1e-6)
            assert len(record["quantiles"]) == 100
            assert record["quantiles"][-1] == record["max_activation"]


def test_dead_and_always_active(made: Dashboards) -> None:
    for layer in range(3):
        dead, always = made.feature(layer, small.DEAD), made.feature(layer, small.ALWAYS)
        assert dead is not None and always is not None
        assert dead["frequency"] == 0 and dead["examples"] == [] and dead["histogram"] is None
        assert (
            len(dead["top_logits"]) == 5 and len(dead["decoder_norms"]) == 3 - layer and not dead["coactive"]
        )
        assert always["frequency"] == 1


def test_logits_norms_and_neighbours(made: Dashboards) -> None:
    model, dictionary, _ = parts()
    p = [np.asarray(w, np.float64) for w in dictionary.params["W_dec"]]
    unembed = np.asarray(model.params["unembed"], np.float64)
    gain = np.asarray(jax.tree.leaves(model.params["final_norm"])[0], np.float64)
    reads = gain[:, None] * (unembed - unembed.mean(axis=1, keepdims=True))
    joined = np.zeros((3, small.FEATURES, 3, 16))
    for target, rows in enumerate(p):
        joined[: target + 1, :, target] = rows
    flat = joined.reshape(3 * small.FEATURES, -1)
    cosines = flat @ flat.T / np.outer(np.linalg.norm(flat, axis=1), np.linalg.norm(flat, axis=1))
    np.fill_diagonal(cosines, -2)
    for layer in range(3):
        for index in range(small.FEATURES):
            record = made.feature(layer, index)
            assert record is not None
            effects = joined[layer, index].sum(axis=0) @ reads
            order = np.argsort(-effects)
            for name, wanted in (("top_logits", order[:5]), ("bottom_logits", order[::-1][:5])):
                assert [text for text, _ in record[name]] == words([int(t) for t in wanted])
                np.testing.assert_allclose(
                    [x for _, x in record[name]], effects[wanted], rtol=2e-4, atol=1e-5
                )
            norms = np.linalg.norm(joined[layer, index], axis=1)[layer:]
            assert [into for into, _ in record["decoder_norms"]] == list(range(layer, 3))
            np.testing.assert_allclose([x for _, x in record["decoder_norms"]], norms, rtol=1e-5)
            row = cosines[layer * small.FEATURES + index]
            near = [(one["layer"], one["index"]) for one in record["neighbours"]]
            assert near == [divmod(int(n), small.FEATURES) for n in np.argsort(-row)[:3]]
            np.testing.assert_allclose(
                [one["cosine"] for one in record["neighbours"]], np.sort(-row)[:3] * -1, atol=1e-5
            )


def test_features_active_together(made: Dashboards) -> None:
    _, _, a = parts()
    active = (a > 0) & small.plain_text().use[None, :, :, None]
    flat = (
        np.moveaxis(active.reshape(3, -1, small.FEATURES), 1, 0).reshape(-1, 3 * small.FEATURES).astype(float)
    )
    both = flat.T @ flat
    for layer in range(3):
        for index in range(small.FEATURES):
            number = layer * small.FEATURES + index
            wanted = []
            for other in range(3 * small.FEATURES):
                if other != number and both[number, other] >= 3:
                    value = both[number, other] / np.sqrt(both[number, number] * both[other, other])
                    wanted.append((-value, other))
            record = made.feature(layer, index)
            assert record is not None
            found = [
                (one["layer"] * small.FEATURES + one["index"], one["value"]) for one in record["coactive"]
            ]
            assert [other for other, _ in found] == [other for _, other in sorted(wanted)[:4]]
            np.testing.assert_allclose([x for _, x in found], [-x for x, _ in sorted(wanted)[:4]], rtol=1e-5)


@pytest.mark.parametrize("compact", [False, True])
def test_eight_devices_write_the_same_bytes(made: Dashboards, tmp_path: Path, compact: bool) -> None:
    model, dictionary, _ = parts()
    mesh = make(8, devices=jax.devices()[:8])
    other = make_dashboards(
        model, dictionary, small.CONFIG, tmp_path / "it", source=small.source(), mesh=mesh, compact=compact
    )
    assert small.contents(other.folder) == small.contents(made.folder)
    assert not (tmp_path / "it" / ".progress").exists()


class Stopped(Exception):
    pass


def test_a_run_that_is_stopped_anywhere_goes_on(made: Dashboards, tmp_path: Path) -> None:
    model, dictionary, _ = parts()
    whole = small.source()

    def failing(after: int) -> Source:
        def batch(index: int) -> Batch:
            if index >= after:
                raise Stopped
            return whole.batch(index)

        return Source(batch, whole.tokens)

    for after in (2, 4, 7):
        with pytest.raises(Stopped):
            make_dashboards(
                model, dictionary, small.CONFIG, tmp_path / "it", source=failing(after), save_every=0.0
            )
        assert (tmp_path / "it" / ".progress" / "state.npz").exists()
        assert not (tmp_path / "it" / "manifest.json").exists()
    done = make_dashboards(model, dictionary, small.CONFIG, tmp_path / "it", source=whole, save_every=0.0)
    assert small.contents(done.folder) == small.contents(made.folder)
    done.verify()


def test_a_signal_saves_first(made: Dashboards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dictionary, _ = parts()

    @contextmanager
    def asked() -> Iterator[Callable[[], bool]]:
        yield lambda: True

    with monkeypatch.context() as patched:
        patched.setattr(making, "signals", asked)
        with pytest.raises(Interrupted, match="after 1 of 11 blocks"):
            make_dashboards(model, dictionary, small.CONFIG, tmp_path / "it", source=small.source())
    assert Interrupted.exit_code == 130
    done = make_dashboards(model, dictionary, small.CONFIG, tmp_path / "it", source=small.source())
    assert small.contents(done.folder) == small.contents(made.folder)


def test_other_settings_are_refused_and_the_same_are_done_already(made: Dashboards, tmp_path: Path) -> None:
    model, dictionary, _ = parts()
    again = make_dashboards(model, dictionary, small.CONFIG, made.folder, source=small.source())
    assert small.contents(again.folder) == small.contents(made.folder)
    with pytest.raises(InputError, match=r"settings\.top is 4 there, 5 now"):
        make_dashboards(
            model, dictionary, dataclasses.replace(small.CONFIG, top=5), made.folder, source=small.source()
        )
    with pytest.raises(InputError, match="first_sequences"):
        make_dashboards(model, dictionary, small.CONFIG, made.folder, source=small.source(small.text(seed=1)))


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    model, dictionary, _ = parts()
    folder = tmp_path / "it" / ".progress"
    folder.mkdir(parents=True)
    (folder / "state.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"state\.npz is damaged"):
        make_dashboards(model, dictionary, small.CONFIG, tmp_path / "it", source=small.source())


def test_provenance_names_no_place_and_no_device(made: Dashboards) -> None:
    text = json.dumps(made.manifest)
    assert str(made.folder) not in text and "devices" not in text
    assert made.manifest["provenance"]["mesh"] == {}


def test_some_layers_alone_have_the_same_records(made: Dashboards, tmp_path: Path) -> None:
    model, dictionary, _ = parts()
    config = dataclasses.replace(small.CONFIG, layers=(2, 0), neighbours=0, coactive=0)
    found = make_dashboards(model, dictionary, config, tmp_path / "it", source=small.source())
    assert found.layers() == {0: small.FEATURES, 2: small.FEATURES}
    assert found.feature(1, 0) is None and found.feature(0, small.FEATURES) is None
    for layer in (0, 2):
        for index in range(small.FEATURES):
            one, other = found.feature(layer, index), made.feature(layer, index)
            assert one is not None and other is not None
            assert {k: v for k, v in one.items() if k != "examples"} == {
                k: v for k, v in other.items() if k != "examples"
            } | {"neighbours": [], "coactive": []}
            # The sample of a feature is another one where the layer has another place in the run.
            assert one["examples"][:1] == other["examples"][:1]


@pytest.mark.parametrize(
    ("kind", "changes", "part"),
    [
        (
            "plt",
            {"read_site": "resid_post", "write_site": "resid_post", "activation": "topk", "k": 2},
            "residual",
        ),
        ("plt", {"read_site": "mlp_in", "write_site": "mlp_out"}, "mlp"),
        ("crosscoder", {"read_site": "resid_post", "write_site": "resid_post"}, "residual"),
        ("molt", {"ranks": ((1, 8), (2, 4))}, "mlp"),
    ],
    ids=["sae", "plt", "crosscoder", "molt"],
)
def test_other_kinds(kind: str, changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    model, dictionary = small.model(), small.dictionary(kind, **changes)
    a, text = activations(model, dictionary), small.plain_text()
    found = make_dashboards(model, dictionary, small.CONFIG, tmp_path / "it", source=small.source())
    assert found.parts() == (part,) and list(found.layers(part)) == list(range(len(a)))
    for layer in range(len(a)):
        for index in range(small.FEATURES):
            record = found.feature(layer, index, part)
            assert record is not None
            assert record["frequency"] == (a[layer, :, :, index][text.use] > 0).mean()
            wanted = plainly.top(plainly.peaks(a[layer, :, :, index], text, 4, 3), 4)
            assert [one["tokens"] for one in (record["examples"] or [{"examples": []}])[0]["examples"]] == [
                words(one["tokens"]) for one in wanted
            ]
            assert bool(record["top_logits"]) == bool(record["decoder_norms"]) == (kind != "molt")


def test_bad_input_and_estimates() -> None:
    model, dictionary, _ = parts()
    for changes, said in (
        ({"layers": (7,)}, "has no layer 7"), ({"layers": (1, 1)}, "each once"),
        ({"text": dataclasses.replace(small.CONFIG.text, length=64)}, "longer than the model's context"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            estimate(model, dictionary, dataclasses.replace(small.CONFIG, **changes), small.source())
    for changes, said in (
        ({"tokens": 0}, "tokens is 0"),
        ({"top": 0}, "top is 0"),
        ({"real": "int8"}, "int8"),
    ):
        with pytest.raises(InputError, match=said):
            DashboardConfig(**changes)
    found = estimate(model, dictionary, small.CONFIG, small.source(), make(8, devices=jax.devices()[:8]))
    assert found["tokens"] == small.SEQUENCES * small.LENGTH and found["ways"] == 8
    assert found["blocks"] == small.SEQUENCES // small.BLOCK
    assert all(size > 0 for size in found["bytes"].values())


def test_text_that_ends_is_read_once(tmp_path: Path) -> None:
    """A source that says how many sequences it has is not read again, however many tokens are asked for."""
    model, dictionary, _ = parts()
    short = small.source()._replace(sequences=5)
    config = dataclasses.replace(small.CONFIG, neighbours=0, coactive=0, logits=0, layers=(0,))
    found = make_dashboards(model, dictionary, config, tmp_path / "it", source=short)
    file = found.layer(0)
    assert file is not None and file.seen == small.text().use[:5].sum()


def test_documents_of_a_file_keep_their_numbers(tmp_path: Path) -> None:
    """Text with documents is read once, and examples say which document they are from."""
    model, dictionary, _ = parts()
    random = np.random.default_rng(4)
    documents = [random.integers(0, small.WORDS, n).tolist() for n in (5, 21, 9, 30, 16)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    config = dataclasses.replace(
        small.CONFIG,
        tokens=10**6,
        text=TextConfig(str(path), length=small.LENGTH),
        logits=0,
        neighbours=0,
        coactive=0,
    )
    found = make_dashboards(model, dictionary, config, tmp_path / "it")
    file = found.layer(0)
    assert file is not None and file.seen == sum(map(len, documents)) // small.LENGTH * small.LENGTH
    record = found.feature(1, small.ALWAYS)
    assert record is not None and len(record["examples"][0]["examples"]) == 4
    for one in record["examples"][0]["examples"]:
        number = int(re.fullmatch(r"document (\d+), sequence \d+, token \d+", one["where"])[1])  # type: ignore[index]
        shown, there = "|".join(one["tokens"]), "|".join(words(documents[number]))
        assert shown in there
    assert (
        str(path) not in json.dumps(found.manifest)
        and "jsonl" in found.manifest["provenance"]["text"]["source"]
    )
