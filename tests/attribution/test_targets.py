"""What may be asked of a graph: parsing, checking, and the readings that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.attribution.prepare import Prepared, prepare
from jaxinterp.attribution.prompts import each, several
from jaxinterp.attribution.readings import FINAL, Junction, Targets, values
from jaxinterp.attribution.target_text import parse_target, parse_targets
from jaxinterp.attribution.targets import resolve, salient
from jaxinterp.attribution.vocabulary import token_of
from jaxinterp.attribution.wanted import (
    Completion,
    Difference,
    Direction,
    Feature,
    Salient,
    Supernode,
    Token,
)  # fmt: skip
from jaxinterp.attribution.wanted_plain import from_plain, read_targets, to_plain
from jaxinterp.core.errors import InputError
from jaxinterp.models import Model
from jaxinterp.models.decoder import unembedding
from tests.support import tiny_model

IDS = np.array([7, 3, 19, 3, 28, 11], np.int32)
JUNCTIONS = (Junction(0, "attn_in", (0, 2), 5), Junction(1, "mlp_in", range(3), 12))
LOGITS = 3 * np.random.default_rng(0).normal(size=(32, 40)).astype(np.float32)


class Words:
    """A tokenizer of words: token i reads WORDS[i]."""

    words = (
        "<s>",
        "Paris",
        " Paris",
        "London",
        "Lon",
        "don",
        "Rome",
        "the",
        "sea",
        " sea",
        "42",
        *"abcdefghij",
    )
    vocab_size = len(words)

    def __init__(self) -> None:
        self.asked = 0

    def text(self, token: int) -> str:
        self.asked += 1
        return self.words[token]

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        ids = [] if bos is False else [0]
        while text:
            found = max((w for w in self.words if text.startswith(w)), key=len, default=None)
            if found is None:
                raise InputError(f"{text!r} is outside the vocabulary")
            ids.append(self.words.index(found))
            text = text[len(found) :]
        return ids


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("gpt2")


def ready(
    model: Model, wanted: Any, tokenizer: Any = None, junctions: Any = JUNCTIONS, **more: Any
) -> Prepared:
    return prepare(wanted, IDS, model.config, tokenizer, junctions, **more)


def made(model: Model, wanted: Any, **more: Any) -> Targets:
    return resolve(ready(model, wanted, **more), lambda p: LOGITS[p], model.params, model.config)


def probabilities(position: int) -> np.ndarray:
    exact = np.exp(LOGITS[position].astype(np.float64))
    return exact / exact.sum()


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Paris", "Paris"),
        (" Paris", " Paris"),
        ("42", 42),
        ('"42"', "42"),
        ('"\\n"', "\n"),
        ("Paris@-3", Token("Paris", -3)),
        ("7@2,5", Token(7, (2, 5))),
        ("a@b.com", "a@b.com"),
        ("@3", "@3"),
        ('" - "@2', Token(" - ", 2)),
        ("-", "-"),
        ("a-b", "a-b"),
        ("Paris - London", Difference(("Paris",), ("London",))),
        ('" Paris" + 7 - " - "@3', Difference((" Paris", 7), (" - ",), 3)),
        ("feature:12/345@7", Feature(12, 345, 7)),
        ("feature:attention/12/345", Feature(12, 345, -1, "attention")),
        (
            "supernode:capital=12/345@7,13/9*-0.5",
            Supernode("capital", (Feature(12, 345, 7), Feature(13, 9)), (1.0, -0.5)),
        ),
        ("supernode:one=residual/1/2@3", Supernode("one", (Feature(1, 2, 3, "residual"),))),
        ("salient:@3", Salient(3)),
        ("salient:", Salient()),
    ],
)
def test_the_grammar(text: str, target: Any) -> None:
    assert parse_target(text) == target


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from('ab"\\ -+@:/1\n') | st.characters(codec="utf-8")), st.integers(-9, 9))
def test_texts_in_double_quotes_are_taken_as_they_are(text: str, position: int) -> None:
    quoted = json.dumps(text, ensure_ascii=False)
    assert parse_target(quoted) == text
    if position != -1:
        assert parse_target(f"{quoted}@{position}") == Token(text, position)
    assert parse_target(f"{quoted} - 7 + {quoted}") == Difference((text, text), (7,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a - ", "in double quotes"),
        ('"a', None),
        ('"\\x"', "escape"),
        ("feature:12", "LAYER/FEATURE@POSITION"),
        ("feature:mpl/1/2", "did you mean mlp"),
        ("feature:1/" + "9" * 30, "30 digits"),
        ("salient:3", "salient:@POSITION"),
        ("supernode:x", "supernode:NAME="),
        ("supernode:x=1/2*three", "'three' is no weight"),
        ("direction:", "FILE.npy"),
        ("direction:nowhere.npy", "cannot read nowhere.npy"),
        ("nowhere.json", "cannot read nowhere.json"),
    ],
)
def test_what_cannot_be_parsed(text: str, message: str | None) -> None:
    if message is None:
        assert parse_target(text) == text
        return
    with pytest.raises(InputError, match=message) as caught:
        parse_targets([text])
    assert "\n" not in str(caught.value)


def test_directions_and_files(tmp_path: Path) -> None:
    np.save(tmp_path / "probe.npy", np.arange(16.0))
    found = parse_target(f"direction:attention/2/{tmp_path}/probe.npy@1")
    assert (found.layer, found.site, found.position, found.label) == (2, "attention", 1, "probe")
    assert np.array_equal(found.vector, np.arange(16.0))
    assert parse_target(f"direction:{tmp_path}/probe.npy").layer is None
    items = [
        5,
        "Paris",
        {"sort": "direction", "file": "probe.npy", "label": "x", "layer": 1},
        to_plain(Salient(2)),
    ]
    (tmp_path / "targets.json").write_text(json.dumps(items))
    a, b, c, d = read_targets(tmp_path / "targets.json")
    assert (a, b, d) == (5, "Paris", Salient(2))
    assert c.layer == 1 and np.array_equal(c.vector, np.arange(16.0))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"not a \.npy file of numbers"):
        parse_target(f"direction:{tmp_path}/objects.npy")


EVERY = (
    7,
    "Paris",
    Token(5, (1, -2), weight=0.5),
    Salient(2, mass=0.5, at_most=3),
    Completion((1, 2, 3)),
    Difference(3, (4, 5), position=1),
    Feature(2, 11, 3),
    Supernode("s", (Feature(0, 1, 2), Feature(2, 4, 3, "attention")), (1.0, -0.25)),
)


@pytest.mark.parametrize("target", EVERY, ids=lambda t: type(t).__name__)
def test_plain_values_and_back(target: Any) -> None:
    through = json.loads(json.dumps(to_plain(target)))
    assert from_plain(through) == target


def test_numbers_of_numpy_are_plain() -> None:
    for target in (Token(np.int64(5), np.array([1, 2])), Completion(np.array([1, 2])), Token(5, np.int32(3))):
        assert json.loads(json.dumps(to_plain(target)))["sort"] in ("token", "completion")


def test_directions_survive_json_to_the_last_bit() -> None:
    vector = np.random.default_rng(1).normal(size=16).astype(np.float32)
    found = from_plain(json.loads(json.dumps(to_plain(Direction(vector, "d", 2, 1, "mlp")))))
    assert np.array_equal(np.asarray(found.vector, np.float32), vector)
    assert (found.label, found.position, found.layer, found.site) == ("d", 2, 1, "mlp")
    old = from_plain({"direction": vector.tolist(), "label": "of an older graph"})
    assert old.label == "of an older graph" and np.array_equal(np.asarray(old.vector, np.float32), vector)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "expected a token id"),
        (1.5, "expected a token id"),
        ({"sort": "tokens"}, "did you mean token"),
        ({"sort": "token"}, "a token needs 'token'"),
        ({"sort": "token", "token": 1, "postion": 2}, "did you mean position"),
        ({"sort": "token", "token": 1.5}, "whole number"),
        ({"sort": "token", "token": 1, "weight": float("nan")}, "finite"),
        ({"sort": "feature", "layer": "1", "index": 2}, "layer: expected a whole number"),
        ({"sort": "direction", "vector": [1, "2"], "label": ""}, r"vector\[1\]"),
        ({"sort": "direction", "file": "x.npy", "label": ""}, "list its vector"),
        ({"sort": "supernode", "name": "s", "members": [1]}, "expected a feature"),
        ({"sort": "supernode", "name": "s", "members": [{"layer": 1}]}, "a feature needs 'index'"),
    ],
)
def test_plain_values_that_are_no_targets(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_plain(value)


def test_salient_tokens_are_the_default(model: Model) -> None:
    found = made(model, None)
    expected = salient(probabilities(5))
    assert np.array_equal(found.index, expected)
    assert ready(model, None).plain is None
    assert np.allclose(found.weights, probabilities(5)[expected], rtol=1e-12)
    assert np.array_equal(found.combine, np.eye(len(expected)))
    assert (found.readings.part == FINAL).all() and (found.readings.layer == model.config.n_layers).all()
    assert (found.position == 5).all() and found.labels == tuple(map(str, expected))


def test_tokens_read_demeaned_unembeddings(model: Model) -> None:
    matrix = np.asarray(unembedding(model.params, model.config), np.float64)
    found = made(model, [4, Difference(4, (9, 5)), Difference((9, 5))])
    token, difference, group = found.readings.vectors.astype(np.float64)
    assert np.allclose(token, matrix[:, 4] - matrix.mean(axis=1), atol=1e-6)
    assert np.allclose(difference, matrix[:, 4] - (matrix[:, 9] + matrix[:, 5]) / 2, atol=1e-6)
    assert np.allclose(difference, token - group, atol=1e-6)
    assert found.labels == ("4", "4 - mean(9, 5)", "mean(9, 5)")
    assert found.weights == pytest.approx([probabilities(5)[4], 1 / 3, 1 / 3])
    assert found.index.tolist() == [4, -1, -1]


def test_positions(model: Model) -> None:
    found = made(model, [Token(4, (-1, 0)), Salient(2, at_most=2), Direction(np.ones(16), "ones", -6)])
    assert found.position.tolist() == [5, 0, 2, 2, 0]
    assert found.labels[0] == "4@5" and found.labels[-1] == "ones@0"
    best = salient(probabilities(2), at_most=2)
    assert found.index.tolist() == [4, 4, *best, -1]
    expected = [probabilities(p)[t] for t, p in ((4, 5), (4, 0), (best[0], 2), (best[1], 2))]
    assert found.weights == pytest.approx([*expected, 1 / 5])


def test_salient_leaves_out_what_is_named_besides(model: Model) -> None:
    first = int(salient(probabilities(5))[0])
    found = made(model, [Token(first, weight=2.0), Salient()])
    assert found.index.tolist().count(first) == 1
    assert found.weights[0] == 2.0
    assert sorted(found.index.tolist()) == sorted(salient(probabilities(5)).tolist())


def test_features_and_supernodes_share_readings(model: Model) -> None:
    wanted = [
        Feature(2, 11, 3, "mlp"),
        Supernode("pair", (Feature(2, 11, 3, "mlp"), Feature(0, 4, (1, 2), "attention")), (2.0, -1.0, 0.5)),
        Direction(np.ones(16), "mid", layer=1),
    ]
    found = made(model, wanted)
    r = found.readings
    assert list(zip(r.layer, r.part, r.position, r.feature, strict=True)) == [
        (2, 1, 3, 11), (0, 0, 1, 4), (0, 0, 2, 4), (1, 1, 5, -1),
    ]  # fmt: skip
    assert np.array_equal(found.combine, [[1, 0, 0, 0], [2, -1, 0.5, 0], [0, 0, 0, 1]])
    assert not r.vectors[r.feature >= 0].any()
    assert found.labels == ("feature 2/11@3", "pair", "mid@5")
    nodes = list(zip(found.layer, found.part, found.position, found.index, strict=True))
    assert nodes == [(2, 1, 3, 11), (2, 1, 3, -1), (1, 1, 5, -1)]
    rows = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    combined = found.of_readings(rows)
    assert combined.dtype == np.float32 and np.array_equal(combined[0], rows[0])
    assert np.array_equal(
        combined[1], (2.0 * rows[0].astype(np.float64) - rows[1] + 0.5 * rows[2]).astype("f4")
    )


def test_values_of_readings(model: Model) -> None:
    found = made(model, [4, Direction(np.ones(16), "mid", 2, 1, "mlp")])
    rng = np.random.default_rng(3)
    final, read = rng.normal(size=(6, 16)), rng.normal(size=(3, 6, 16))
    value = values(found.readings, final, {1: read}, np.array([0.0, 0.25]))
    assert value[0] == pytest.approx(found.readings.vectors[0].astype(np.float64) @ final[5])
    assert value[1] == pytest.approx(read[1, 2].sum() + 0.25)


def test_a_part_that_need_not_be_named(model: Model) -> None:
    only = (Junction(2, "resid_post", range(3), 9),)
    found = made(model, [Feature(1, 3, 0), Direction(np.ones(16), "d", layer=1)], junctions=only)
    assert found.part.tolist() == [2, 2]
    by_site = made(model, [Direction(np.ones(16), "d", layer=0, site="attn_in")])
    assert by_site.readings.part.tolist() == [0]


def test_a_completion_becomes_tokens(model: Model) -> None:
    words, prompt = Words(), "abc"
    ids = np.asarray(words.encode(prompt), np.int32)
    found = prepare([Completion("London sea"), Token("a", -1)], ids, model.config, words, (), prompt)
    assert found.ids.tolist() == [*ids, words.words.index("London")]
    assert [(t.token, t.position) for t in found.items] == [(3, 3), (9, 4), (11, 3)]
    # The record has no text and no negative position, so that it needs no tokenizer and no prompt.
    again = prepare([from_plain(t) for t in found.plain or []], found.ids, model.config, None, ())
    assert again.items == found.items and again.plain == found.plain
    assert np.array_equal(again.ids, found.ids)


def test_a_completion_that_changes_the_prompts_last_token(model: Model) -> None:
    words, prompt = Words(), "aLon"
    ids = np.asarray(words.encode(prompt), np.int32)
    with pytest.raises(InputError, match="joins the prompt's last token 'Lon'"):
        prepare(Completion("don"), ids, model.config, words, (), prompt)
    assert prepare(Completion("don"), ids, model.config, words, ()).items[0] == Token(5, 2)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "empty list"),
        ([None], "not NoneType"),
        (3.5, "not float"),
        ([True], "not bool"),
        ([40], "target token 40 is outside the vocabulary of 40"),
        (["x"], "no tokenizer"),
        ([4, 4], "'4' was given twice"),
        ([4, Token(4, (0, -1))], "given twice"),
        ([Token(4, (1, 1))], "given twice"),
        ([Token(4, 6)], "position 6 of the target token 4 '4' is outside the prompt of 6 tokens"),
        ([Token(4, -7)], "position -7"),
        ([Token(4, ())], "empty list of positions"),
        ([Token(4, 1.5)], "whole numbers"),
        ([Token(4, weight=0.0)], "above 0"),
        ([Token(4, weight="much")], "cannot be read"),
        ([Token(4.5)], "not float"),
        ([Difference(4.5)], "cannot be read"),
        ([Feature(1.0, 2, part="mlp")], "cannot be read"),
        ([Supernode("s", 5)], "cannot be read"),
        ([Direction(np.ones(16), None)], "expected a text"),
        ([Salient(at_most="a")], "cannot be read"),
        ([Salient(mass=0.0)], "mass is 0.0"),
        ([Salient(), Salient(5)], "given twice"),
        ([Completion([1]), Completion([2])], "two completions"),
        ([Completion(())], "at least one token"),
        ([Completion([1] * 30)], "35 tokens is longer than the model's context of 32"),
        ([Completion([1, 99])], "target token 99"),
        ([Completion("x")], "no tokenizer"),
        ([Direction(np.ones(3), "z")], r"shape \(3,\), expected \(16,\)"),
        ([Direction(np.zeros(16), "z")], "zero everywhere"),
        ([Direction(np.full(16, np.nan), "z")], "not finite"),
        ([Direction(["a"] * 16, "z")], "not finite"),
        ([Direction(np.ones(16), "z"), Direction(np.ones(16), "y")], "the direction 'y' was given twice"),
        ([Direction(np.ones(16), "z", layer=4)], "layer 4 is outside the model's 3 layers"),
        ([Direction(np.ones(16), "z", layer=0)], "name its site at layer 0, 'attention' or 'mlp'"),
        (
            [Direction(np.ones(16), "z", layer=1, site="attention")],
            "nothing reads at layer 1; there is attention",
        ),
        ([Direction(np.ones(16), "z", layer=1, site="mpl")], "did you mean mlp"),
        ([Direction(np.ones(16), "z", site="mlp")], "and no layer"),
        ([Difference((), 3)], "without a token on its plus side"),
        ([Difference((3, 3), 4)], "the same token twice"),
        ([Difference((3, 4), (4, 3))], "is 0 on every prompt"),
        ([Feature(1, 12, part="mlp")], "layer 1 has features 0 to 11"),
        ([Feature(3, 1, part="mlp")], "no features at layer 3; there is attention .attn_in, layers 0, 2"),
        ([Feature(1, 1, part="attention")], "no features at layer 1"),
        ([Feature(1, 1, part="residual")], "there is no part 'residual'"),
        ([Feature(1, 1, 9, "mlp")], "position 9 of the target feature 1/1"),
        ([Supernode("s", ())], "has no members"),
        ([Supernode("s", (4,))], "no Feature"),
        ([Supernode("s", (Feature(1, 1), Feature(1, 1, 5)))], "feature 1/1 at position 5 twice"),
        ([Supernode("s", (Feature(1, 1),), (1.0, 2.0))], "1 members and the weights"),
        ([Supernode("s", (Feature(1, 1),), (0.0,))], "other than 0"),
        ([Supernode("s", (Feature(1, 99),))], "features 0 to 11"),
    ],
)
def test_targets_that_do_not_exist(model: Model, wanted: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ready(model, wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paris", "did you mean 'Paris' or ' Paris'"),
        ("Londno", "did you mean 'London'"),
        ("thesea", "it is 2 tokens, 'the' 'sea'; give a completion"),
        ("zzz", "not one token of this model's vocabulary$"),
    ],
)
def test_texts_that_are_no_token(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        token_of(text, Words())


def test_texts_that_are_tokens() -> None:
    words = Words()
    assert [token_of(text, words) for text in words.words] == list(range(len(words.words)))


def test_the_vocabulary_is_read_once() -> None:
    class Mute(Words):
        def encode(self, text: str, bos: bool | None = None) -> list[int]:
            raise InputError("no")

    words = Mute()
    assert [token_of(text, words) for text in words.words] == list(range(len(words.words)))
    assert words.asked == words.vocab_size


def test_one_prompt_or_several() -> None:
    for one in ("text", [1, 2], (1,), np.array([1, 2]), [], [np.int32(3)]):
        assert several(one) is None
    assert several(["a", [1, 2], np.array([3])]) is not None
    assert [list(row) for row in several(np.ones((2, 3), int)) or []] == [[1, 1, 1]] * 2
    with pytest.raises(InputError, match="prompt 1 of the list is 5"):
        several(["a", 5])

    def fails(prompt: str) -> str:
        if prompt == "b":
            raise InputError("no such word")
        return prompt * 2

    assert each(["a", "c"], fails) == ["aa", "cc"]
    with pytest.raises(InputError, match="prompt 2 of 3: no such word"):
        each(["a", "b", "c"], fails)


def test_sites_wider_than_the_residual_stream() -> None:
    """Heads side by side are wider; what is read elsewhere stands before zeros."""
    wide = tiny_model("latent")  # 4 heads of 5
    heads = (Junction(0, "attn_z", range(3), 5), Junction(1, "mlp_in", range(3), 12))
    both = [4, Direction(np.arange(1.0, 21), "heads", 2, 1, "attention")]
    found = made(wide, both, junctions=heads)
    assert found.readings.vectors.shape == (2, 20)
    assert not found.readings.vectors[0, 16:].any() and found.readings.vectors[1, 19] == 20
    rng = np.random.default_rng(1)
    final, read = rng.normal(size=(6, 16)), rng.normal(size=(3, 6, 20))
    value = values(found.readings, final, {0: read})
    assert value[0] == pytest.approx(found.readings.vectors[0, :16].astype(np.float64) @ final[5])
    assert value[1] == pytest.approx(read[1, 2] @ np.arange(1.0, 21))
    assert made(wide, [4], junctions=heads).readings.vectors.shape == (1, 16)
    with pytest.raises(InputError, match=r"shape \(16,\), expected \(20,\)"):
        made(wide, [Direction(np.ones(16), "z", 2, 1, "attention")], junctions=heads)
