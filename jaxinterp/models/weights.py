"""Every weight of the decoder, declared once."""

from __future__ import annotations

from typing import Any

from jaxinterp.models.config import ModelConfig
from jaxinterp.parallel.weights import Weight, normal


def declare(config: ModelConfig) -> dict[str, Any]:
    """The decoder's weights as a nested dict of `Weight`; per-layer weights are stacked on a leading L.

    Initial values: normal, with standard deviation 0.02 for embeddings, fan-in ** -0.5 for matrices and
    a further (2 L) ** -0.5 for the two that write to the residual stream (as in GPT-2).
    """
    v, d, n = config.vocab_size, config.d_model, config.n_layers
    h, k, e, m = config.n_heads, config.n_kv_heads, config.d_head, config.d_mlp
    write = (2 * n) ** -0.5

    def stacked(*shape_axes: tuple[int, str], init: Any = "zeros") -> Weight:
        return Weight((n, *(s for s, _ in shape_axes)), ("layers", *(a for _, a in shape_axes)), init)

    def norm(stack: bool) -> dict[str, Weight]:
        gain = "zeros" if config.norm_unit_offset else "ones"

        def one(init: str) -> Weight:
            return stacked((d, "width"), init=init) if stack else Weight((d,), ("width",), init)

        return {"scale": one(gain), "bias": one("zeros")} if config.norm == "layer" else {"scale": one(gain)}

    width, heads, kv, head, mlp = (d, "width"), (h, "heads"), (k, "kv_heads"), (e, "head_width"), (m, "mlp")
    layers: dict[str, Any] = {
        "q": stacked(width, heads, head, init=normal(d**-0.5)),
        "k": stacked(width, kv, head, init=normal(d**-0.5)),
        "v": stacked(width, kv, head, init=normal(d**-0.5)),
        "o": stacked(heads, head, width, init=normal((h * e) ** -0.5 * write)),
        "up": stacked(width, mlp, init=normal(d**-0.5)),
        "down": stacked(mlp, width, init=normal(m**-0.5 * write)),
    }
    if config.pre_norms:
        layers |= {"attn_norm": norm(True), "mlp_norm": norm(True)}
    if config.qk_norm is not None:
        gain = "zeros" if config.norm_unit_offset else "ones"
        every = config.qk_norm == "heads"
        layers["q_norm"] = stacked(*([heads] if every else []), head, init=gain)
        layers["k_norm"] = stacked(*([kv] if every else []), head, init=gain)
    if config.sinks:
        layers["sinks"] = stacked(heads)
    if config.qkv_bias:
        layers |= {"q_bias": stacked(heads, head), "k_bias": stacked(kv, head), "v_bias": stacked(kv, head)}
    if config.out_bias:
        layers["o_bias"] = stacked(width)
    if config.gated:
        layers["gate"] = stacked(width, mlp, init=normal(d**-0.5))
    if config.mlp_bias:
        layers |= {"up_bias": stacked(mlp), "down_bias": stacked(width)}
        if config.gated:
            layers["gate_bias"] = stacked(mlp)
    if config.post_norms:
        layers |= {"attn_post_norm": norm(True), "mlp_post_norm": norm(True)}

    embed = {"tokens": Weight((v, d), ("vocab", "width"), normal(0.02))}
    if config.positions == "learned":
        embed["positions"] = Weight((config.context, d), ("position", "width"), normal(0.01))
    tree: dict[str, Any] = {"embed": embed, "layers": layers, "final_norm": norm(False)}
    if not config.tied:
        tree["unembed"] = Weight((d, v), ("width", "vocab"), normal(d**-0.5))
    return tree
