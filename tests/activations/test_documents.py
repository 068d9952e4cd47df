"""Documents become sequences: no token lost, attention within documents, the same batches for ever."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxinterp.activations.documents import Corpus, origin, packed, read_corpus, save_corpus
from jaxinterp.activations.text import TextConfig, make_source
from jaxinterp.core.errors import InputError
from tests.activations.test_text import model

TEXTS = [
    "once upon a time",
    "a",
    "there was a very small test of documents that is longer than one sequence is",
    "end",
]


def settings(source: Path | str, **changes: object) -> TextConfig:
    return TextConfig(**{"source": str(source), "length": 8, "batch": 2, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": t, "id": i}) for i, t in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]))
    ids = [{"ids": [1, *model().tokenizer.encode(t, False)]} for t in TEXTS]
    (tmp_path / "ids.jsonl").write_text("\n".join(map(json.dumps, ids)))
    return tmp_path


def test_every_source_of_the_same_documents_gives_the_same_batches(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": TEXTS, "n": [1, 2, 3, 4]}), folder / "a.parquet")
    parquet.write_table(
        pyarrow.table({"ids": [[1, *model().tokenizer.encode(t, False)] for t in TEXTS]}),
        folder / "ids.parquet",
    )
    save_corpus(read_corpus(settings(folder / "a.jsonl"), model()), folder / "corpus")
    names = ("a.jsonl", "ids.jsonl#ids", "a.parquet", "ids.parquet#ids", "corpus")
    sources = [make_source(settings(folder / name), model(), 3) for name in names]
    for index in (0, 1, 7):
        first = sources[0].batch(index)
        for other in sources[1:]:
            for a, b in zip(first, other.batch(index), strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_pass_has_every_token_once_with_its_document_and_position(folder: Path) -> None:
    words = model().tokenizer
    documents = [[1, *words.encode(t, False)] for t in TEXTS]
    flat = [(d, p, t) for d, ids in enumerate(documents) for p, t in enumerate(ids)]
    source = make_source(settings(folder / "a.jsonl", batch=3), model(), 0)
    count = len(flat) // 8
    assert count % 3 == 0
    seen: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
    for index in range(count // 3):
        batch = source.batch(index)
        assert batch.use.all()
        for tokens, segments, positions in zip(batch.tokens, batch.segments, batch.positions, strict=True):
            seen[tuple(tokens)] = list(
                zip(segments.tolist(), positions.tolist(), tokens.tolist(), strict=True)
            )
    for number in range(count):
        expected = flat[8 * number : 8 * number + 8]
        found = seen[tuple(t for _, _, t in expected)]
        assert [(d, t) for d, _, t in found] == [(d, t) for d, _, t in expected]
        start = {d: min(p for e, p, _ in expected if e == d) for d, _, _ in expected}
        assert [p for _, p, _ in found] == [p - start[d] for d, p, _ in expected]


def test_batches_are_pure_and_passes_have_their_own_order() -> None:
    corpus = Corpus(np.arange(800) % 31, np.arange(0, 800, 10))
    source = packed(corpus, settings("x", batch=10), 0)
    passes = [np.concatenate([source.batch(10 * e + i).tokens for i in range(10)]) for e in range(2)]
    assert not np.array_equal(*passes)
    assert sorted(map(bytes, passes[0])) == sorted(map(bytes, passes[1]))
    np.testing.assert_array_equal(
        source.batch(13).tokens, packed(corpus, settings("x", batch=10), 0).batch(13).tokens
    )
    limited = packed(corpus, settings("x", batch=10, limit=3), 0)
    np.testing.assert_array_equal(limited.batch(7).tokens, source.batch(1).tokens)
    assert limited.limit == 3


def test_other_sources_still_work(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("once upon a time " * 5)
    assert make_source(settings(tmp_path / "a.txt"), model(), 0).batch(0).tokens.shape == (2, 8)


def test_origins_have_no_paths(folder: Path) -> None:
    config = settings(folder / "a.jsonl")
    save_corpus(read_corpus(config, model()), folder / "corpus")
    for source in ("a.jsonl#text", "a.jsonl", "corpus"):
        assert str(folder) not in origin(settings(folder / source))
    (folder / "b.jsonl").write_bytes((folder / "a.jsonl").read_bytes())
    assert origin(config) == origin(settings(folder / "b.jsonl"))
    assert origin(settings("package.module:function")) == "package.module:function"


def test_files_that_are_not_understood_are_named(folder: Path) -> None:
    bad = {
        "x.jsonl": ('{"text": "a"}\n{"text": ', r"x.jsonl, line 2 is not JSON"),
        "y.jsonl": ('{"txt": "a"}\n', r"y.jsonl, line 1 has no field 'text' .did you mean txt"),
        "z.jsonl": ('{"text": 5}\n', r"z.jsonl, line 1: text is no text and no list of token ids, but int"),
        "v.jsonl": ('{"text": [5, 31]}\n', r"outside the vocabulary of 31"),
        "w.jsonl": ('{"text": "abc"}\n', r"has 4 tokens, too few for one sequence of 8"),
        "e.jsonl": ("", r"holds no documents"),
    }  # fmt: skip
    for name, (text, message) in bad.items():
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=message):
            make_source(settings(folder / name), model(), 0)
    with pytest.raises(InputError, match="cannot read"):
        make_source(settings(folder / "none.jsonl"), model(), 0)
    with pytest.raises(InputError, match="longer than the model's context of 96"):
        make_source(settings(folder / "a.jsonl", length=97), model(), 0)
    (folder / "bad.parquet").write_bytes(b"PAR1 nothing")
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        make_source(settings(folder / "bad.parquet"), model(), 0)


def test_beginnings_that_do_not_ascend_are_refused(tmp_path: Path) -> None:
    for starts in ([1, 3], [0, 3, 3], [0, 90], []):
        save_corpus(Corpus(np.arange(30), np.array(starts, np.int64)), tmp_path / "corpus")
        with pytest.raises(InputError, match="must ascend from 0"):
            make_source(settings(tmp_path / "corpus"), model(), 0)
