"""One frozen record that says everything in which decoder families differ."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from jaxinterp.core.errors import InputError, near
from jaxinterp.models.experts import Experts
from jaxinterp.models.latent import Latent
from jaxinterp.models.rotary import RopeScaling

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "norm": ("rms", "layer", "tanh"),
    "activation": ("silu", "gelu", "gelu_tanh", "relu", "clipped_swish"),
    "positions": ("rope", "learned"),
    "rope_pairs": ("half", "adjacent"),
    "qk_norm": (None, "head", "heads"),
}
_OPTIONAL = ("query_scale", "attn_softcap", "final_softcap", "rope_local_base")
_FLAGS = (
    "norm_unit_offset", "pre_norms", "post_norms", "parallel", "gated", "qkv_bias", "out_bias", "mlp_bias", "sinks",
    "tied",
)  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer.

    Attributes:
      vocab_size, d_model, n_layers, n_heads, n_kv_heads, d_head, d_mlp, context: sizes V, D, L, H, K,
        E, M and the longest sequence in tokens.
      norm: "rms" (no centring, no bias), "layer" (LayerNorm with bias), or "tanh": Dynamic Tanh in place of every norm,
        those of queries, keys and latents too.
      norm_unit_offset: the stored gain is added to one (Gemma).
      pre_norms: norms before attention and before the MLP (all but OLMo-2).
      post_norms: norms after attention and after the MLP, before the residual add (Gemma-2, OLMo-2).
      parallel: the MLP reads what attention reads, the residual stream before the layer (GPT-NeoX).
      activation, gated: MLP nonlinearity; gated means ``act(x W_gate) * (x W_up)``.
      positions: rotary or learned absolute; ``rope_pairs`` says which entries turn together, ``half``
        (i, i + E/2) as in Hugging Face or ``adjacent`` (2i, 2i + 1) as in llama2.c.
      rope_width: entries of a head that turn, the first ones; None means all (GPT-NeoX and Phi turn a part).
      rope_scaling: for longer contexts, a `RopeScaling` or None.
      rope_local_base: the rotary base of layers with a window, which are not scaled; None means as the
        others (Gemma-3).
      qk_norm: an RMS norm on queries and on keys before they turn: of each "head" (Qwen3, Gemma-3) or of all
        "heads" together (OLMo-2).
      sinks: a trained score for each head that takes part in the softmax and moves nothing (GPT-OSS).
      qkv_bias, out_bias, mlp_bias: which projections have biases.
      query_scale: factor on attention scores; None means ``d_head ** -0.5``.
      attn_softcap, final_softcap: ``cap * tanh(x / cap)`` on scores and on logits; None means absent.
      windows: sliding window of each layer, 0 meaning full attention; empty means full everywhere.
      latent: `Latent`: keys and values of all heads come from one compressed vector a token (DeepSeek); None means not.
      experts: `Experts` in place of the MLP, in all layers but its ``dense_layers``; None means MLPs everywhere.
      tied: the unembedding is the transposed embedding.
      embed_scale: factor on token embeddings as they enter the residual stream.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    context: int
    norm: str = "rms"
    norm_eps: float = 1e-5
    norm_unit_offset: bool = False
    pre_norms: bool = True
    post_norms: bool = False
    parallel: bool = False
    activation: str = "silu"
    gated: bool = True
    positions: str = "rope"
    rope_base: float = 10000.0
    rope_pairs: str = "half"
    rope_width: int | None = None
    rope_scaling: RopeScaling | None = None
    rope_local_base: float | None = None
    qk_norm: str | None = None
    sinks: bool = False
    latent: Latent | None = None
    experts: Experts | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    query_scale: float | None = None
    attn_softcap: float | None = None
    final_softcap: float | None = None
    windows: tuple[int, ...] = ()
    tied: bool = False
    embed_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_mlp", "context",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"model config: {name} is {value!r}, expected a whole number of at least 1")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"model config: {name} is {getattr(self, name)!r}, expected true or false")
        for name in ("norm_eps", "rope_base", "embed_scale", *_OPTIONAL):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 < value < float("inf")) and not (value is None and name in _OPTIONAL):
                raise InputError(f"model config: {name} is {value!r}, expected a positive number")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"model config: {name} is {getattr(self, name)!r}, expected one of {allowed}"
                )
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                f"model config: {self.n_heads} heads cannot share {self.n_kv_heads} key/value heads evenly"
            )
        self._check_rope()
        self._check_experts()
        self._check_latent()
        for window in self.windows:
            if not isinstance(window, int) or isinstance(window, bool) or window < 0:
                raise InputError(f"model config: a window is {window!r}, expected a whole number, 0 for full")
        object.__setattr__(self, "windows", tuple(self.windows))
        if self.windows and len(self.windows) != self.n_layers:
            raise InputError(
                f"model config: {len(self.windows)} windows for {self.n_layers} layers, expected one a layer"
            )

    def _check_latent(self) -> None:
        latent = self.latent
        if not isinstance(latent, Latent | None):
            raise InputError(f"model config: latent is {latent!r}, expected a Latent or None")
        if latent is None:
            return
        if latent.d_plain + latent.d_turned != self.d_head or self.rope_width != latent.d_turned:
            raise InputError(
                f"model config: heads of {self.d_head} with {self.rope_width} entries turning, but latent "
                f"attention has {latent.d_plain} that stay and {latent.d_turned} that turn"
            )
        if self.n_kv_heads != self.n_heads or self.qk_norm or self.sinks or self.positions != "rope":
            raise InputError(
                "model config: latent attention has a key for every head, rotary positions, no qk_norm, no sinks"
            )

    def _check_experts(self) -> None:
        if not isinstance(self.experts, Experts | None):
            raise InputError(f"model config: experts is {self.experts!r}, expected Experts or None")
        if self.activation == "clipped_swish" and not self.gated:
            raise InputError("model config: the activation clipped_swish is of gated MLPs")
        if self.experts is None:
            return
        if not self.gated or self.mlp_bias:
            raise InputError("model config: experts are gated, and their biases are a field of their own")
        bad = [layer for layer in self.experts.dense_layers if layer not in range(self.n_layers)]
        if bad:
            raise InputError(
                f"model config: {bad[0]} is among the dense layers of a model of {self.n_layers} layers"
            )

    def _check_rope(self) -> None:
        width = self.d_head if self.rope_width is None else self.rope_width
        whole = isinstance(width, int) and not isinstance(width, bool)
        if self.positions == "rope" and not (whole and 2 <= width <= self.d_head and width % 2 == 0):
            raise InputError(
                f"model config: rotary positions need an even head width (or an even part of {self.d_head}), "
                f"not {width!r}"
            )
        scaling = self.rope_scaling
        if scaling is None:
            return
        if not isinstance(scaling, RopeScaling):
            raise InputError(f"model config: rope_scaling is {scaling!r}, expected a RopeScaling")
        for name in ("short", "long"):
            values = getattr(scaling, name)
            if values and len(values) != width // 2:
                raise InputError(f"model config: {len(values)} {name} divisors for {width // 2} pairs")

    @property
    def score_scale(self) -> float:
        """The factor on attention scores."""
        return self.d_head**-0.5 if self.query_scale is None else self.query_scale

    @property
    def has_norm_biases(self) -> bool:
        """Whether norms add something that does not depend on their input."""
        return self.norm != "rms"

    @property
    def has_attention_biases(self) -> bool:
        """Whether attention does, its norms apart."""
        return self.qkv_bias or self.out_bias

    @property
    def d_value(self) -> int:
        """Width of a value head: E, or less with latent attention."""
        return self.d_head if self.latent is None else self.latent.d_value

    @property
    def group_size(self) -> int:
        """G, query heads per key/value head."""
        return self.n_heads // self.n_kv_heads

    def replace(self, **changes: Any) -> ModelConfig:
        """The same config with other values in some fields."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict with every field."""
        return {**dataclasses.asdict(self), "windows": list(self.windows)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "model config") -> ModelConfig:
        """The inverse of `to_dict`. An unknown or missing field raises an `InputError` that names it."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise InputError(f"{where}: unknown field {name!r}{near(name, names)}")
        for f in dataclasses.fields(cls):
            if f.default is dataclasses.MISSING and f.name not in values:
                raise InputError(f"{where}: the field {f.name!r} is missing")
        try:
            parsed: dict[str, Any] = {"windows": tuple(values.get("windows", ()))}
            for name, kind in (("rope_scaling", RopeScaling), ("latent", Latent), ("experts", Experts)):
                given = values.get(name)
                parsed[name] = None if given is None else kind.from_dict(given)  # type: ignore[attr-defined]
            return cls(**{**values, **parsed})
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {error}") from error

    def n_params(self) -> int:
        """How many parameters the model has."""
        from jaxinterp.models.weights import declare
        from jaxinterp.parallel import weights

        return weights.size(declare(self))
