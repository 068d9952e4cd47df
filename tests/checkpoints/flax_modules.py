"""Tiny models in the published module structures, written from their descriptions: what bridged weights must compute.

`GemmaNet` has the parameters of DeepMind's JAX Gemma (1, 2 and 3), `NnxGemma` those of Tunix' Gemma, `MaxTextLlama`
those of MaxText's Llama. Nothing here uses the library.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

SEEDS = itertools.count()
INIT = nn.initializers.normal(0.4)


def rates(base: float, width: int) -> np.ndarray:
    return base ** (-np.arange(0, width, 2) / width)


def llama31_rates(base: float, width: int, factor: float, original: int) -> np.ndarray:
    """Llama 3.1's stretched rates: slow ones divided, fast ones kept, a ramp between 1 and 4 turns."""
    out = []
    for rate in rates(base, width):
        turns = original * rate / (2 * math.pi)
        share = min(max((turns - 1) / (4 - 1), 0.0), 1.0)
        out.append((1 - share) * rate / factor + share * rate)
    return np.asarray(out)


def turn(x: jax.Array, rate: np.ndarray, adjacent: bool) -> jax.Array:
    """x [B, T, H, E] turned by its position."""
    angle = np.arange(x.shape[1])[:, None] * rate[None, :]
    cos, sin = (jnp.asarray(f(angle), x.dtype)[None, :, None, :] for f in (np.cos, np.sin))
    if adjacent:
        even, odd = x[..., ::2], x[..., 1::2]
        return jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(x.shape)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, window: int, cap: float | None) -> jax.Array:
    """Causal attention without a factor of its own; query head h uses key head h // (H / K)."""
    t, group = q.shape[1], q.shape[2] // k.shape[2]
    k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
    scores = jnp.einsum("bthe,bshe->bhts", q, k)
    if cap is not None:
        scores = cap * jnp.tanh(scores / cap)
    back = np.arange(t)[:, None] - np.arange(t)[None, :]
    seen = (back >= 0) & ((back < window) if window else True)
    scores = jnp.where(jnp.asarray(seen)[None, None], scores, jnp.asarray(-1e30, scores.dtype))
    return jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(scores, axis=-1), v)


class Norm(nn.Module):
    eps: float
    offset: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", INIT, (x.shape[-1],), x.dtype)
        unit = x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return unit * (self.offset + scale.reshape((1,) * (x.ndim - 1) + (-1,)))


class Einsum(nn.Module):
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, equation: str, x: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x, self.param("w", INIT, self.shape, x.dtype))


class GemmaAttention(nn.Module):
    c: Any
    layer: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, d = self.c, x.shape[-1]
        if c["kv_heads"] == c["heads"]:
            q, k, v = Einsum((3, c["heads"], d, c["head"]), name="qkv_einsum")("btd,shde->sbthe", x)
        else:
            q = Einsum((c["heads"], d, c["head"]), name="q_einsum")("btd,hde->bthe", x)
            k, v = Einsum((2, c["kv_heads"], d, c["head"]), name="kv_einsum")("btd,skde->sbtke", x)
        if c["qk_norm"]:
            q, k = Norm(1e-6, 1.0, name="_query_norm")(q), Norm(1e-6, 1.0, name="_key_norm")(k)
        window = c["windows"][self.layer]
        rate = rates(c["local_base"] if window else c["base"], c["head"])
        rate = rate if window else rate / c["stretch"]
        q, k = turn(q, rate, False) * c["query_scale"], turn(k, rate, False)
        out = attend(q, k, v, window, c["attn_cap"])
        return Einsum((c["heads"], c["head"], d), name="attn_vec_einsum")("bthe,hed->btd", out)


class GemmaMlp(nn.Module):
    c: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d, m = x.shape[-1], self.c["mlp"]
        shape, equation = (
            ((2, m, d), "btd,smd->sbtm") if self.c["transposed"] else ((2, d, m), "btd,sdm->sbtm")
        )
        gate, up = jnp.einsum(equation, x, self.param("gating_einsum", INIT, shape, x.dtype))
        return (jax.nn.gelu(gate, approximate=True) * up) @ self.param("linear", INIT, (m, d), x.dtype)


class GemmaBlock(nn.Module):
    c: Any
    layer: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def after(value: jax.Array, name: str) -> jax.Array:
            return Norm(1e-6, 1.0, name=name)(value) if self.c["post_norms"] else value

        value = GemmaAttention(self.c, self.layer, name="attn")(Norm(1e-6, 1.0, name="pre_attention_norm")(x))
        x = x + after(value, "post_attention_norm")
        value = GemmaMlp(self.c, name="mlp")(Norm(1e-6, 1.0, name="pre_ffw_norm")(x))
        return x + after(value, "post_ffw_norm")


class GemmaEmbedder(nn.Module):
    c: Any

    def setup(self) -> None:
        shape = (self.c["vocab"], self.c["width"])
        self.table = self.param("input_embedding", INIT, shape, self.c["dtype"])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.table[tokens] * self.c["width"] ** 0.5

    def decode(self, x: jax.Array) -> jax.Array:
        return x @ self.table.T


class GemmaNet(nn.Module):
    """tokens [B, T] → logits. ``c``: vocab, width, layers, heads, kv_heads, head, mlp, windows, base, local_base,
    stretch, query_scale, attn_cap, final_cap, post_norms, qk_norm, transposed, dtype."""

    c: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embedder = GemmaEmbedder(self.c, name="embedder")
        x = embedder(tokens)
        for layer in range(self.c["layers"]):
            x = GemmaBlock(self.c, layer, name=f"layer_{layer}")(x)
        logits = embedder.decode(Norm(1e-6, 1.0, name="final_norm")(x))
        cap = self.c["final_cap"]
        return logits if cap is None else cap * jnp.tanh(logits / cap)


class Held(nnx.Module):
    """Parameters of given names and shapes, drawn at random."""

    def __init__(self, c: Any, **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            draw = np.random.default_rng(next(SEEDS)).normal(0, 0.4, shape)
            setattr(self, name, nnx.Param(jnp.asarray(draw, c["dtype"])))


class NnxGemmaLayer(nnx.Module):
    def __init__(self, c: Any, layer: int) -> None:
        d, m, h, k, e = c["width"], c["mlp"], c["heads"], c["kv_heads"], c["head"]
        self.c, self.layer = c, layer
        self.attn, self.mlp = nnx.Module(), nnx.Module()
        self.attn.q_einsum, self.attn.kv_einsum = Held(c, w=(h, d, e)), Held(c, w=(2, k, d, e))
        self.attn.attn_vec_einsum = Held(c, w=(h, e, d))
        self.mlp.gate_proj, self.mlp.up_proj = Held(c, kernel=(d, m)), Held(c, kernel=(d, m))
        self.mlp.down_proj = Held(c, kernel=(m, d))
        norms = ["pre_attention_norm", "pre_ffw_norm"]
        if c["post_norms"]:
            norms += ["post_attention_norm" if c["qk_norm"] else "post_attn_norm", "post_ffw_norm"]
        for name in norms:
            setattr(self, name, Held(c, scale=(d,)))
        if c["qk_norm"]:
            self.attn._query_norm, self.attn._key_norm = Held(c, scale=(e,)), Held(c, scale=(e,))

    def norm(self, x: jax.Array, held: Any) -> jax.Array:
        unit = x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        return unit * (1.0 + held.scale[...].reshape((1,) * (x.ndim - 1) + (-1,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        c, window = self.c, self.c["windows"][self.layer]
        value = self.norm(x, self.pre_attention_norm)
        q = jnp.einsum("btd,hde->bthe", value, self.attn.q_einsum.w[...])
        k, v = jnp.einsum("btd,skde->sbtke", value, self.attn.kv_einsum.w[...])
        if c["qk_norm"]:
            q, k = self.norm(q, self.attn._query_norm), self.norm(k, self.attn._key_norm)
        rate = rates(c["local_base"], c["head"]) if window else rates(c["base"], c["head"]) / c["stretch"]
        out = attend(turn(q, rate, False) * c["query_scale"], turn(k, rate, False), v, window, c["attn_cap"])
        value = jnp.einsum("bthe,hed->btd", out, self.attn.attn_vec_einsum.w[...])
        if c["post_norms"]:
            value = self.norm(value, self.post_attention_norm if c["qk_norm"] else self.post_attn_norm)
        x = x + value
        value = self.norm(x, self.pre_ffw_norm)
        gate, up = (value @ held.kernel[...] for held in (self.mlp.gate_proj, self.mlp.up_proj))
        value = (jax.nn.gelu(gate, approximate=True) * up) @ self.mlp.down_proj.kernel[...]
        return x + (self.norm(value, self.post_ffw_norm) if c["post_norms"] else value)


class NnxGemma(nnx.Module):
    """tokens [B, T] → logits; ``c`` as of `GemmaNet`, with fewer keys than queries."""

    def __init__(self, c: Any) -> None:
        self.c = c
        self.embedder = Held(c, input_embedding=(c["vocab"], c["width"]))
        self.layers = nnx.List([NnxGemmaLayer(c, layer) for layer in range(c["layers"])])
        self.final_norm = Held(c, scale=(c["width"],))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        table = self.embedder.input_embedding[...]
        x = table[tokens] * self.c["width"] ** 0.5
        for layer in self.layers:
            x = layer(x)
        logits = self.layers[0].norm(x, self.final_norm) @ table.T
        cap = self.c["final_cap"]
        return logits if cap is None else cap * jnp.tanh(logits / cap)


class Kernel(nn.Module):
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, equation: str, x: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x, self.param("kernel", INIT, self.shape, x.dtype))


class MaxTextAttention(nn.Module):
    c: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, d = self.c, x.shape[-1]
        q = Kernel((d, c["heads"], c["head"]), name="query")("btd,dhe->bthe", x)
        k = Kernel((d, c["kv_heads"], c["head"]), name="key")("btd,dke->btke", x)
        v = Kernel((d, c["kv_heads"], c["head"]), name="value")("btd,dke->btke", x)
        rate, adjacent = rates(c["base"], c["head"]), c["rope_type"] == "llama3.1"
        if adjacent:
            rate = llama31_rates(c["base"], c["head"], 8.0, c["original"])
        out = attend(turn(q, rate, adjacent), turn(k, rate, adjacent), v, 0, None)
        return Kernel((c["heads"], c["head"], d), name="out")("bthe,hed->btd", out)


class MaxTextMlp(nn.Module):
    c: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d, m = x.shape[-1], self.c["mlp"]
        gate, up = (Kernel((d, m), name=n)("btd,dm->btm", x) for n in ("wi_0", "wi_1"))
        return Kernel((m, d), name="wo")("btm,md->btd", jax.nn.silu(gate) * up)


class MaxTextLayer(nn.Module):
    c: Any

    @nn.compact
    def __call__(self, x: jax.Array, _: None = None) -> Any:
        norm = Norm(self.c["eps"], 0.0, name="pre_self_attention_layer_norm")
        x = x + MaxTextAttention(self.c, name="self_attention")(norm(x))
        norm = Norm(self.c["eps"], 0.0, name="post_self_attention_layer_norm")
        x = x + MaxTextMlp(self.c, name="mlp")(norm(x))
        return (x, None) if self.c["scanned"] else x


class MaxTextDecoder(nn.Module):
    c: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.c
        if c["scanned"]:
            axes = {"params": c["scan_axis"], "intermediates": 0}
            layers = nn.scan(
                MaxTextLayer, variable_axes=axes, split_rngs={"params": True}, length=c["layers"]
            )
            x, _ = layers(c, name="layers")(x, None)
        else:
            for layer in range(c["layers"]):
                x = MaxTextLayer(c, name=f"layers_{layer}")(x)
        x = Norm(c["eps"], 0.0, name="decoder_norm")(x)
        return x if c["tied"] else Kernel((x.shape[-1], c["vocab"]), name="logits_dense")("btd,dv->btv", x)


class MaxTextEmbedder(nn.Module):
    c: Any

    def setup(self) -> None:
        self.embedding = self.param("embedding", INIT, (self.c["vocab"], self.c["width"]), self.c["dtype"])

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.embedding[tokens]

    def attend(self, x: jax.Array) -> jax.Array:
        logits = x @ self.embedding.T
        return logits / self.c["width"] ** 0.5 if self.c["normalised"] else logits


class MaxTextLlama(nn.Module):
    """tokens [B, T] → logits. ``c``: vocab, width, layers, heads, kv_heads, head, mlp, base, original, eps, rope_type,
    scanned, scan_axis, tied, normalised, dtype."""

    c: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embedder = MaxTextEmbedder(self.c, name="token_embedder")
        x = MaxTextDecoder(self.c, name="decoder")(embedder(tokens))
        return embedder.attend(x) if self.c["tied"] else x
