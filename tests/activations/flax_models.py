"""Tiny language models of an architecture that the library has not: positions mix by means over prefixes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from jaxinterp.activations import FlaxSource, flax_source

VOCAB, WIDTH, LAYERS, CONTEXT = 23, 8, 2, 16
INIT = nn.initializers.normal(0.6)


def documents(seed: int, index: int, batch: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens, one document a row."""
    return {"tokens": np.random.default_rng([seed, index]).integers(0, VOCAB, (batch, length))}


def packed(seed: int, index: int, batch: int, length: int) -> dict[str, np.ndarray]:
    """The same with two documents in each row."""
    segments = np.broadcast_to((np.arange(length) >= length // 2).astype(np.int32)[None, :], (batch, length))
    return {**documents(seed, index, batch, length), "segments": segments}


def prefix_mean(x: jax.Array) -> jax.Array:
    counts = jnp.arange(1, x.shape[1] + 1, dtype=x.dtype)[None, :, None]
    return jnp.cumsum(x, axis=1) / counts


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jax.nn.tanh(nn.Dense(24, kernel_init=INIT, name="inner")(x))
        self.sow("intermediates", "hidden", hidden)
        return nn.Dense(x.shape[-1], kernel_init=INIT, name="outer")(hidden)


class Block(nn.Module):
    scanned: bool = False

    def setup(self) -> None:
        self.mix, self.ln, self.mlp = nn.Dense(WIDTH, kernel_init=INIT), nn.LayerNorm(), Mlp()

    def __call__(self, x: jax.Array, _: None = None) -> Any:
        x = x + self.mix(prefix_mean(x))
        x = x + self.mlp(self.ln(x))
        return (x, None) if self.scanned else x


class Prefix(nn.Module):
    """tokens [B, T] → logits [B, T, V]."""

    scanned: bool = False

    def setup(self) -> None:
        self.embed = nn.Embed(VOCAB, WIDTH, embedding_init=INIT)
        if self.scanned:
            axes = {"params": 0, "intermediates": 0}
            scan = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=LAYERS)
            self.layers = scan(True)
        else:
            self.h = [Block() for _ in range(LAYERS)]

    def __call__(self, tokens: jax.Array, *, deterministic: bool) -> jax.Array:
        del deterministic
        x = self.embed(tokens)
        if self.scanned:
            x, _ = self.layers(x, None)
        else:
            for block in self.h:
                x = block(x)
        return self.embed.attend(x)

    def insides(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What each MLP reads and gives, [L, B, T, D], by the module's own parts."""
        x, reads, writes = self.embed(tokens), [], []
        for block in self.h:
            x = x + block.mix(prefix_mean(x))
            reads.append(block.ln(x))
            writes.append(block.mlp(reads[-1]))
            x = x + writes[-1]
        return jnp.stack(reads), jnp.stack(writes)


class NnxMlp(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.inner, self.outer = nnx.Linear(WIDTH, 24, rngs=rngs), nnx.Linear(24, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        self.sow(nnx.Intermediate, "input", x)
        return self.outer(jax.nn.tanh(self.inner(x)))


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.mix, self.ln, self.mlp = (
            nnx.Linear(WIDTH, WIDTH, rngs=rngs),
            nnx.LayerNorm(WIDTH, rngs=rngs),
            NnxMlp(rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.mix(prefix_mean(x))
        return x + self.mlp(self.ln(x))


class NnxPrefix(nnx.Module):
    """The same in nnx; dropout gives it random state, which is not a parameter."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        self.layers = nnx.List([NnxBlock(rngs) for _ in range(LAYERS)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.embed.attend(self.dropout(x))


def drawn(module: nn.Module) -> Any:
    """Random variables of a linen module, without compiling its initialisers."""
    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    shapes = jax.eval_shape(lambda t: module.init(jax.random.key(0), t, deterministic=True), tokens)["params"]
    random = np.random.default_rng(3)
    return {
        "params": jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(0, 0.5, leaf.shape), leaf.dtype), shapes
        )
    }


def linen_source(scanned: bool = False) -> FlaxSource:
    module = Prefix(scanned)
    at = "layers" if scanned else "h_{l}"
    return flax_source(
        module, drawn(module), sites={"mlp_in": f"{at}/ln", "mlp_out": f"{at}/mlp"}, vocab_size=VOCAB,
        context=CONTEXT, keywords={"deterministic": True}, name="prefix",
    )  # fmt: skip


def nnx_source() -> FlaxSource:
    module = NnxPrefix(nnx.Rngs(0))
    module.eval()
    return flax_source(
        module, sites={"read": "layers/{l}/mlp/input", "write": "layers/{l}/mlp"}, vocab_size=VOCAB, context=CONTEXT,
        name="nnx-prefix",
    )  # fmt: skip
