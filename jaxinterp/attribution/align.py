"""Which position of one prompt belongs to which of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher

import numpy as np

from jaxinterp.core.errors import InputError, near

WAYS = ("end", "start", "tokens")
Alignment = str | Mapping[int, int] | Iterable[tuple[int, int]]


def align_positions(a: Sequence[int], b: Sequence[int], align: Alignment = "end") -> np.ndarray:
    """The position in prompt B of each position in prompt A.

    Args:
      a, b: token ids [T_a], [T_b].
      align: "end" pairs positions as far from the end, "start" as far from the beginning. "tokens" pairs equal tokens
        in order (the longest common blocks), and between them tokens replaced by others counted from the end of the
        replaced stretch. Or pairs (position in A, position in B); negative ones count from the end.

    Returns:
      [T_a] position in B, -1 where there is none.

    Raises:
      InputError: an unknown way, a position outside its prompt, or one that is given twice.
    """
    found = np.full(len(a), -1, np.int64)
    if isinstance(align, str):
        if align not in WAYS:
            raise InputError(
                f"align is {align!r}{near(align, WAYS)}, expected one of {', '.join(WAYS)}, or pairs"
            )
        n = min(len(a), len(b))
        if align == "start":
            found[:n] = np.arange(n)
        elif align == "end":
            found[len(a) - n :] = np.arange(len(b) - n, len(b))
        else:
            for _, a0, a1, b0, b1 in SequenceMatcher(None, list(a), list(b), autojunk=False).get_opcodes():
                n = min(a1 - a0, b1 - b0)
                found[a1 - n : a1] = np.arange(b1 - n, b1)
        return found
    pairs = align.items() if isinstance(align, Mapping) else align
    taken: set[int] = set()
    for pair in pairs:
        try:
            here, there = (one.__index__() for one in pair)
        except (TypeError, ValueError, AttributeError):
            raise InputError(f"align: expected pairs of positions, not {pair!r:.60}") from None
        places = []
        for one, tokens, name in ((here, a, "first"), (there, b, "second")):
            at = one + len(tokens) if one < 0 else one
            if not 0 <= at < len(tokens):
                raise InputError(
                    f"align: position {one} is outside the {name} prompt of {len(tokens)} tokens"
                )
            places.append(at)
        if found[places[0]] >= 0 or places[1] in taken:
            raise InputError(f"align: the pair {here}, {there} has a position that another pair has")
        found[places[0]] = places[1]
        taken.add(places[1])
    return found
