"""Which sites published dictionaries read and write, by the names of those who published them.

A model's MLP can be read before its norm, between the norm's division and its gain, or after both; its output can be
taken before or after a post-norm (Gemma-2, Gemma-3, OLMo-2). Dictionaries of different origin differ in this, and one
read at the wrong place computes numbers without a sign that anything is wrong.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

from jaxinterp.core.errors import InputError, near


class Sites(NamedTuple):
    """A choice of sites; ``DictionaryConfig(..., **sites._asdict())`` takes it."""

    read_site: str
    write_site: str


PRESETS = MappingProxyType(
    {
        # *Circuit Tracing*, "Building an interpretable replacement model"; circuit-tracer's CLTs (hook_resid_mid).
        "circuit-tracing": Sites("resid_mid", "mlp_out"),
        "circuit-tracer-clt": Sites("resid_mid", "mlp_out"),
        # circuit-tracer's transcoder sets of Llama and Qwen3 (mlp.hook_in, mlp.hook_out).
        "circuit-tracer-plt": Sites("mlp_in", "mlp_out_raw"),
        # Gemma Scope's transcoders (ln2.hook_normalized, hook_mlp_out): before the norm's gain, after the post-norm.
        "gemma-scope-1": Sites("mlp_normalized", "mlp_out"),
        # Gemma Scope 2 (pre_feedforward_layernorm.output, post_feedforward_layernorm.output): after the gain.
        "gemma-scope-2": Sites("mlp_in", "mlp_out"),
    }
)


def preset(name: str) -> Sites:
    """The sites of a named convention.

    Raises:
      InputError: no such name; those that exist are listed.
    """
    if name not in PRESETS:
        raise InputError(f"no sites called {name!r}{near(name, PRESETS)}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
