"""A contrast as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.kinds import (
    BIAS,
    BIAS_NAMES,
    EMBEDDING,
    FEATURE,
    KIND_NAMES,
    MLP_PART,
    PART_NAMES,
    TARGET,
)
from jaxinterp.graphs.report import fit
from jaxinterp.graphs.report import table as columns

if TYPE_CHECKING:
    from jaxinterp.attribution.contrast import Contrast


def table(found: Contrast, row: int, top: int, width: int) -> str:
    """Row ``row`` of a contrast: values, and the ``top`` nodes with the largest difference, ``width`` columns."""
    if not 0 <= row < len(found):
        raise InputError(f"row {row}: the contrast has rows 0 to {len(found) - 1}")
    record = found.rows[row]
    nodes, change = found.differences(row)
    effects = found.effects[found.indptr[row] : found.indptr[row + 1]]
    place = {int(node): i for i, node in enumerate(found.indices[found.indptr[row] : found.indptr[row + 1]])}
    lines = [
        fit(
            f"{name(found, int(record['node']))}: {record['value_a']:+.4f} in A, {record['value_b']:+.4f} in B, "
            f"difference {found.value(row):+.4f}",
            width,
        )
    ]
    cells = []
    for node, step in list(zip(nodes.tolist(), change.tolist(), strict=True))[:top]:
        one, two = effects[place[node]]
        cells.append([f"{step:+.4f}", f"{one:+.4f}", f"{two:+.4f}", name(found, node)])
    lines += columns(["A - B", "A", "B", "source"], cells, {0, 1, 2}, width)
    rest = [f"{len(nodes) - len(cells)} more sources {float(change[top:].sum()):+.4f}"]
    for what in ("constant", "left_out"):
        step = float(record[f"{what}_a"] - record[f"{what}_b"])
        if step:
            rest.append(f"{what.replace('_', ' ')} {step:+.4f}")
    if any(found.facts.get("pruned", ())):
        rest.append(f"pruned away {found.remainder(row):+.4f}")
    return "\n".join([*lines, fit(", ".join(rest), width)])


def name(found: Contrast, node: int) -> str:
    """A node of a contrast in a few words, with its positions in both prompts."""
    record = found.nodes[node]
    kind, layer = int(record["kind"]), int(record["layer"])
    places = [int(record[f"position_{side}"]) for side in "ab"]
    if min(places) < 0:
        at = f"@{max(places)} of {'A' if places[0] >= 0 else 'B'} only"
    else:
        at = f"@{places[0]}" + (f"/{places[1]}" if places[0] != places[1] else "")
    part = "" if record["part"] == MLP_PART else f" {PART_NAMES[record['part']]}"
    label = found.labels[node]
    if kind == TARGET:
        return f'"{label}" {at}'
    if kind == EMBEDDING:
        side = 0 if places[0] >= 0 else 1
        return f'token "{found.tokens[side][places[side]]}" {at}'
    if kind == FEATURE:
        return f"L{layer}{part}/{record['index']} {at}" + (f" {label}" if label else "")
    if kind == BIAS:
        index = int(record["index"])
        return f"{BIAS_NAMES[index] if 0 <= index < len(BIAS_NAMES) else 'other'} bias L{layer}{part} {at}"
    return f"{KIND_NAMES[kind]} L{layer}{part} {at}"
