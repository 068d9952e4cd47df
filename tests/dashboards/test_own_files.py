"""Our files: what is written is read, a little at a time; what is damaged is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.dashboards import Features, container, open_features, packing
from jaxinterp.dashboards.labels import Labels
from jaxinterp.dashboards.own import Dashboards
from tests.dashboards import records

GIVEN = {
    "source",
    "layer",
    "part",
    "index",
    "label",
    "explanations",
    "frequency",
    "max_activation",
    "histogram",
    "quantiles",
    "examples",
    "top_logits",
    "bottom_logits",
    "decoder_norms",
    "neighbours",
    "coactive",
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = open_features(records.write(tmp_path / "it"))
    assert isinstance(found, Dashboards) and isinstance(found, Features)
    found.verify()
    fields, count, largest = records.fields(12)
    record = found.feature(1, 2)
    assert record is not None and set(record) == GIVEN
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["frequency"] == count / 1000 and record["max_activation"] == largest
    assert [len(group["examples"]) for group in record["examples"]] == [3, 2, 1]
    assert [group["name"] for group in record["examples"]] == records.GROUPS
    flat = [one for group in record["examples"] for one in group["examples"]]
    assert [x for one in flat for x in one["values"] if x] == pytest.approx(fields["values"] * largest)
    assert [t for one in flat for t in one["tokens"]] == [records.TEXTS[t] for t in fields["tokens"]]
    assert [one["at"] for one in flat] == fields["at"]
    assert all(one["values"][one["at"]] == max(one["values"]) for one in flat)
    assert record["top_logits"] == [[" the", 2.0], ['"', 1.0]]
    assert record["bottom_logits"] == [["<0xE2>", -3.0], [records.TEXTS[4], -2.0]]
    assert record["decoder_norms"] == [[1, 0.5], [2, 0.25]]
    assert record["neighbours"][0] == {"layer": 0, "index": 1, "cosine": 0.75, "label": ""}
    assert record["coactive"] == [{"layer": 1, "index": 2, "value": 0.25}]
    assert len(list(found.features())) == 10
    dead = found.feature(0, 0)
    assert dead is not None and dead["frequency"] == 0 and not dead["examples"]


@pytest.mark.parametrize(
    ("layer", "index", "part"),
    [(2, 0, "mlp"), (-1, 0, "mlp"), (0, 5, "mlp"), (0, -1, "mlp"), (0, 0, "attention")],
)
def test_what_is_not_there(tmp_path: Path, layer: int, index: int, part: str) -> None:
    assert open_features(records.write(tmp_path / "it")).feature(layer, index, part) is None


def test_a_feature_takes_a_few_kilobytes(tmp_path: Path) -> None:
    found = Dashboards(records.write(tmp_path / "it", layers=1, features=3000))
    file = found.layer(0)
    assert file is not None
    opened = file.file.bytes_read
    assert found.feature(0, 1234) is not None
    assert opened < 2000 and file.file.bytes_read - opened < 2000
    assert (found.folder / "mlp_00.jidash").stat().st_size > 500_000


def test_half_precision_keeps_three_digits(tmp_path: Path) -> None:
    whole = Dashboards(records.write(tmp_path / "a")).feature(0, 3)
    half = Dashboards(records.write(tmp_path / "b", real="f2")).feature(0, 3)
    assert whole is not None and half is not None
    for one, other in zip(whole["examples"], half["examples"], strict=True):
        for left, right in zip(one["examples"], other["examples"], strict=True):
            np.testing.assert_allclose(left["values"], right["values"], rtol=1e-3)
    assert whole["quantiles"] == half["quantiles"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, where: int, change: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    if not folder.exists():
        records.write(folder)
    files = sorted(folder.glob("*.jidash"))
    path = files[where % len(files)]
    data = path.read_bytes()
    place = (where // len(files)) % len(data)
    try:
        path.write_bytes(data[:place] + bytes([data[place] ^ change]) + data[place + 1 :])
        with pytest.raises(InputError):
            Dashboards(folder).verify()
        # Reading does not need to find everything, but it fails in one clear line or gives a record.
        for index in range(5):
            record = records.clear(lambda index=index: open_features(folder).feature(0, index), "")
            assert record is None or set(record) == GIVEN
    finally:
        path.write_bytes(data)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 0.999))
def test_a_file_that_is_cut_off_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = tmp_path_factory.getbasetemp() / "cut"
    if not folder.exists():
        records.write(folder)
    path = folder / "mlp_01.jidash"
    data = path.read_bytes()
    try:
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(InputError, match="mlp_01"):
            Dashboards(folder).feature(1, 1)
    finally:
        path.write_bytes(data)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 4))
def test_entries_made_of_anything(data: bytes, cut: int) -> None:
    packed = packing.pack({"norms": [1.0]}, "u2", "f4")
    for each in (data, packed[: len(packed) - 1 - cut], packed + data if data else packed[:-1]):
        records.clear(lambda each=each: packing.unpack(each, "u2", "f4", "it"), "it is damaged")


def test_entries_that_contradict_themselves() -> None:
    fields, _, _ = records.fields(3)
    for name, value in (
        ("at", [9] * 6), ("lengths", [1] * 6), ("groups", [1]), ("repeats", [1]), ("values", [1.0]), ("cosines", []),
        ("where", np.full(len(fields["where"]), 500)), ("first_bin", [511]), ("document", [1]),
    ):  # fmt: skip
        with pytest.raises(InputError, match="it is damaged"):
            packing.unpack(packing.pack({**fields, name: value}, "u2", "f4"), "u2", "f4", "it")


def test_manifests_that_lead_elsewhere(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "it")
    good = json.loads((folder / "manifest.json").read_text())
    for change in (
        {"format": "other"}, {"version": 2}, {"layers": "x"}, {"tokens": {"file": "../tokens.jidash"}},
        {"layers": [{**good["layers"][0], "file": "../../etc/passwd"}]},
        {"layers": [{**good["layers"][0], "part": "x"}]},
    ):  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=r"manifest\.json"):
            open_features(folder)
    for text in ("", "[1]", "{", "null", "[" * 100_000):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json"):
            open_features(folder)


def test_files_in_the_wrong_place(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "it")
    shutil.copy(folder / "mlp_01.jidash", folder / "mlp_00.jidash")
    with pytest.raises(InputError, match="another layer"):
        Dashboards(folder).feature(0, 0)
    (folder / "mlp_00.jidash").unlink()
    with pytest.raises(InputError, match="cannot read"):
        Dashboards(folder).feature(0, 0)


def test_containers_hold_arrays(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(5, dtype=np.uint16),
        "b": np.ones((3, 2), np.float32),
        "none": np.zeros(0, np.uint8),
    }
    container.write(tmp_path / "it", {"what": "test"}, arrays)
    found = container.Container(tmp_path / "it")
    assert found.header == {"what": "test"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.array(name), array)
    np.testing.assert_array_equal(found.rows("b", 1, 3), arrays["b"][1:])
    found.verify()
    with pytest.raises(InputError, match="no array c"):
        found.array("c")
    with pytest.raises(InputError, match="not 2 to 9"):
        found.rows("a", 2, 9)
    with pytest.raises(TypeError):
        container.write(tmp_path / "it", {}, {"a": np.zeros(2)})


def test_labels(tmp_path: Path) -> None:
    folder = records.write(tmp_path / "it")
    found = Dashboards(folder)
    found.labels.set(1, 0, label="a <b>label</b>")
    found.labels.set(1, 0, explanations=[{"text": "why", "by": "somebody", "score": 0.5}])
    Labels(folder).set(0, 1, label="another")
    record, near = found.feature(1, 0), found.feature(0, 2)
    assert record is not None and near is not None
    assert record["label"] == "a <b>label</b>"
    assert record["explanations"] == [{"text": "why", "by": "somebody", "score": 0.5}]
    assert [one["label"] for one in near["neighbours"]] == ["another", "a <b>label</b>"]
    with pytest.raises(InputError, match="explanations"):
        found.labels.set(0, 0, explanations=[{"by": "nobody"}])
    for text in (
        "[]",
        '{"format": "jaxinterp-labels", "version": 1, "features": {"mlp/0/1": {"label": 3}}}',
        "{",
    ):
        (folder / "labels.json").write_text(text)
        with pytest.raises(InputError, match=r"labels\.json"):
            found.feature(0, 1)


def test_labels_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        Labels(tmp_path / "missing").set(0, 0, label="x")


def test_the_room_needs_no_jax() -> None:
    code = "import sys, jaxinterp.dashboards as d; d.bundled('pocket'); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
