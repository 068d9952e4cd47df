"""Where other programs say that a dictionary reads and writes: their names and our sites."""

from __future__ import annotations

import re
from pathlib import Path

from jaxinterp.core.errors import InputError

TRANSFORMER_LENS = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "attn_normalized": "blocks.{}.ln1.hook_normalized",
    "attn_z": "blocks.{}.attn.hook_z",
    "attn_out": "blocks.{}.hook_attn_out",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "mlp_normalized": "blocks.{}.ln2.hook_normalized",
    "mlp_in": "blocks.{}.mlp.hook_in",
    "mlp_out_raw": "blocks.{}.mlp.hook_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "resid_post": "blocks.{}.hook_resid_post",
}
"""Names of TransformerLens. Its ``hook_mlp_in`` is the residual stream before the MLP's norm."""
_LENS = re.compile(r"blocks\.(\d+)\.(.+)")
_LENS_SITES = {
    **{name.removeprefix("blocks.{}."): site for site, name in TRANSFORMER_LENS.items()},
    "hook_mlp_in": "resid_mid",
}
# A module of a Hugging Face model: any stem, "layers" or "h", the layer, what is inside it.
_MODULE = re.compile(r"(?:[a-z_]+\.)*?(?:layers|h|blocks)\.(\d+)(?:\.(.+))?")
_OUTPUTS = {
    None: "resid_post",
    "mlp": "mlp_out_raw",
    "self_attn": "attn_out_raw",
    "attn": "attn_out_raw",
    "attention": "attn_out_raw",
    "post_feedforward_layernorm": "mlp_out",
    "pre_feedforward_layernorm": "mlp_in",
}
_INPUTS = {
    None: "resid_pre",
    "mlp": "mlp_in",
    "self_attn.o_proj": "attn_z",
    "pre_feedforward_layernorm": "resid_mid",
}


def lens_site(name: object, where: Path, field: str) -> tuple[str, int]:
    """The site and layer of a TransformerLens hook such as ``blocks.3.hook_resid_post``.

    Raises:
      InputError: no such hook, or one that is none of our sites.
    """
    match = _LENS.fullmatch(name) if isinstance(name, str) else None
    if match is None or match.group(2) not in _LENS_SITES:
        known = ", ".join(v.format("0") for v in TRANSFORMER_LENS.values())
        raise InputError(f"{where}: {field} is {name!r}, expected a hook of a layer such as {known}")
    return _LENS_SITES[match.group(2)], int(match.group(1))


def lens_name(site: str, layer: int) -> str | None:
    """The TransformerLens hook of a site, or None where it has none."""
    return TRANSFORMER_LENS[site].format(layer) if site in TRANSFORMER_LENS else None


def module_site(name: object, where: Path, field: str, side: str = "output") -> tuple[str, int]:
    """The site and layer of a module of a Hugging Face model, such as ``model.layers.3.mlp``.

    Args:
      side: "input" or "output", where the name does not end in one of them.

    Raises:
      InputError: no such module, or one whose input or output is none of our sites.
    """
    stem = name if isinstance(name, str) else ""
    for end in ("input", "output"):
        if stem.endswith(f".{end}"):
            stem, side = stem.removesuffix(f".{end}"), end
    match = _MODULE.fullmatch(stem)
    if match is not None:
        table = _INPUTS if side == "input" else _OUTPUTS
        if match.group(2) in table:
            return table[match.group(2)], int(match.group(1))
    raise InputError(
        f"{where}: {field} is {name!r}, expected a layer or a part of one, such as layers.0, layers.0.mlp or "
        "model.layers.0.self_attn.o_proj.input"
    )


def module_name(site: str, layer: int) -> tuple[str, str] | None:
    """The module and the side of it ("input", "output") where a site is, or None."""
    for table, side in ((_OUTPUTS, "output"), (_INPUTS, "input")):
        for module, found in table.items():
            if found == site:
                return f"layers.{layer}" + (f".{module}" if module else ""), side
    return None
