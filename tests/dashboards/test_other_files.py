"""Other people's feature files: read, written, told apart, and refused in one line where they are broken."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.dashboards import cantor, circuit_tracer, details, neuronpedia, open_features, saedashboard
from jaxinterp.dashboards.own import Dashboards
from tests.dashboards import records
from tests.support import shared

DETAILS: dict[str, Any] = {
    "index": 7,
    "examples_quantiles": [
        {"quantile_name": "Top", "examples": [
            {"tokens": ["a", '"', "<b>"], "tokens_acts_list": [0, 0.5, 2], "train_token_ind": 2,
             "is_repeated_datapoint": False},
            {"tokens": ["x"], "tokens_acts_list": [1.5]},
        ]},
        {"quantile_name": "Subsample Interval 0", "examples": []},
    ],
    "top_logits": [" yes"], "bottom_logits": [" no"],
}  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Dashboards:
    made = Dashboards(records.write(tmp_path_factory.mktemp("ours") / "it"))
    made.labels.set(0, 1, label="label", explanations=[{"text": "why", "by": "m", "score": 0.5}])
    return made


def same(found: Any, record: dict[str, Any], *names: str) -> None:
    """What a layout has places for came back."""
    for name in ("layer", "part", "index", "top_logits", "bottom_logits", *names):
        assert found[name] == record[name], name
    assert found["max_activation"] == pytest.approx(record["max_activation"])
    assert found["frequency"] == pytest.approx(record["frequency"])
    assert len(found["examples"]) == len(record["examples"])
    for one, other in zip(found["examples"], record["examples"], strict=True):
        left = sorted((tuple(e["tokens"]), tuple(e["values"]), e["at"]) for e in one["examples"])
        assert left == sorted((tuple(e["tokens"]), tuple(e["values"]), e["at"]) for e in other["examples"])
    if record["histogram"] is not None:
        assert sum(found["histogram"]["counts"]) == pytest.approx(
            sum(record["histogram"]["counts"]), rel=1e-5
        )
        assert not found["histogram"]["log"]


@pytest.mark.parametrize("write", [circuit_tracer.export_binary, circuit_tracer.export_json])
def test_circuit_tracer_there_and_back(ours: Dashboards, tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(ours.features(), tmp_path, scan="set")
    for place in (tmp_path, folder):
        found = open_features(place)
        for record in ours.features():
            back = found.feature(record["layer"], record["index"])
            assert back is not None and back["source"] == "circuit-tracer"
            same(back, record, "quantiles")
            names = [group["name"] for group in record["examples"]]
            assert [group["name"] for group in back["examples"]] == names
        assert found.feature(9, 0) is None and found.feature(0, 99) is None
        assert found.feature(0, 1, part="attention") is None


def test_exports_of_circuit_tracer_follow_the_schema_and_its_reader(ours: Dashboards, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-feature-details-schema.json").read_text())
    circuit_tracer.export_json(ours.features(), tmp_path / "json")
    for record in ours.features():
        number = cantor.pair(record["layer"], record["index"])
        value = json.loads((tmp_path / "json" / "features" / f"{number}.json").read_text())
        jsonschema.validate(value, schema)
        assert value["quantile_values"] == record["quantiles"] or not value["quantile_values"]
    # As circuit-tracer's page reads the binary files: from one offset to the next, length first, then zlib or gzip.
    circuit_tracer.export_binary(ours.features(), tmp_path / "binary")
    index = json.loads(gzip.decompress((tmp_path / "binary" / "features" / "index.json.gz").read_bytes()))
    for record in ours.features():
        layer = index[record["layer"]]
        data = (tmp_path / "binary" / "features" / layer["filename"]).read_bytes()
        data = data[layer["offsets"][record["index"]] : layer["offsets"][record["index"] + 1] + 1]
        text = zlib.decompress(data[4 : 4 + int.from_bytes(data[:4], "little")])
        jsonschema.validate(json.loads(text), schema)


def test_neuronpedia_there_and_back(ours: Dashboards, tmp_path: Path) -> None:
    folders = neuronpedia.export(ours.features(), tmp_path, model="m", source_set="set-mlp")
    assert [folder.name for folder in folders] == ["0-set-mlp", "1-set-mlp"]
    for place in (tmp_path, tmp_path / "m"):
        found = open_features(place)
        for record in ours.features():
            back = found.feature(record["layer"], record["index"])
            assert back is not None and back["source"] == "neuronpedia"
            same(back, record)
            near = [one for one in record["neighbours"] if one["layer"] == record["layer"]]
            assert [(one["index"], one["cosine"]) for one in back["neighbours"]] == [
                (one["index"], one["cosine"]) for one in near
            ]
    known = open_features(folders[0]).feature(0, 1)
    assert known is not None and known["explanations"] == [{"text": "why", "by": "m", "score": 0.5}]
    assert open_features(folders[0] / "features" / "batch-0.jsonl.gz").feature(0, 1) == known
    again = neuronpedia.export(ours.features(), tmp_path / "again", model="m", source_set="set-mlp")
    for one, other in zip(folders, again, strict=True):
        for path in one.rglob("*.jsonl*"):
            assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()
    with pytest.raises(InputError, match="letters, digits"):
        neuronpedia.export(ours.features(), tmp_path, model="../x", source_set="s")


def test_saedashboard_there_and_back(ours: Dashboards, tmp_path: Path) -> None:
    folders = saedashboard.export(
        ours.features(), tmp_path, model="m", source_set="set", sequences=3, length=8
    )
    batch = json.loads((folders[0] / "batch-0.json").read_text())
    assert set(batch) >= {"model_id", "layer", "sae_set", "features"} and len(batch["features"]) == 5
    # What SAEDashboard's converter asks of a feature and of an activation.
    assert set(batch["features"][1]) >= {
        "feature_index",
        "neuron_alignment_indices",
        "neuron_alignment_values",
        "neuron_alignment_l1",
        "correlated_neurons_indices",
        "correlated_neurons_l1",
        "correlated_neurons_pearson",
        "correlated_features_indices",
        "correlated_features_l1",
        "correlated_features_pearson",
        "neg_str",
        "neg_values",
        "pos_str",
        "pos_values",
        "frac_nonzero",
        "freq_hist_data_bar_values",
        "freq_hist_data_bar_heights",
        "logits_hist_data_bar_heights",
        "logits_hist_data_bar_values",
        "n_prompts_total",
        "n_tokens_in_prompt",
        "dataset",
        "decoder_weights_dist",
        "activations",
    }
    assert set(batch["features"][1]["activations"][0]) == {
        "bin_min",
        "bin_max",
        "bin_contains",
        "qualifying_token_index",
        "tokens",
        "values",
    }
    found = open_features(tmp_path)
    for record in ours.features():
        back = found.feature(record["layer"], record["index"])
        assert back is not None
        same(back, record)


def test_many_features_make_several_batches(tmp_path: Path) -> None:
    many = Dashboards(records.write(tmp_path / "it", layers=1, features=300))
    folder = neuronpedia.export(many.features(), tmp_path / "np", model="m", source_set="s")[0]
    assert sorted(path.name for path in (folder / "features").iterdir()) == [
        f"batch-{i}.jsonl.gz" for i in range(3)
    ]
    found = open_features(tmp_path / "np")
    for index in (0, 127, 128, 299):
        assert found.feature(0, index) is not None
    assert found.feature(0, 300) is None


def put(folder: Path, name: str, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value))
    return folder


def test_anthropic_and_eleuther(tmp_path: Path) -> None:
    """Numbers that are no pairings are what nodes have; the place of the peak may be missing, wrong, or misspelt."""
    put(tmp_path / "features" / "scan", "21000500.json", DETAILS)
    found = open_features(tmp_path, scan="scan")
    record = found.feature(3, 21000500)
    assert record is not None and record["source"] == "anthropic" and record["index"] == 21000500
    assert (
        record["top_logits"] == [[" yes", None]]
        and record["frequency"] is None
        and record["histogram"] is None
    )
    assert [group["name"] for group in record["examples"]] == ["Top"]
    assert [one["at"] for one in record["examples"][0]["examples"]] == [2, 0]
    assert record["max_activation"] == 2
    example = {"tokens": ["a", "b", "c"], "tokens_acts_list": [0.0, 3.0, 0.0], "train_token_index": 2}
    value = {"index": 0, "examples_quantiles": [{"quantile_name": "Quantile 0", "examples": [example]}]}
    number = cantor.pair(2, 17)
    record = open_features(put(tmp_path / "eleuther", f"{number}.json", value)).feature(2, 17)
    assert record is not None and record["examples"][0]["examples"][0]["at"] == 1


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, zlib.compress, lambda data: zlib.compressobj(6, zlib.DEFLATED, -15)],
    ids=["gzip", "zlib", "raw"],
)
def test_binary_files_packed_in_any_way(tmp_path: Path, pack: Callable[[bytes], Any]) -> None:
    plain = json.dumps(DETAILS).encode()
    packed = pack(plain)
    data = packed if isinstance(packed, bytes) else packed.compress(plain) + packed.flush()
    record = len(data).to_bytes(4, "little") + data
    (tmp_path / "layer_1.bin").write_bytes(record)
    index = [None, {"filename": "layer_1.bin", "offsets": [0, 0, len(record)]}]
    (tmp_path / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    found = open_features(tmp_path)
    assert found.feature(0, 0) is None and found.feature(1, 0) is None
    assert found.feature(1, 1) == details.read(DETAILS, 1, 1, "mlp", "it")


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "is not JSON"), ("3", "expected a list"), ("[3]", "expected a JSON object"),
        ('[{"filename": "../../etc/passwd", "offsets": [0, 9]}]', "no plain name"),
        ('[{"filename": "a.bin", "offsets": [5, 2]}]', "do not ascend"),
        ('[{"filename": "a.bin", "offsets": [0, -2]}]', "no whole numbers"),
    ],
)  # fmt: skip
def test_broken_indices(tmp_path: Path, index: str, said: str) -> None:
    (tmp_path / "index.json.gz").write_bytes(gzip.compress(index.encode()))
    with pytest.raises(InputError, match=said):
        open_features(tmp_path)


def test_broken_binary_records(tmp_path: Path) -> None:
    packed = zlib.compress(json.dumps(DETAILS).encode())
    good = len(packed).to_bytes(4, "little") + packed
    index = [{"filename": "a.bin", "offsets": [0, len(good)]}]
    (tmp_path / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    bad = (
        good[:-9],
        b"\xff\xff\xff\xff" + packed,
        good[:4] + bytes(len(packed)),
        b"",
        good[:30] + b"x" * (len(good) - 30),
    )
    for data in bad:
        (tmp_path / "a.bin").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.bin") as caught:
            open_features(tmp_path).feature(0, 0)
        assert "\n" not in str(caught.value)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(InputError, match="cannot read"):
        open_features(tmp_path).feature(0, 0)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["examples_quantiles", "examples", "tokens", "tokens_acts_list", "quantile_name", "top_logits",
                     "histogram", "act_max", "train_token_ind", "features", "index", "values"]), inner, max_size=4,
), max_leaves=12)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted({*DETAILS, "histogram", "act_max", "act_min", "quantile_values"})), anything
    )
)
def test_details_of_anything(change: dict[str, Any]) -> None:
    """Whatever the values are: a record that is JSON, or one clear line."""
    json.dumps(
        records.clear(lambda: details.read({**DETAILS, **change}, 0, 0, "mlp", "file.json"), "file.json"),
        allow_nan=False,
    )


@settings(max_examples=100, deadline=None)
@given(anything, anything, anything)
def test_neuronpedia_records_of_anything(feature: Any, values: Any, share: Any) -> None:
    from jaxinterp.dashboards import neuronpedia_records

    given = {
        "pos_str": feature,
        "freq_hist_data_bar_heights": values,
        "frac_nonzero": share,
        "topkCosSimIndices": values,
    }
    activation = {"tokens": feature, "values": values, "binMin": share, "binMax": share, "binContains": share}
    for activations in ([], [activation], [feature]):
        record = records.clear(
            lambda activations=activations: neuronpedia_records.read(
                given, activations, [], 0, 0, "mlp", "file"
            ),
            "file",
        )
        json.dumps(record, allow_nan=False)


def test_what_is_no_folder_of_features(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for place, said in (
        ("file.txt", "is a file"),
        ("missing", "does not exist"),
        ("empty", "holds no feature files"),
    ):
        with pytest.raises(InputError, match=said):
            open_features(tmp_path / place)
    for name in ("one", "two"):
        put(tmp_path / "several" / "features" / name, "5.json", DETAILS)
    with pytest.raises(InputError, match="several sets of features: one, two"):
        open_features(tmp_path / "several")
    assert open_features(tmp_path / "several", scan="two").feature(*cantor.unpair(5)) is not None
    put(tmp_path / "np" / "nolayer" / "features", "batch-0.jsonl", {"index": 0})
    with pytest.raises(InputError, match="begins with its layer"):
        open_features(tmp_path / "np")
    folder = put(tmp_path / "np2" / "3-res" / "features", "batch-0.jsonl", {"index": "x"})
    with pytest.raises(InputError, match="index"):
        open_features(folder.parent).feature(3, 0)
    (folder / "batch-1.jsonl.gz").write_bytes(gzip.compress(b'{"index": 1}\n')[:-6])
    with pytest.raises(InputError, match="batch-"):
        open_features(folder.parent).feature(3, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 300), st.integers(0, 1 << 40))
def test_pairing(layer: int, index: int) -> None:
    assert cantor.unpair(cantor.pair(layer, index)) == (layer, index)
