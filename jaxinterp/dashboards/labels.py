"""Labels and explanations that people or programs give to features: a small file beside the dashboards.

  labels.json   {"format": "jaxinterp-labels", "version": 1,
                 "features": {"mlp/3/17": {"label": "...", "explanations": [{"text", "by", "score"}]}}}

It is read anew when it has changed on disk, and written whole, so that editing it by hand while a viewer is open works.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json

FILE = "labels.json"
FORMAT = "jaxinterp-labels"
_writing = threading.Lock()


def key(layer: int, index: int, part: str = "mlp") -> str:
    """What a feature is called in the file."""
    return f"{part}/{layer}/{index}"


class Labels:
    """The labels in a folder; without a file there are none."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / FILE
        self._seen: tuple[int, int] | None = None
        self._found: dict[str, Any] = {}

    def of(self, layer: int, index: int, part: str = "mlp") -> tuple[str, list[dict[str, Any]]]:
        """The label of a feature, and its explanations; "" and [] where nobody gave any."""
        one = self._read().get(key(layer, index, part))
        return ("", []) if one is None else (one["label"], [dict(e) for e in one["explanations"]])

    def all(self) -> dict[str, dict[str, Any]]:
        """Everything in the file, by `key`."""
        return dict(self._read())

    def _read(self) -> dict[str, Any]:
        try:
            state = self.path.stat()
        except OSError:
            return {}
        seen = state.st_mtime_ns, state.st_size
        if seen != self._seen:
            self._found, self._seen = check(read_json(self.path), self.path), seen
        return self._found

    def set(
        self, layer: int, index: int, part: str = "mlp", *, label: str | None = None,
        explanations: list[dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Give a feature a label or explanations; what is None stays as it was.

        Raises:
          InputError: the folder is not writable, or an explanation is not {"text", "by", "score"}.
        """
        with _writing:
            features = dict(self._read())
            old = features.get(key(layer, index, part), {"label": "", "explanations": []})
            features[key(layer, index, part)] = {
                "label": old["label"] if label is None else label,
                "explanations": old["explanations"] if explanations is None else explanations,
            }
            value = {"format": FORMAT, "version": 1, "features": dict(sorted(features.items()))}
            check(value, self.path)
            write_json(self.path, value)


def check(value: Any, path: Path) -> dict[str, Any]:
    """The features of a labels file, after a look at every one."""
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != 1:
        raise InputError(f"{path} is no labels file: expected format {FORMAT}, version 1")
    features = value.get("features")
    if not isinstance(features, dict):
        raise InputError(f"{path}: features is not a table")
    return {name: _one(name, one, path) for name, one in features.items()}


def _one(name: str, one: Any, path: Path) -> dict[str, Any]:
    given = one if isinstance(one, dict) else {}
    label, explanations = given.get("label", ""), given.get("explanations", [])
    good = isinstance(one, dict) and isinstance(label, str) and isinstance(explanations, list)
    found = []
    for each in explanations if good else []:
        text = each.get("text") if isinstance(each, dict) else None
        by, score = (each.get("by", ""), each.get("score")) if isinstance(each, dict) else (None, None)
        good &= isinstance(text, str) and isinstance(by, str)
        good &= score is None or (isinstance(score, int | float) and not isinstance(score, bool))
        found.append({"text": text, "by": by, "score": score})
    if not good:
        raise InputError(f"{path}: {name} is not {{label, explanations: [{{text, by, score}}]}}")
    return {"label": label, "explanations": found}
