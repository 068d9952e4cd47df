"""Reading some rows of a file."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.formats import circuit_tracer, tensors
from jaxinterp.dictionaries.load import save_dictionary
from tests.dictionaries.format_tools import made


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("rows", [[], [0], [99], [7, 3, 3, 90, 8, 0], list(range(100))])
def test_rows_are_those_of_the_whole(tmp_path: Path, rows: list[int], dtype: type) -> None:
    values = np.random.default_rng(0).normal(size=(100, 2, 3)).astype(dtype)
    save_file({"a": values, "b": values[:5]}, tmp_path / "x.safetensors")
    with tensors.reading(tmp_path / "x.safetensors") as file:
        found = file.take_rows("a", (100, 2, 3), np.array(rows, np.int64), np.float32)
    np.testing.assert_array_equal(found, values.astype(np.float32)[rows].reshape(len(rows), 2, 3))


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": np.zeros((1000, 4), np.float32)}, tmp_path / "x.safetensors")
    asked: list[int] = []
    values = tensors._Safetensors.values

    def counted(self: tensors._Safetensors, name: str, rows: slice | None = None) -> np.ndarray:
        found = values(self, name, rows)
        asked.append(len(found))
        return found

    monkeypatch.setattr(tensors._Safetensors, "values", counted)
    with tensors.reading(tmp_path / "x.safetensors") as file:
        file.take_rows("a", (1000, 4), np.array([900, 2, 5]), np.float32)
    assert asked == [4, 1]


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_decoder_rows(tmp_path: Path, kind: str) -> None:
    one = made(kind)
    save_dictionary(one, tmp_path / "d")
    found = circuit_tracer.decoder_rows(tmp_path / "d", 1, np.array([5, 0]))
    w = one.params["W_dec"]
    expected = [w[1]] if kind == "plt" else [w[target][1] for target in (1, 2)]
    np.testing.assert_array_equal(found, np.stack(expected, axis=1)[np.array([5, 0])])
    with pytest.raises(InputError, match="no layer 3, it has 3"):
        circuit_tracer.decoder_rows(tmp_path / "d", 3, np.array([0]))
    with pytest.raises(InputError, match="has 6 rows, asked for 0 to 6"):
        circuit_tracer.decoder_rows(tmp_path / "d", 1, np.array([0, 6]))
