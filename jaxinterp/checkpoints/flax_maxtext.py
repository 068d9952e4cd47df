"""The layout of MaxText's Llama.

Read from its modules and its conversion programs (AI-Hypercomputer/maxtext: layers/llama2.py, attentions.py,
embeddings.py, decoders.py, llama_or_mistral_ckpt.py): one array for all layers with their axis at ``param_scan_axis``,
or ``layers_0``, ``layers_1``, ...; kernels (D, H, E); no factor on attention scores, which is inside the query kernel:
theirs is ours times ``score_scale``. Rotary pairs are half a head apart with ``rope_type: default`` and neighbours with
``llama3.1``, which MaxText also takes for every model whose name begins with llama3.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxinterp.checkpoints.flax_layout import Leaf, nest, only
from jaxinterp.checkpoints.flax_tree import Stored
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig

ROPE_TYPES = {"default": "half", "llama3.1": "adjacent"}
_LAYER = re.compile(r"decoder/layers_(\d+)/")
_SCANNED = "decoder/layers/"


@dataclass(frozen=True)
class MaxText:
    """Settings of MaxText that its trees do not show, and the form to write.

    Attributes:
      rope_type: MaxText's setting, "default" or "llama3.1". None is refused where a model is read or written with a
        config of one's own.
      normalize_embedding_logits: MaxText's setting for models that share their embedding: logits divided by the root
        of D, which becomes part of the gain of the final norm. None is refused for such models.
      scanned: whether layers share arrays (``scan_layers``); read off the tree.
      scan_axis: where their axis is (``param_scan_axis``).
    """

    rope_type: str | None = None
    normalize_embedding_logits: bool | None = None
    scanned: bool = True
    scan_axis: int = 1
    name: str = "maxtext"

    def __post_init__(self) -> None:
        if self.rope_type is not None and self.rope_type not in ROPE_TYPES:
            raise InputError(
                f"maxtext layout: rope_type is {self.rope_type!r}, supported are {', '.join(ROPE_TYPES)}"
            )
        if self.scan_axis not in (0, 1):
            raise InputError(f"maxtext layout: scan_axis is {self.scan_axis!r}, expected 0 or 1")

    def bare(self, name: str) -> str | None:
        """The path itself."""
        return name

    def seen(self, leaves: Mapping[str, Stored], config: ModelConfig) -> MaxText:
        """Scanned or not, as the tree shows it; the rest has to be said."""
        scanned = any(name.startswith(_SCANNED) for name in leaves)
        return replace(self, scanned=scanned)

    def fields(self, leaves: Mapping[str, Stored]) -> dict[str, Any]:
        """What the tree says of the config, and what the modules fix."""
        scanned = any(name.startswith(_SCANNED) for name in leaves)
        at = _SCANNED if scanned else "decoder/layers_0/"
        names = ("self_attention/query/kernel", "self_attention/key/kernel", "mlp/wi_0/kernel")
        found = [leaves[at + name].shape for name in names if at + name in leaves]
        table = leaves.get("token_embedder/embedding")
        if table is None or len(table.shape) != 2 or [len(s) - scanned for s in found] != [3, 3, 2]:
            raise InputError(
                "this is not a tree of the maxtext layout: it lacks token_embedder/embedding or decoder/layers/ "
                f"with {', '.join(names)}, and has {', '.join(sorted(leaves)[:4]) or 'nothing'}"
            )
        norm = leaves.get(_SCANNED + "pre_self_attention_layer_norm/scale")
        axis, d = self.scan_axis, table.shape[1]
        if norm is not None and norm.shape[1 - axis] != d and norm.shape[axis] == d:
            raise InputError(
                f"the maxtext layout: the axis of layers is {1 - axis} in this tree, not {axis}: give "
                f"layout=MaxText(scan_axis={1 - axis}, ...)"
            )
        query, key, gate = found
        layers = [int(match[1]) for name in leaves if (match := _LAYER.match(name))]
        return {
            "vocab_size": table.shape[0], "d_model": table.shape[1],
            "n_layers": query[self.scan_axis] if scanned else max(layers) + 1,
            "n_heads": query[-2], "n_kv_heads": key[-2], "d_head": query[-1], "d_mlp": gate[-1], "norm": "rms",
            "activation": "silu", "tied": "decoder/logits_dense/kernel" not in leaves, "query_scale": 1.0,
        }  # fmt: skip

    def check(self, config: ModelConfig) -> None:
        """`InputError` for a config that no model of this layout has, or a setting that has to be said."""
        only(config, self.name, {
            "norm": ("rms",), "norm_unit_offset": (False,), "pre_norms": (True,), "post_norms": (False,),
            "parallel": (False,), "activation": ("silu",), "gated": (True,), "positions": ("rope",),
            "rope_width": (None, config.d_head), "rope_local_base": (None,), "qk_norm": (None,), "sinks": (False,),
            "latent": (None,), "experts": (None,), "qkv_bias": (False,), "out_bias": (False,), "mlp_bias": (False,),
            "attn_softcap": (None,), "final_softcap": (None,), "windows": ((), (0,) * config.n_layers),
            "embed_scale": (1.0,),
        })  # fmt: skip
        if self.rope_type is None:
            raise InputError(
                "a maxtext tree does not show which entries of a head turn together: give "
                "layout=MaxText(rope_type=...) with MaxText's own setting, 'default' or 'llama3.1' (which it takes "
                "for models named llama3.1 too)"
            )
        scaling = config.rope_scaling
        if scaling is not None and (self.rope_type, scaling.kind) != ("llama3.1", "llama3"):
            raise InputError(
                f"MaxText with rope_type {self.rope_type!r} has no rope scaling of the kind {scaling.kind}: "
                "llama3 goes with llama3.1"
            )
        if config.tied and self.normalize_embedding_logits is None:
            raise InputError(
                "this maxtext tree has no logits_dense: its logits come from the embedding, and whether they are "
                "divided by the root of the width does not show: give "
                "layout=MaxText(normalize_embedding_logits=...) with MaxText's own setting (its default is True)"
            )

    def table(self, config: ModelConfig) -> list[Leaf]:
        """Every stored leaf."""
        divided = config.tied and self.normalize_embedding_logits
        found = [
            Leaf("embed.tokens", "token_embedder/embedding", "v d -> v d"),
            Leaf(
                "final_norm.scale", "decoder/decoder_norm/scale", "d -> d",
                factor=config.d_model**0.5 if divided else 1.0,
            ),
        ]  # fmt: skip
        if not config.tied:
            found.append(Leaf("unembed", "decoder/logits_dense/kernel", "d v -> d v"))
        if self.scanned:
            return found + self._layer(config, _SCANNED, tuple(range(config.n_layers)))
        for layer in range(config.n_layers):
            found += self._layer(config, f"decoder/layers_{layer}/", (layer,))
        return found

    def _layer(self, config: ModelConfig, at: str, layers: tuple[int, ...]) -> list[Leaf]:
        def leaf(ours: str, stored: str, axes: str, factor: float = 1.0, turned: bool = False) -> Leaf:
            pattern = f"{axes} -> {axes}"
            if self.scanned:
                letters = axes.split()
                pattern = (
                    " ".join([*letters[: self.scan_axis], "l", *letters[self.scan_axis :]]) + f" -> l {axes}"
                )
            theirs = ROPE_TYPES[self.rope_type or "default"]
            pairs = (theirs, config.rope_pairs) if turned and theirs != config.rope_pairs else None
            return Leaf(f"layers.{ours}", at + stored, pattern, layers, None, factor, pairs)

        return [
            leaf("q", "self_attention/query/kernel", "d h e", config.score_scale, turned=True),
            leaf("k", "self_attention/key/kernel", "d k e", turned=True),
            leaf("v", "self_attention/value/kernel", "d k e"),
            leaf("o", "self_attention/out/kernel", "h e d"),
            leaf("gate", "mlp/wi_0/kernel", "d m"),
            leaf("up", "mlp/wi_1/kernel", "d m"),
            leaf("down", "mlp/wo/kernel", "m d"),
            leaf("attn_norm.scale", "pre_self_attention_layer_norm/scale", "d"),
            leaf("mlp_norm.scale", "post_self_attention_layer_norm/scale", "d"),
        ]

    def nested(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The tree below ``params``."""
        return nest(arrays)
