"""Llamascopium's low-rank sparse attention: ``config.json`` with ``sae_type: lorsa`` and ``sae_weights.safetensors``.

``W_Q, W_K [Q, D, E]``, ``b_Q, b_K [Q, E]``, ``W_V, W_O [N, D]``, ``b_V [N]``, ``b_D [D]``, gains ``ln_q.w, ln_k.w
[Q, E]`` where queries and keys are normed; the buffers ``mask``, ``IGNORE``, ``rotary_sin``, ``rotary_cos`` say nothing
new. Its ``attn_scale`` divides scores. Scaling to the data's average length and thresholds times decoder length are as
in `llamascopium`. One file is one layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.attention import Attention
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import single, tensors
from jaxinterp.dictionaries.formats.fields import Fields
from jaxinterp.dictionaries.formats.llamascopium_common import (
    AVERAGE,
    CONFIG,
    TENSORS,
    THRESHOLD,
    header,
    is_type,
    logarithms,
    refuses_sites,
    scale,
    written_fields,
)
from jaxinterp.models.rotary import RopeScaling

NAME = "llamascopium-lorsa"
BUFFERS = ("mask", "IGNORE", "rotary_sin", "rotary_cos")
CONTEXT = 2048
"""``n_ctx`` of what is written: the program sizes its buffers by it; the dictionary itself has no limit."""


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's two files, of a Lorsa."""
    return is_type(path, "lorsa")


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a Llamascopium folder with a Lorsa.

    Raises:
      InputError: another type, an activation function, embedding, norm or hook that is not understood, a missing,
        unknown or wrong field or tensor, or a damaged file.
    """
    head, kind = header(path, "lorsa"), np.dtype(dtype)
    fields, activation, by_length = head.fields, head.activation, head.by_length
    if fields.get("use_smolgen", bool, False) or fields.get("skip_bos", bool, False):
        raise InputError(f"{fields.where}: use_smolgen and skip_bos are not supported")
    attention, d = _attention(fields), fields.size("d_model")
    q, e = attention.heads, attention.width
    with tensors.reading(path / TENSORS) as file:
        by = [scale(file, name, d, head.norm) for name in head.hooks]
        n = file.sizes("W_V", ("features", "width"))[0]
        arrays = {
            "W_enc": file.take("W_V", (n, d), kind),
            "b_enc": file.take("b_V", (n,), kind),
            "W_dec": file.take("W_O", (n, d), kind),
            "W_q": file.take("W_Q", (q, d, e), kind),
            "W_k": file.take("W_K", (q, d, e), kind),
            "b_q": file.take("b_Q", (q, e), kind),
            "b_k": file.take("b_K", (q, e), kind),
            "b_dec": np.zeros(d, kind),
        }
        if fields.get("use_decoder_bias", bool, True):
            arrays["b_dec"] = file.take("b_D", (d,), kind)
        if attention.qk_norm != "none":
            arrays |= {f"{side}_norm": file.take(f"ln_{side}.w", (q, e), kind) for side in ("q", "k")}
        if activation == "jumprelu":
            threshold = np.exp(file.take(THRESHOLD, (n,), kind))
            if by_length:
                length = single.norms(arrays)
                if not (length > 0).all():
                    raise InputError(f"{file.path}: W_O has a row of length zero, its threshold is unknown")
                threshold = (threshold / length).astype(kind)
            arrays["threshold"] = threshold
        file.ignore(*BUFFERS, *(name for name in file.names if name.startswith(AVERAGE)))
        file.finish((THRESHOLD,))
    for name, factor in (
        *((name, by[0]) for name in ("W_enc", "W_q", "W_k")), *((name, 1 / by[1]) for name in ("W_dec", "b_dec")),
    ):  # fmt: skip
        arrays[name] = (arrays[name] * factor).astype(kind)
    k = fields.size("top_k") if activation == "topk" else 0
    config = DictionaryConfig(
        "lorsa", 1, n, d, activation=activation, k=k, ranked=by_length and bool(k), read_site=head.sites[0],
        write_site=head.sites[1], layers=(head.layer,), attention=attention,
    )  # fmt: skip
    return config, {name: value[None] for name, value in arrays.items()}


def _attention(fields: Fields) -> Attention:
    """``LorsaConfig``'s fields about attention; ``rotary_dim`` says how many entries turn."""
    where, e = fields.where, fields.size("d_qk_head")
    kind = fields.get("positional_embedding_type", str, "rotary")
    if kind not in ("rotary", "none"):
        raise InputError(f"{where}: positional_embedding_type is {kind!r}, expected rotary or none")
    norm = "none"
    if fields.get("use_post_qk_ln", bool, False):
        norm = fields.get("normalization_type", str).lower()
        if norm != "rms":
            raise InputError(f"{where}: normalization_type is {norm.upper()!r}, expected RMS")
    if fields.get("rotary_scale", int, 1) != 1:
        raise InputError(f"{where}: rotary_scale is {fields.get('rotary_scale', int)}, expected 1")
    divisor = fields.get("attn_scale", float, e**0.5)
    if not divisor > 0:
        raise InputError(f"{where}: attn_scale is {divisor}, expected a positive number")
    usual = abs(divisor - e**0.5) < 1e-12 * divisor
    turns = fields.size("rotary_dim", e)
    scaling = None
    if kind == "rotary" and fields.get("use_NTK_by_parts_rope", bool, False):
        scaling = RopeScaling(
            "llama3", float(fields.get("NTK_by_parts_factor", float, 1.0)),
            fields.size("old_context_len", CONTEXT),
            low=float(fields.get("NTK_by_parts_low_freq_factor", float, 1.0)),
            high=float(fields.get("NTK_by_parts_high_freq_factor", float, 1.0)),
        )  # fmt: skip
    return Attention(
        fields.size("n_qk_heads"), e, scale=None if usual else 1 / divisor,
        rope_base=float(fields.get("rotary_base", float, 10000)) if kind == "rotary" else None,
        rope_pairs="adjacent" if fields.get("rotary_adjacent_pairs", bool, True) else "half",
        rope_width=None if turns == e or kind == "none" else turns, rope_scaling=scaling, qk_norm=norm,
        eps=float(fields.get("eps", float, 1e-6)),
    )  # fmt: skip


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    attention = config.attention
    if config.kind != "lorsa" or config.n_layers != 1 or attention is None:
        return f"it has one layer of a lorsa, not the kind {config.kind!r} with {config.n_layers} layers"
    if (why := refuses_sites(config)) is not None:
        return why
    if attention.softcap is not None or any(attention.window) or attention.qk_gain_offset:
        return "it has nothing for a softcap, a window or a gain that is added to one"
    if attention.rope_scaling is not None and attention.rope_scaling.kind != "llama3":
        return f"it has nothing for rotary scaling of the kind {attention.rope_scaling.kind}"
    if attention.rope_base is not None and attention.rope_base != round(attention.rope_base):
        return f"its rotary base is a whole number, not {attention.rope_base}"
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a Lorsa of one layer; ``folder`` must exist.

    Raises:
      InputError: a value that ``dtype`` cannot hold, or a threshold that is not positive.
    """
    attention = config.attention
    assert attention is not None
    stored = {name: value[0] for name, value in tensors.host(params, dtype).items()}
    names = {"W_V": "W_enc", "b_V": "b_enc", "W_O": "W_dec", "b_D": "b_dec", "W_Q": "W_q", "W_K": "W_k"}
    names |= {"b_Q": "b_q", "b_K": "b_k"}
    normed = attention.qk_norm != "none"
    if normed:
        names |= {"ln_q.w": "q_norm", "ln_k.w": "k_norm"}
    values = {theirs: stored[ours] for theirs, ours in names.items()}
    if config.activation == "jumprelu":
        values[THRESHOLD] = logarithms(stored["threshold"], NAME)
    tensors.write(folder / TENSORS, values)
    fields = written_fields(config, "lorsa", dtype) | {
        "n_qk_heads": attention.heads, "d_qk_head": attention.width, "n_ctx": CONTEXT,
        "positional_embedding_type": "none" if attention.rope_base is None else "rotary",
        "rotary_dim": attention.rope_width or attention.width, "rotary_base": int(attention.rope_base or 10000),
        "rotary_adjacent_pairs": attention.rope_pairs == "adjacent", "rotary_scale": 1,
        "attn_scale": 1 / attention.score_scale, "use_post_qk_ln": normed,
        "normalization_type": "RMS" if normed else None, "eps": attention.eps,
    }  # fmt: skip
    scaling = attention.rope_scaling
    fields["use_NTK_by_parts_rope"] = scaling is not None
    if scaling is not None:
        fields |= {
            "NTK_by_parts_factor": scaling.factor, "NTK_by_parts_low_freq_factor": scaling.low,
            "NTK_by_parts_high_freq_factor": scaling.high, "old_context_len": scaling.original_context,
        }  # fmt: skip
    write_json(folder / CONFIG, fields)
