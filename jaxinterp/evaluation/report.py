"""The record of an evaluation as a table for people."""

from __future__ import annotations

from typing import Any

COLUMNS = (
    ("FVE", "fve", "{:.4f}"),
    ("NMSE", "nmse", "{:.4f}"),
    ("cosine", "cosine", "{:.4f}"),
    ("length", "norm_ratio", "{:.3f}"),
    ("L0", "l0", "{:.1f}"),
    ("L1", "l1", "{:.2f}"),
)
MISSING = "-"


def report(record: dict[str, Any]) -> str:
    """Lines of text: what was measured, a line a layer, sums, predictions, and the comparison if there is one."""
    own, figures = record["dictionary"], record["figures"]
    layers = own["layers"] or list(range(own["n_layers"]))
    lines = [
        f"{own['name'] or 'dictionary'}: {own['kind']}, {own['n_features']} features, {own['read_site']} to "
        f"{own['write_site']}, on {record['text']['tokens']:,} tokens",
        "",
    ]
    lines += _table(_layer_rows(record, layers))
    pooled, mean = figures["pooled_fve"], figures["mean_fve"]
    lines += [
        "",
        f"FVE {_number(pooled)} pooled, {_number(mean)} mean of layers; L0 {_number(figures['mean_l0'], '{:.2f}')}; "
        f"dead {figures['dead']:.1%}, dense {figures['dense']:.1%} of features",
    ]
    if "ce_clean" in figures:
        lines += ["", *_predictions(figures)]
    if "against" in record:
        lines += ["", *_comparison(record["against"])]
    return "\n".join(lines)


def _layer_rows(record: dict[str, Any], layers: list[int]) -> list[list[str]]:
    figures = record["figures"]
    alone = {entry["layer"]: entry for entry in figures.get("each_layer", [])}
    groups = len(figures["l0"])
    head = ["layer", *(name for name, _, _ in COLUMNS), "dead", "dense"]
    jacobian = record.get("jacobian")
    head += ["Jacobian"] if jacobian else []
    ablations = [name for name in ("zero", "mean") if alone and name in alone[layers[0]]]
    head += ["CE gap", "KL", *(f"CE/{name}" for name in ablations)] if alone else []
    rows = [head]
    for i, layer in enumerate(layers):
        group = i if groups == len(layers) else 0
        row = [str(layer)]
        for _, name, form in COLUMNS:
            row.append(_number(figures[name][group if name in ("l0", "l1") else i], form))
        row += [f"{record[name][group]:.1%}" for name in ("dead_by_group", "dense_by_group")]
        if jacobian:
            row.append(_number(jacobian["jacobian_cosine"][i], "{:.3f}"))
        if alone:
            entry = alone[layer]
            row += [
                _number(entry["ce_replaced"] - figures["ce_clean"]),
                _number(entry["kl_replaced"]),
                *(_number(entry[name]["ce_recovered"], "{:.3f}") for name in ablations),
            ]
        rows.append(row)
    return rows


def _predictions(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"next token: cross-entropy {figures['ce_clean']:.4f}, replaced {figures['ce_replaced']:.4f} "
        f"(+{figures['ce_gap']:.4f}); KL {figures['kl_replaced']:.4f}; same best token "
        f"{figures['top1_agreement']:.1%}, of confident ones {_number(figures['confident_agreement'], '{:.1%}')}"
    ]
    for name in ("zero", "mean"):
        if name in figures:
            entry = figures[name]
            lines.append(
                f"  against {name} ablation ({entry['ce']:.4f}): cross-entropy recovered "
                f"{_number(entry['ce_recovered'])}, KL recovered {_number(entry['kl_recovered'])}"
            )
    return lines


def _comparison(found: dict[str, Any]) -> list[str]:
    rows = [["layer", "measure", "mean best", "chance", "above chance", "one to one"]]
    for entry in found["layers"]:
        for measure in ("decoders", "activations"):
            if measure in entry:
                own = entry[measure]
                rows.append(
                    [
                        MISSING if entry["layer"] is None else str(entry["layer"]),
                        measure,
                        _number(own["mean_best"], "{:.3f}"),
                        _number(own["null_mean_best"], "{:.3f}"),
                        f"{own['above_null_99']:.1%}",
                        _number(own["one_to_one"]["mean"], "{:.3f}"),
                    ]
                )
    lines = [f"against {found['against']}:", *_table(rows)]
    for entry in found["layers"]:
        if "splitting" in entry:
            own = entry["splitting"]
            lines.append(
                f"  layer {entry['layer']}: of {own['coarse_features']} features {own['covered']:.1%} are covered and "
                f"{own['split']:.1%} split among {own['fine_features']}, of which {own['new']:.1%} are new"
            )
    if "decoders_not_compared" in found:
        lines.append(f"  decoders are not compared: {found['decoders_not_compared']}")
    return lines


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _number(value: float | None, form: str = "{:.4f}") -> str:
    return MISSING if value is None else form.format(value)
