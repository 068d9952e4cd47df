"""Every weight of the decoder, declared once."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts
from jaxinterp.models.latent import Latent
from jaxinterp.parallel.weights import Weight, constant, normal


def declare(config: ModelConfig) -> dict[str, Any]:
    """The decoder's weights as a nested dict of `Weight`; per-layer weights are stacked on a leading L.

    Initial values: normal, with standard deviation 0.02 for embeddings, fan-in ** -0.5 for matrices and
    a further (2 L) ** -0.5 for the two that write to the residual stream (as in GPT-2). Dynamic Tanh: `tanh_start`.
    """
    v, d, n = config.vocab_size, config.d_model, config.n_layers
    h, k, e = config.n_heads, config.n_kv_heads, config.d_head
    write = (2 * n) ** -0.5
    attention_start, start = tanh_start(d)

    def stacked(*shape_axes: tuple[int, str], init: Any = "zeros") -> Weight:
        return Weight((n, *(s for s, _ in shape_axes)), ("layers", *(a for _, a in shape_axes)), init)

    def norm(stack: bool, start: float = start) -> dict[str, Weight]:
        gain = "zeros" if config.norm_unit_offset else "ones"

        def one(init: str) -> Weight:
            return stacked((d, "width"), init=init) if stack else Weight((d,), ("width",), init)

        found = {"scale": one(gain)}
        if config.has_norm_biases:
            found["bias"] = one("zeros")
        if config.norm == "tanh":
            found["alpha"] = stacked(init=constant(start)) if stack else Weight((), (), constant(start))
        return found

    width, heads, kv, head = (d, "width"), (h, "heads"), (k, "kv_heads"), (e, "head_width")
    layers = _latent(config, config.latent) if config.latent else {
        "q": stacked(width, heads, head, init=normal(d**-0.5)),
        "k": stacked(width, kv, head, init=normal(d**-0.5)),
        "v": stacked(width, kv, head, init=normal(d**-0.5)),
    }  # fmt: skip
    value = (config.d_value, "head_width")
    layers["o"] = stacked(heads, value, width, init=normal((h * config.d_value) ** -0.5 * write))
    if config.pre_norms:
        layers |= {"attn_norm": norm(True, attention_start), "mlp_norm": norm(True)}
    if config.qk_norm is not None:
        gain = "zeros" if config.norm_unit_offset else "ones"
        every = config.qk_norm == "heads"
        layers["q_norm"] = stacked(*([heads] if every else []), head, init=gain)
        layers["k_norm"] = stacked(*([kv] if every else []), head, init=gain)
    if config.norm == "tanh":
        for name in ("q_norm", "k_norm", "kv_norm"):
            if name in layers:
                layers[f"{name}_bias"] = layers[name]._replace(init="zeros")
                layers[f"{name}_alpha"] = stacked(init=constant(attention_start))
    if config.sinks:
        layers["sinks"] = stacked(heads)
    if config.qkv_bias and config.latent is None:
        layers |= {"q_bias": stacked(heads, head), "k_bias": stacked(kv, head), "v_bias": stacked(kv, head)}
    if config.out_bias:
        layers["o_bias"] = stacked(width)
    if config.post_norms:
        layers |= {"attn_post_norm": norm(True), "mlp_post_norm": norm(True)}

    if config.experts is None:
        layers |= _mlp(config, n, write)
    embed = {"tokens": Weight((v, d), ("vocab", "width"), normal(0.02))}
    if config.positions == "learned":
        embed["positions"] = Weight((config.context, d), ("position", "width"), normal(0.01))
    tree: dict[str, Any] = {"embed": embed, "layers": layers, "final_norm": norm(False)}
    if config.experts is not None:
        dense = len(config.experts.dense_layers)
        if dense:
            tree["dense"] = _mlp(config, dense, write)
        if dense < n:
            tree["experts"] = _experts(config, config.experts, n - dense, write)
    if not config.tied:
        tree["unembed"] = Weight((d, v), ("width", "vocab"), normal(d**-0.5))
    return tree


def tanh_start(width: int) -> tuple[float, float]:
    """The alpha that Dynamic Tanh starts from, before attention and elsewhere, in a model of width D.

    Zhu et al. 2025 (arXiv 2503.10622), initialisation of alpha for language models: the wider, the smaller, and larger
    before attention. Between the widths that they tried the next larger one counts.
    """
    tried = ((1024, 1.0, 1.0), (2048, 1.0, 0.5), (4096, 0.8, 0.2), (5120, 0.6, 0.15))
    return next(((attention, other) for limit, attention, other in tried if width <= limit), (0.2, 0.05))


def _latent(config: ModelConfig, latent: Latent) -> dict[str, Any]:
    """The weights of latent attention, but the one that writes."""
    n, d, h, e = config.n_layers, config.d_model, config.n_heads, config.d_head
    c, r = latent.kv_rank, latent.q_rank

    def one(*shape_axes: tuple[int, str], init: Any = "zeros") -> Weight:
        return Weight((n, *(s for s, _ in shape_axes)), ("layers", *(a for _, a in shape_axes)), init)

    width, heads, head, low = (d, "width"), (h, "heads"), (e, "head_width"), (c, "replicated")
    turned = (latent.d_turned, "replicated")
    found = {
        "kv_down": one(width, (c, "rank"), init=normal(d**-0.5)),
        "kv_norm": one(low, init="ones"),
        "k_turned": one(width, turned, init=normal(d**-0.5)),
        "k_up": one((latent.d_plain, "head_width"), low, heads, init=normal(c**-0.5)),
        "v_up": one((latent.d_value, "head_width"), low, heads, init=normal(c**-0.5)),
    }
    if config.qkv_bias:
        found |= {"kv_down_bias": one(low), "k_turned_bias": one(turned)}
    if r is None:
        return {**found, "q": one(width, heads, head, init=normal(d**-0.5))}
    rank = (r, "replicated")
    found |= {
        "q_down": one(width, (r, "rank"), init=normal(d**-0.5)),
        "q_norm": one(rank, init="ones"),
        "q_up": one(rank, heads, head, init=normal(r**-0.5)),
    }
    return {**found, "q_down_bias": one(rank)} if config.qkv_bias else found


def _mlp(config: ModelConfig, layers: int, write: float) -> dict[str, Weight]:
    """The MLPs of so many layers."""
    d, m = config.d_model, config.d_mlp

    def one(shape: tuple[int, ...], axes: tuple[str, ...], init: Any = "zeros") -> Weight:
        return Weight((layers, *shape), ("layers", *axes), init)

    result = {
        "up": one((d, m), ("width", "mlp"), normal(d**-0.5)),
        "down": one((m, d), ("mlp", "width"), normal(m**-0.5 * write)),
    }
    if config.gated:
        result["gate"] = one((d, m), ("width", "mlp"), normal(d**-0.5))
    if config.mlp_bias:
        result |= {"up_bias": one((m,), ("mlp",)), "down_bias": one((d,), ("width",))}
        if config.gated:
            result["gate_bias"] = one((m,), ("mlp",))
    return result


def _experts(config: ModelConfig, experts: Experts, layers: int, write: float) -> dict[str, Weight]:
    """The mixtures of experts of so many layers."""
    d, x, f, s = config.d_model, experts.n, experts.d_expert, experts.d_shared

    def one(shape: tuple[int, ...], axes: tuple[str, ...], init: Any = "zeros") -> Weight:
        return Weight((layers, *shape), ("layers", *axes), init)

    inward, outward = ("experts", "width", "expert_width"), ("experts", "expert_width", "width")
    result = {
        "router": one((d, x), ("width", "replicated"), normal(d**-0.5)),
        "gate": one((x, d, f), inward, normal(d**-0.5)),
        "up": one((x, d, f), inward, normal(d**-0.5)),
        "down": one((x, f, d), outward, normal(f**-0.5 * write)),
    }
    if experts.router_bias:
        result["router_bias"] = one((x,), ("replicated",))
    if experts.correction:
        result["correction"] = one((x,), ("replicated",))
    if experts.bias:
        result |= {
            "gate_bias": one((x, f), inward[::2]),
            "up_bias": one((x, f), inward[::2]),
            "down_bias": one((x, d), outward[::2]),
        }
    if s:
        result |= {
            "shared_gate": one((d, s), ("width", "mlp"), normal(d**-0.5)),
            "shared_up": one((d, s), ("width", "mlp"), normal(d**-0.5)),
            "shared_down": one((s, d), ("mlp", "width"), normal(s**-0.5 * write)),
        }
    return result


class Run(NamedTuple):
    """Layers from ``start`` to ``stop`` that are built alike.

    Attributes:
      mlp: where their MLPs are: "layers", "dense" or "experts".
      offset: where the first stands in that stack.
    """

    mlp: str
    start: int
    stop: int
    offset: int


def runs(config: ModelConfig) -> tuple[Run, ...]:
    """The layers in order, as few runs as there can be."""
    n = config.n_layers
    if config.experts is None:
        return (Run("layers", 0, n, 0),)
    result: list[Run] = []
    counts = {"dense": 0, "experts": 0}
    for layer in range(n):
        kind = "dense" if layer in config.experts.dense_layers else "experts"
        if result and result[-1].mlp == kind:
            result[-1] = result[-1]._replace(stop=layer + 1)
        else:
            result.append(Run(kind, layer, layer + 1, counts[kind]))
        counts[kind] += 1
    return tuple(result)


def part(tree: Tree, start: int, stop: int) -> Tree:
    """Entries of the leading axis of every leaf; the tree itself where those are all."""
    leaves = jax.tree.leaves(tree)
    if not leaves or leaves[0].shape[0] == stop - start:
        return tree
    return jax.tree.map(lambda leaf: leaf[start:stop], tree)


def of_run(params: Tree, run: Run) -> Tree:
    """The weights of a run's layers, stacked, as `mlp.mlp` and `block` take one layer of them."""
    shared = part(params["layers"], run.start, run.stop)
    if run.mlp == "layers":
        return shared
    own = part(params[run.mlp], run.offset, run.offset + run.stop - run.start)
    return {**shared, "experts": own} if run.mlp == "experts" else {**shared, **own}


def at_layer(params: Tree, run: Run, layer: Array) -> Tree:
    """The weights of the layer of a run whose number is the array ``layer``, looked up in the whole stacks."""

    def take(tree: Tree, index: Array) -> Tree:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree)

    shared = take(params["layers"], layer)
    if run.mlp == "layers":
        return shared
    own = take(params[run.mlp], layer - (run.start - run.offset))
    return {**shared, "experts": own} if run.mlp == "experts" else {**shared, **own}


def of_layer(params: Tree, config: ModelConfig, layer: int) -> Tree:
    """The weights of one layer."""
    run = next(run for run in runs(config) if run.start <= layer < run.stop)
    return jax.tree.map(lambda leaf: leaf[layer - run.start], of_run(params, run))
