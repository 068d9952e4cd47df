"""One feature's entry in a dashboards file: its arrays one after another, deflated.

Of each array in `FIELDS` there is its length, all lengths first (uint32), then the arrays in that order. "token" and
"float" are the types that the file's header names: of token ids uint16 or uint32, of real numbers float32 or float16.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from jaxinterp.core.errors import InputError

FIELDS = {
    "first_bin": "u2",  # 1: the bin of the first count
    "counts": "u4",  # of the histogram, from that bin to the last that is not empty
    "groups": "u2",  # how many examples each group of the header has, in order
    "lengths": "u2",  # tokens of each example
    "at": "u2",  # the place of its peak
    "place": "i8",  # the peak's number among the tokens of the run: sequence times length plus place in it
    "document": "i4",  # of each example, where the text has documents, else empty
    "position": "i4",  # of the peak in its document, or in what of it stands in the sequence, likewise
    "repeats": "u4",  # how often the text of each example came
    "tokens": "token",  # of all examples, one after another
    "active": "u2",  # how many tokens of each example are not zero
    "where": "u2",  # which they are, of all examples
    "values": "float",  # and what, as shares of the feature's largest activation
    "logits": "u4",  # token ids, the top ones and as many bottom ones
    "logit_values": "float",
    "norms": "float",  # of decoders into each layer of the header's "writes"
    "neighbour_layers": "u2", "neighbours": "u4", "cosines": "float",
    "coactive_layers": "u2", "coactive": "u4", "coactive_values": "float",
}  # fmt: skip
MOST = 1 << 28
"""Bytes that an entry may inflate to."""


def pack(fields: Mapping[str, np.ndarray], token: str, real: str) -> bytes:
    """The entry of a feature; fields that are left out are empty."""
    pieces, lengths = [], []
    for name, kind in FIELDS.items():
        dtype = np.dtype({"token": token, "float": real}.get(kind, kind)).newbyteorder("<")
        array = np.asarray(fields.get(name, ())).astype(dtype)
        lengths.append(len(array))
        pieces.append(array.tobytes())
    plain = np.array(lengths, "<u4").tobytes() + b"".join(pieces)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(plain) + deflate.flush()


def unpack(data: bytes, token: str, real: str, where: str) -> dict[str, np.ndarray]:
    """The arrays of an entry, checked against each other.

    Raises:
      InputError: what is there is no entry; ``where`` says which.
    """
    inflate = zlib.decompressobj(-15)
    try:
        plain = inflate.decompress(data, MOST)
    except zlib.error as error:
        raise InputError(f"{where} is damaged: {error}") from error
    if not inflate.eof:
        raise InputError(f"{where} is damaged: it is cut off, or larger than {MOST} bytes")
    kinds = [
        np.dtype({"token": token, "float": real}.get(kind, kind)).newbyteorder("<")
        for kind in FIELDS.values()
    ]
    begin = 4 * len(FIELDS)
    lengths = [int(n) for n in np.frombuffer(plain[:begin], "<u4")] if len(plain) >= begin else []
    needed = begin + sum(n * kind.itemsize for n, kind in zip(lengths, kinds, strict=False))
    if len(lengths) < len(FIELDS) or needed != len(plain):
        raise InputError(f"{where} is damaged: {len(plain)} bytes, its arrays have {needed}")
    found = {}
    for name, length, kind in zip(FIELDS, lengths, kinds, strict=True):
        found[name] = np.frombuffer(plain, kind, length, begin)
        begin += length * kind.itemsize
    if problem := _disagree(found):
        raise InputError(f"{where} is damaged: {problem}")
    return found


def _disagree(found: dict[str, np.ndarray]) -> str | None:
    examples = len(found["lengths"])
    for name in ("at", "place", "repeats", "active"):
        if len(found[name]) != examples:
            return f"{len(found[name])} {name} of {examples} examples"
    for name in ("document", "position"):
        if len(found[name]) not in (0, examples):
            return f"{len(found[name])} {name} of {examples} examples"
    for one, other in (
        ("where", "values"), ("logits", "logit_values"), ("neighbours", "cosines"), ("neighbours", "neighbour_layers"),
        ("coactive", "coactive_values"), ("coactive", "coactive_layers"),
    ):  # fmt: skip
        if len(found[one]) != len(found[other]):
            return f"{len(found[one])} {one} and {len(found[other])} {other}"
    lengths, active = found["lengths"].astype(np.int64), found["active"].astype(np.int64)
    if lengths.sum() != len(found["tokens"]) or active.sum() != len(found["where"]):
        return "its examples do not add up"
    if (found["at"] >= lengths).any() or (found["where"] >= np.repeat(lengths, active)).any():
        return "a place lies outside its example"
    if found["groups"].astype(np.int64).sum() != examples:
        return "its groups do not add up"
    if len(found["counts"]) and (
        len(found["first_bin"]) != 1 or found["first_bin"][0] + len(found["counts"]) > 512
    ):
        return "its histogram does not fit the axis"
    return None
