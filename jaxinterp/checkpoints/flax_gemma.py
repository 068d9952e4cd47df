"""The layout of DeepMind's JAX Gemma: Gemma 1, 2 and 3, without images.

Read from the published modules and checkpoints (google-deepmind/gemma: gm/nn/_modules.py, gm/ckpts/_compat.py):
attention by ``q_einsum`` (H, D, E) and ``kv_einsum`` (2, K, D, E), or ``qkv_einsum`` (3, H, D, E) where every head has
its own key; ``gating_einsum`` (2, D, M), gate first, which models after Gemma 2 2B store as (2, M, D); RMS norms of
epsilon 1e-6 with a gain added to one; embeddings that enter times the root of D; rotary pairs half a head apart. The
nnx modules of Tunix (google/tunix: models/gemma, models/gemma3) have the same parameters, with an MLP in three kernels.
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

FORMS = ("nested", "flat", "stacked", "nnx")
_LAYER = re.compile(r"layer_(\d+)/")
_STACK = re.compile(r"stacked_layers/attention_type_(\d+)/")
_OTHER_PARTS = (
    "SigLiPFromPatches_0/", "vision_encoder/", "embedder/mm_input_projection/", "embedder/mm_soft_embedding_norm/",
)  # fmt: skip


@dataclass(frozen=True)
class Gemma:
    """Ways in which checkpoints of this layout differ.

    Attributes:
      form: "nested" as the linen module has its parameters, "flat" as most checkpoints were released (one dict with
        keys such as ``transformer/layer_0/attn/q_einsum``), "stacked" (flat, every ``cycle``-th layer in one array), or
        "nnx" as Tunix' modules have them. Read off the tree.
      transposed: whether ``gating_einsum`` is (2, M, D); None means as in the tree, or, for writing, as in Gemma 3.
      cycle: for "stacked": how many kinds of layers take turns, 6 in Gemma 3.
    """

    form: str = "nested"
    transposed: bool | None = None
    cycle: int = 1
    name: str = "gemma"

    def __post_init__(self) -> None:
        if self.form not in FORMS or self.cycle < 1:
            raise InputError(
                f"gemma layout: form is {self.form!r} and cycle {self.cycle}, expected {FORMS} and >= 1"
            )

    def bare(self, name: str) -> str | None:
        """The path in the text model, whichever form it is stored in; None for a part of the image model."""
        name = name.removeprefix("transformer/")
        if name.startswith(_OTHER_PARTS):
            return None
        name = re.sub(r"^layers/(\d+)/", r"layer_\1/", name).replace(
            "/post_attn_norm/", "/post_attention_norm/"
        )
        return re.sub(r"/mlp/(gating_einsum|linear)/w$", r"/mlp/\1", name)

    def seen(self, leaves: Mapping[str, Stored], config: ModelConfig) -> Gemma:
        """Stacked or not, and the order of the gate, as the tree shows them."""
        kinds = [int(found[1]) for name in leaves if (found := _STACK.match(name))]
        apart = any(name.endswith("mlp/gate_proj/kernel") for name in leaves)
        form = "stacked" if kinds else "nnx" if apart else "nested"
        gates = [leaf.shape for name, leaf in leaves.items() if name.endswith("mlp/gating_einsum")]
        transposed, d, m = self.transposed, config.d_model, config.d_mlp
        if transposed is None and gates:
            if d == m:
                raise InputError(
                    f"the gemma layout: with a width and an MLP of {d} the shape of gating_einsum does not show its "
                    "order: give layout=Gemma(transposed=...)"
                )
            transposed = gates[0][-2:] == (m, d)
        return replace(
            self, form=form, transposed=transposed, cycle=max(kinds, default=0) + 1 if kinds else 1
        )

    def fields(self, leaves: Mapping[str, Stored]) -> dict[str, Any]:
        """What the tree says of the config, and what the published modules fix."""

        def shape(end: str) -> tuple[int, ...]:
            found = [leaf.shape for name, leaf in leaves.items() if name.endswith(end)]
            return found[0] if found else ()

        table, out, down = shape("embedder/input_embedding"), shape("attn_vec_einsum/w"), shape("mlp/linear")
        down = down or shape("mlp/down_proj/kernel")
        if len(table) != 2 or len(out) < 3 or len(down) < 2:
            raise InputError(
                "this is not a tree of the gemma layout: it lacks embedder/input_embedding, attn/attn_vec_einsum/w or "
                f"mlp/linear, and has {', '.join(sorted(leaves)[:4]) or 'nothing'}"
            )
        grouped = shape("attn/kv_einsum/w")
        layers = {int(found[1]) for name in leaves if (found := _LAYER.match(name))}
        stacks = {found[0]: leaf.shape[0] for name, leaf in leaves.items() if (found := _STACK.match(name))}
        d = table[1]
        return {
            "vocab_size": table[0], "d_model": d, "n_layers": max(layers) + 1 if layers else sum(stacks.values()),
            "n_heads": out[-3], "n_kv_heads": grouped[-3] if len(grouped) >= 4 else out[-3], "d_head": out[-2],
            "d_mlp": down[-2], "norm_eps": 1e-6, "norm_unit_offset": True, "activation": "gelu_tanh", "tied": True,
            "embed_scale": d**0.5, "post_norms": bool(shape("post_ffw_norm/scale")),
            "qk_norm": "head" if shape("attn/_query_norm/scale") else None,
        }  # fmt: skip

    def check(self, config: ModelConfig) -> None:
        """`InputError` for a config that no model of this layout has."""
        only(config, self.name, {
            "norm": ("rms",), "norm_unit_offset": (True,), "norm_eps": (1e-6,), "pre_norms": (True,),
            "parallel": (False,), "activation": ("gelu_tanh",), "gated": (True,), "positions": ("rope",),
            "rope_pairs": ("half",), "rope_width": (None, config.d_head), "qk_norm": (None, "head"), "sinks": (False,),
            "latent": (None,), "experts": (None,), "qkv_bias": (False,), "out_bias": (False,), "mlp_bias": (False,),
            "tied": (True,), "embed_scale": (config.d_model**0.5,),
        })  # fmt: skip
        if config.rope_scaling is not None and config.rope_scaling.kind != "linear":
            raise InputError(f"the gemma layout has linear rope scaling only, not {config.rope_scaling.kind}")

    def table(self, config: ModelConfig) -> list[Leaf]:
        """Every stored leaf."""
        found = [
            Leaf("embed.tokens", "embedder/input_embedding", "v d -> v d"),
            Leaf("final_norm.scale", "final_norm/scale", "d -> d"),
        ]
        if self.form != "stacked":
            for layer in range(config.n_layers):
                found += self._layer(config, f"layer_{layer}/", (layer,))
            return found
        for kind in range(self.cycle):
            layers = tuple(range(kind, config.n_layers, self.cycle))
            found += self._layer(config, f"stacked_layers/attention_type_{kind}/", layers)
        return found

    def _layer(self, config: ModelConfig, at: str, layers: tuple[int, ...]) -> list[Leaf]:
        def leaf(ours: str, stored: str, pattern: str, part: int | None = None) -> Leaf:
            if self.form == "stacked":
                pattern = "l " + pattern.replace("-> ", "-> l ")
            return Leaf(f"layers.{ours}", at + stored, pattern, layers, part)

        if config.n_kv_heads == config.n_heads:
            joint = "p h d e -> p d h e"
            found = [leaf("q", "attn/qkv_einsum/w", joint, 0)]
            found += [
                leaf(n, "attn/qkv_einsum/w", joint.replace("h", "k"), i) for i, n in ((1, "k"), (2, "v"))
            ]
        else:
            found = [leaf("q", "attn/q_einsum/w", "h d e -> d h e")]
            found += [leaf(n, "attn/kv_einsum/w", "w k d e -> w d k e", i) for i, n in enumerate("kv")]
        if self.form == "nnx":
            found += [leaf(n, f"mlp/{n}_proj/kernel", "d m -> d m") for n in ("gate", "up")]
            found.append(leaf("down", "mlp/down_proj/kernel", "m d -> m d"))
        else:
            gate = "w m d -> w d m" if self.transposed in (None, True) else "w d m -> w d m"
            found += [leaf(n, "mlp/gating_einsum", gate, i) for i, n in enumerate(("gate", "up"))]
            found.append(leaf("down", "mlp/linear", "m d -> m d"))
        found += [
            leaf("o", "attn/attn_vec_einsum/w", "h e d -> h e d"),
            leaf("attn_norm.scale", "pre_attention_norm/scale", "d -> d"),
            leaf("mlp_norm.scale", "pre_ffw_norm/scale", "d -> d"),
        ]
        if config.post_norms:
            found += [
                leaf("attn_post_norm.scale", "post_attention_norm/scale", "d -> d"),
                leaf("mlp_post_norm.scale", "post_ffw_norm/scale", "d -> d"),
            ]
        if config.qk_norm is not None:
            found += [
                leaf("q_norm", "attn/_query_norm/scale", "e -> e"),
                leaf("k_norm", "attn/_key_norm/scale", "e -> e"),
            ]
        return found

    def nested(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The tree that the linen module takes, the two-level dict of the released checkpoints, or an nnx pure dict."""
        if self.form == "nested":
            return nest(arrays)
        if self.form == "nnx":
            return _nnx(arrays)
        tree: dict[str, Any] = {}
        for path, array in arrays.items():
            path = f"{path}/w" if path.endswith(("mlp/gating_einsum", "mlp/linear")) else path
            module, leaf = path.rsplit("/", 1)
            tree.setdefault(f"transformer/{module}", {})[leaf] = array
        return tree


def _nnx(arrays: dict[str, Any]) -> dict[str, Any]:
    """Layers under whole numbers. Tunix' modules before Gemma 3 shorten the name of one norm."""
    third = any(path.endswith("attn/_query_norm/scale") for path in arrays)
    renamed = {
        path if third else path.replace("/post_attention_norm/", "/post_attn_norm/"): array
        for path, array in arrays.items()
    }
    tree = nest({_LAYER.sub(r"layers/\1/", path): array for path, array in renamed.items()})
    return {**tree, "layers": {int(layer): value for layer, value in tree["layers"].items()}}
