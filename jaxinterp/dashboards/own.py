"""Our dashboards: a folder with one file a layer, of which reading a feature reads a few kilobytes.

  manifest.json      format, version, files (name, part, layer, features, size, sha256) and provenance
  mlp_00.jidash …    one a part and layer: header, columns over features, and an entry a feature (`packing`)
  tokens.jidash      the text of every token
  labels.json        labels and explanations, see `labels`; may be missing

Columns of a layer: offsets [N + 1] of entries among "records", crc32 [N] of each, count [N] (tokens on which it is
active) and largest [N] (its largest activation).
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import digest_file, read_json, write_json
from jaxinterp.dashboards import container, histogram, packing
from jaxinterp.dashboards.container import Container
from jaxinterp.dashboards.labels import Labels
from jaxinterp.dashboards.record import Record, empty

FORMAT = "jaxinterp-dashboards"
MANIFEST, TOKENS = "manifest.json", "tokens.jidash"
PARTS = ("attention", "mlp", "residual")


def write_tokens(path: str | os.PathLike[str], texts: Sequence[str]) -> None:
    """Write the text of every token."""
    # Half a character as text (a lone surrogate) has no UTF-8; it is written as the byte it stands for is shown.
    encoded = [text.encode("utf-8", "backslashreplace") for text in texts]
    offsets = np.cumsum([0, *(len(one) for one in encoded)]).astype(np.uint64)
    arrays: dict[str, np.ndarray] = {"offsets": offsets, "text": np.frombuffer(b"".join(encoded), np.uint8)}
    container.write(path, {"what": "tokens", "version": 1, "tokens": len(texts)}, arrays)


def write_layer(
    path: str | os.PathLike[str], header: Mapping[str, Any], entries: Sequence[bytes], count: np.ndarray,
    largest: np.ndarray,
) -> None:  # fmt: skip
    """Write the file of a layer from the packed entries of its features."""
    container.write(
        path,
        {"what": "features", "version": 1, **header, "features": len(entries)},
        {
            "offsets": np.cumsum([0, *(len(one) for one in entries)]).astype(np.uint64),
            "crc32": np.array([zlib.crc32(one) for one in entries], np.uint32),
            "count": count.astype(np.uint64),
            "largest": largest.astype(np.float32),
            "records": np.frombuffer(b"".join(entries), np.uint8),
        },
    )


def write_manifest(
    folder: Path, names: Sequence[tuple[str, str, int, int]], facts: Mapping[str, Any]
) -> None:
    """Write what makes a folder complete: ``names`` are (file, part, layer, features)."""
    files = [
        {
            "file": name, "part": part, "layer": layer, "features": features,
            "size": (folder / name).stat().st_size, "sha256": digest_file(folder / name),
        }
        for name, part, layer, features in names
    ]  # fmt: skip
    tokens = {
        "file": TOKENS,
        "size": (folder / TOKENS).stat().st_size,
        "sha256": digest_file(folder / TOKENS),
    }
    write_json(
        folder / MANIFEST, {"format": FORMAT, "version": 1, "layers": files, "tokens": tokens, **facts}
    )


class Dashboards:
    """Our dashboards in a folder. Files are opened when they are first needed.

    Attributes:
      folder: where.
      manifest: what manifest.json says.
      labels: labels and explanations beside them, which can be set.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest = read_json(self.folder / MANIFEST)
        where = self.folder / MANIFEST
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise InputError(f"{where} is no manifest of dashboards: expected format {FORMAT}")
        if self.manifest.get("version") != 1:
            raise InputError(f"{where} is of version {self.manifest.get('version')}, this reads version 1")
        self.labels = Labels(self.folder)
        self._files: dict[tuple[str, int], dict[str, Any]] = {}
        try:
            for one in self.manifest["layers"]:
                if one["part"] not in PARTS or not all(
                    type(one[n]) is int for n in ("layer", "features", "size")
                ):
                    raise ValueError(one)
                self._files[one["part"], one["layer"]] = one
            names = [*(one["file"] for one in self._files.values()), self.manifest["tokens"]["file"]]
            if any(Path(name).name != name or name in ("", ".", "..") for name in names):
                raise ValueError(names)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where} is not understood: its list of files is damaged") from error
        self._open: dict[tuple[str, int], Layer] = {}
        self._tokens: TokenTexts | None = None

    def layers(self, part: str = "mlp") -> dict[int, int]:
        """Layer → how many features it has."""
        return {layer: one["features"] for (of, layer), one in sorted(self._files.items()) if of == part}

    def parts(self) -> tuple[str, ...]:
        """Which of attention, mlp, residual there are."""
        return tuple(part for part in PARTS if any(of == part for of, _ in self._files))

    def layer(self, layer: int, part: str = "mlp") -> Layer | None:
        """The file of a layer, or None."""
        key = (part, layer)
        if key not in self._files:
            return None
        if key not in self._open:
            made = Layer(self.folder / self._files[key]["file"])
            if (made.part, made.layer, made.features) != (part, layer, self._files[key]["features"]):
                raise InputError(f"{made.file.path} is of another layer than {self.folder / MANIFEST} says")
            self._open[key] = made
        return self._open[key]

    def token(self, number: int) -> str:
        """The text of a token."""
        if self._tokens is None:
            self._tokens = TokenTexts(self.folder / self.manifest["tokens"]["file"])
        return self._tokens.text(number)

    def feature(self, layer: int, index: int, part: str = "mlp") -> Record | None:
        """See `record.Features`."""
        file = self.layer(layer, part)
        if file is None or not 0 <= index < file.features:
            return None
        record = file.record(index, self.token)
        for one in record["neighbours"]:
            one["label"] = self.labels.of(one["layer"], one["index"], part)[0]
        record["label"], record["explanations"] = self.labels.of(layer, index, part)
        return record

    def features(self) -> Iterator[Record]:
        """Every record, part by part and layer by layer."""
        for part in self.parts():
            for layer, count in self.layers(part).items():
                for index in range(count):
                    found = self.feature(layer, index, part)
                    assert found is not None
                    yield found

    def verify(self) -> None:
        """Compare every checksum, of files with the manifest and inside them; unpack every entry.

        Raises:
          InputError: the first thing that is damaged.
        """
        for one in [*self._files.values(), self.manifest["tokens"]]:
            path = self.folder / one["file"]
            if not path.is_file() or digest_file(path) != one["sha256"]:
                raise InputError(f"{path} is not the file that {self.folder / MANIFEST} lists")
        for part, layer in self._files:
            file = self.layer(layer, part)
            assert file is not None
            file.file.verify()
            for index in range(file.features):
                file.record(index, self.token)


class TokenTexts:
    """The text of tokens by number, read one at a time and remembered."""

    def __init__(self, path: Path) -> None:
        self.file, self._texts = Container(path), dict[int, str]()
        if self.file.header.get("what") != "tokens" or self.file.header.get("version") != 1:
            raise InputError(f"{path} holds no texts of tokens")
        self.count = max(0, self.file.shape("offsets")[0] - 1)

    def text(self, number: int) -> str:
        """The text of a token."""
        if number not in self._texts:
            if not 0 <= number < self.count:
                raise InputError(f"{self.file.path} has {self.count} tokens, not number {number}")
            start, stop = (int(n) for n in self.file.rows("offsets", number, number + 2))
            data = self.file.rows("text", start, stop) if stop >= start else np.zeros(0, np.uint8)
            self._texts[number] = data.tobytes().decode("utf-8", "replace")
        return self._texts[number]


class Layer:
    """The file of one layer.

    Attributes:
      part, layer, features: what it is of, and how many.
    """

    def __init__(self, path: Path) -> None:
        self.file = Container(path)
        header = self.header = self.file.header
        if header.get("what") != "features" or header.get("version") != 1:
            raise InputError(f"{path} holds no features")
        try:
            self.part, self.layer, self.features = (
                str(header["part"]),
                int(header["layer"]),
                int(header["features"]),
            )
            self.seen, self.length = int(header["tokens"]), int(header["length"])
            self.groups, self.writes = [str(x) for x in header["groups"]], [int(x) for x in header["writes"]]
            self.token, self.real = (
                {"u2": "u2", "u4": "u4"}[header["token"]],
                {"f2": "f2", "f4": "f4"}[header["float"]],
            )
            ok = self.length > 0 and self.seen >= 0
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: its header is not understood") from error
        columns = ("offsets", "crc32", "count", "largest")
        sizes = [self.file.shape(name) for name in columns]
        if not ok or sizes != [(self.features + (name == "offsets"),) for name in columns]:
            raise InputError(f"{path} is damaged: its columns are not of {self.features} features")

    def counts(self) -> np.ndarray:
        """On how many tokens each feature is active."""
        return self.file.array("count")

    def largest(self) -> np.ndarray:
        """The largest activation of each feature."""
        return self.file.array("largest")

    def fields(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of a feature's entry."""
        where = f"{self.file.path}, feature {index}"
        start, stop = (int(n) for n in self.file.rows("offsets", index, index + 2))
        if not start <= stop <= self.file.shape("records")[0]:
            raise InputError(f"{where} is damaged: its entry runs from {start} to {stop}")
        data = self.file.rows("records", start, stop).tobytes()
        if zlib.crc32(data) != int(self.file.rows("crc32", index, index + 1)[0]):
            raise InputError(f"{where} is damaged: its checksum does not fit")
        fields = packing.unpack(data, self.token, self.real, where)
        if len(fields["groups"]) > len(self.groups) or len(fields["norms"]) not in (0, len(self.writes)):
            raise InputError(f"{where} is damaged: it does not fit the header")
        return fields

    def record(self, index: int, text: Any) -> Record:
        """The record of a feature; ``text(token)`` gives texts."""
        fields = self.fields(index)
        record = empty("jaxinterp", self.layer, self.part, index)
        count = int(self.file.rows("count", index, index + 1)[0])
        largest = short(self.file.rows("largest", index, index + 1)[0])
        counts = np.zeros(histogram.BINS, np.uint32)
        if len(fields["counts"]):
            first = int(fields["first_bin"][0])
            counts[first : first + len(fields["counts"])] = fields["counts"]
        record |= {
            "frequency": count / self.seen if self.seen else None,
            "max_activation": largest,
            "histogram": histogram.shown(counts),
            "quantiles": histogram.quantiles(counts, largest),
            "examples": self._examples(fields, largest, text),
            "decoder_norms": [
                [layer, short(x)] for layer, x in zip(self.writes, fields["norms"], strict=False)
            ],
        }
        half = len(fields["logits"]) // 2
        pairs = [
            [text(int(token)), short(x)]
            for token, x in zip(fields["logits"], fields["logit_values"], strict=True)
        ]
        record["top_logits"], record["bottom_logits"] = pairs[:half], pairs[half:]
        record["neighbours"] = [
            {"layer": int(layer), "index": int(other), "cosine": short(x), "label": ""}
            for layer, other, x in zip(
                fields["neighbour_layers"], fields["neighbours"], fields["cosines"], strict=True
            )
        ]
        record["coactive"] = [
            {"layer": int(layer), "index": int(other), "value": short(x)}
            for layer, other, x in zip(
                fields["coactive_layers"], fields["coactive"], fields["coactive_values"], strict=True
            )
        ]
        return record

    def _examples(self, fields: dict[str, np.ndarray], largest: float, text: Any) -> list[dict[str, Any]]:
        groups, number, token, active = [], 0, 0, 0
        for name, count in zip(self.groups, fields["groups"], strict=False):
            examples = []
            for _ in range(int(count)):
                length, few = int(fields["lengths"][number]), int(fields["active"][number])
                values = np.zeros(length)
                values[fields["where"][active : active + few]] = fields["values"][active : active + few]
                examples.append(
                    {
                        "tokens": [text(int(t)) for t in fields["tokens"][token : token + length]],
                        "values": [short(x * largest) for x in values],
                        "at": int(fields["at"][number]),
                        "where": self._place(fields, number),
                        "repeats": int(fields["repeats"][number]),
                    }
                )
                number, token, active = number + 1, token + length, active + few
            if examples:
                groups.append({"name": name, "examples": examples})
        return groups

    def _place(self, fields: dict[str, np.ndarray], number: int) -> str:
        sequence, token = divmod(int(fields["place"][number]), self.length)
        document = f"document {int(fields['document'][number])}, " if len(fields["document"]) else ""
        return f"{document}sequence {sequence}, token {token}"


def short(x: Any) -> float:
    """A number with the digits that a float32 has; what is not finite as 0."""
    value = float(x)
    return float(f"{value:.7g}") if np.isfinite(value) else 0.0


def digest(folder: str | os.PathLike[str]) -> str:
    """sha256 over the files that a manifest lists, in order: what two runs must agree on."""
    found = hashlib.sha256()
    for one in sorted(Path(folder).glob("*")):
        if one.suffix == ".jidash" or one.name == MANIFEST:
            found.update(one.name.encode() + bytes.fromhex(digest_file(one)))
    return found.hexdigest()
