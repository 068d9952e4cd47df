"""The decoder: tokens in, logits and named activations out.

Letters: B batch, T position, D width, L layers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import wide, wide_dtype, wide_einsum
from jaxinterp.models import norms, rotary
from jaxinterp.models.attention import Cache, Places
from jaxinterp.models.block import Reads, after_mlp, before_mlp
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.expert_parallel import OnMesh, divide_rows
from jaxinterp.models.experts import Dispatch
from jaxinterp.models.mlp import mlp
from jaxinterp.models.sites import LAYER_SITES, Activations, Edit, Touch, check_sites, toucher
from jaxinterp.models.swap import SiteSwap, Swapping
from jaxinterp.models.weights import Run, at_layer, of_run, part, runs

HIGHEST = jax.lax.Precision.HIGHEST
_POLICIES = jax.checkpoint_policies
REMATS = {
    "none": None,
    "dots": _POLICIES.dots_with_no_batch_dims_saveable,
    "full": _POLICIES.nothing_saveable,
}
"""What a gradient computes again: "none"; all but products with weights ("dots"); all of a layer ("full")."""


class MlpSwap(NamedTuple):
    """Something in place of every MLP.

    Attributes:
      step: (carry, layer, reads) → (carry, output [B, T, D]). ``layer`` is a Python int.
      carry: its first carry.
      write_site: "mlp_out" or "mlp_out_raw" (before a post-norm).
    """

    step: Callable[[Any, int, Reads], tuple[Any, Array]]
    carry: Any
    write_site: str = "mlp_out"


def places(tokens: Array, positions: Array | None = None, segments: Array | None = None) -> Places:
    """Positions counted from 0 and one document a row, where they are not given."""
    b, t = tokens.shape
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32)[None, :], (b, t))
    if segments is None:
        segments = jnp.zeros((b, t), jnp.int32)
    return Places(positions, segments)


def embed(params: Tree, config: ModelConfig, tokens: Array, positions: Array) -> Array:
    """tokens, positions [B, T] → [B, T, D] as they enter the residual stream."""
    table = params["embed"]["tokens"]
    x = (wide(table[tokens]) * config.embed_scale).astype(table.dtype)
    return x + params["embed"]["positions"][positions] if config.positions == "learned" else x


def unembedding(params: Tree, config: ModelConfig) -> Array:
    """The unembedding [D, V], tied or not."""
    return params["embed"]["tokens"].T if config.tied else params["unembed"]


def softcap(logits: Array, config: ModelConfig) -> Array:
    """The final softcap, where the model has one."""
    cap = config.final_softcap
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def forward(
    params: Tree, config: ModelConfig, tokens: Array, *, sites: Sequence[str] = (), edits: Sequence[Edit] = (),
    positions: Array | None = None, segments: Array | None = None,
    swap: MlpSwap | SiteSwap | None = None, unroll: bool = False, dispatch: Dispatch = "sparse", remat: str = "none",
    precision: Any = HIGHEST,
) -> tuple[Array, Activations]:  # fmt: skip
    """Run the model.

    Args:
      params, config: the model.
      tokens: [B, T] token ids.
      sites: names from `sites.SITES` to return.
      edits: changes at sites.
      positions, segments: [B, T]; tokens attend within their own segment (document) only.
      swap: something in place of every MLP, or of the values at any sites (implies ``unroll``).
      unroll: a Python loop over layers instead of a scan; same values and names.
      dispatch: how mixtures of experts are computed, "sparse", "dense" or `OnMesh`; see `experts.apply`. With `OnMesh`
        the rows of the residual stream are divided over the mesh, too, whatever the model.
      remat: what a gradient keeps of each layer: "none" is computed again, all is kept; see `REMATS`.
      precision: of every matrix product. Of sixteen-bit models norms, softmax, rotations, routers and sums are computed
        in float32 whatever it says.

    Returns:
      logits [B, T, V], at least float32, and `Activations`.
    """
    logits, activations, _ = _run(
        params, config, tokens, sites, edits, positions, segments, None, swap, unroll, dispatch, remat, precision,
    )  # fmt: skip
    return logits, activations


def forward_cached(
    params: Tree, config: ModelConfig, tokens: Array, cache: Cache, *, positions: Array, segments: Array,
    edits: Sequence[Edit] = (), precision: Any = HIGHEST,
) -> tuple[Array, Cache]:  # fmt: skip
    """Run T more tokens after those in ``cache`` (stacked over layers); logits [B, T, V] and the new cache."""
    logits, _, extended = _run(
        params, config, tokens, (), edits, positions, segments, cache, None, False, "sparse", "none", precision,
    )  # fmt: skip
    assert extended is not None
    return logits, extended


def empty_cache(config: ModelConfig, batch: int, length: int, dtype: Any) -> Cache:
    """A cache for ``length`` tokens, stacked over layers, with nothing in it (segment -1 is never seen)."""
    shape = (config.n_layers, batch, length, config.n_kv_heads)
    where = Places(
        jnp.zeros((config.n_layers, batch, length), jnp.int32),
        jnp.full((config.n_layers, batch, length), -1, jnp.int32),
    )
    return Cache(
        jnp.zeros((*shape, config.d_head), dtype),
        jnp.zeros((*shape, config.d_value), dtype),
        where,
        jnp.zeros((config.n_layers,), jnp.int32),
    )


def _run(
    params: Tree, config: ModelConfig, tokens: Array, sites: Sequence[str], edits: Sequence[Edit],
    positions: Array | None, segments: Array | None, cache: Cache | None, swap: MlpSwap | SiteSwap | None, unroll: bool,
    dispatch: Dispatch, remat: str, precision: Any,
) -> tuple[Array, Activations, Cache | None]:  # fmt: skip
    asked = check_sites(sites)
    edits = tuple(edits)
    where = places(tokens, positions, segments)
    ends: dict[str, Array] = {}
    touch = toucher(asked, edits, -1, ends)
    rows = partial(divide_rows, on=dispatch) if isinstance(dispatch, OnMesh) else _same
    x = touch("embed", rows(embed(params, config, tokens, where.positions)))
    kind = wide_dtype(x.dtype)
    turn = rotary.tables(config, where.positions, kind) if config.positions == "rope" else None
    windows = jnp.asarray(config.windows or (0,) * config.n_layers, jnp.int32)

    def layer(carry: tuple[Array, Any], inputs: Any) -> tuple[tuple[Array, Any], Any]:
        x, extra = carry
        w, index, window, layer_cache = inputs
        record: dict[str, Array] = {}
        touch: Touch = toucher(asked, edits, index, record)
        if isinstance(swap, SiteSwap):
            touch = Swapping(swap, extra, index, touch)
        reads, layer_cache = before_mlp(
            w,
            config,
            x,
            places=where,
            turn=turn,
            window=window,
            touch=touch,
            cache=layer_cache,
            precision=precision,
        )
        out = raw = None
        if not isinstance(swap, MlpSwap):
            raw = mlp(w, config, reads.mlp_in, precision, dispatch)
        else:
            extra, new = swap.step(extra, index, reads)
            out, raw = (new, None) if swap.write_site == "mlp_out" else (None, new)
        x = rows(after_mlp(w, config, reads.resid_mid, out, raw, touch=touch))
        if isinstance(touch, Swapping):
            extra = touch.carry
        return (x, extra), (record, layer_cache)

    carry = (x, None if swap is None else swap.carry)
    outputs = []
    for run in runs(config):
        rest = part((windows, cache), run.start, run.stop)
        if unroll or swap is not None:
            carry, out = _python_scan(layer, carry, (of_run(params, run), *rest), run, remat)
        else:
            indices = jnp.arange(run.start, run.stop, dtype=jnp.int32)
            carry, out = _scan(layer, carry, params, (indices, *rest), run, remat)
        outputs.append(out)
    (x, _), (record, cache) = carry, outputs[0]
    if len(outputs) > 1:
        record, cache = jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)

    line = norms.Line(touch("final_scale", norms.scale(x, params["final_norm"], config)))
    x = touch("final_norm", norms.affine(norms.divide(x, line, config), params["final_norm"], config))
    logits = wide_einsum("btd,dv->btv", x, unembedding(params, config), precision=precision)
    found = {name: record[name] for name in LAYER_SITES if name in record}
    return softcap(logits, config), Activations(**ends, **found), cache


def _same(x: Array) -> Array:
    return x


def _again(step: Callable[..., Any], remat: str, *, scanned: bool) -> Callable[..., Any]:
    """``step`` such that its gradient keeps what `REMATS` says."""
    if remat not in REMATS:
        raise InputError(f"remat is {remat!r}{near(remat, REMATS)}, expected one of {', '.join(REMATS)}")
    if remat == "none":
        return step
    return jax.checkpoint(step, policy=REMATS[remat], prevent_cse=not scanned)


def _scan(
    step: Callable[..., Any], carry: Any, params: Tree, inputs: tuple[Any, ...], run: Run, remat: str
) -> tuple[Any, Any]:
    """The layers of a run. Where a model has several runs, weights are looked up in their stacks: a slice of a stack
    would be a copy of it."""
    if run.stop - run.start == jax.tree.leaves(params["layers"])[0].shape[0]:
        return jax.lax.scan(_again(step, remat, scanned=True), carry, (of_run(params, run), *inputs))

    def look_up(carry: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        return step(carry, (at_layer(params, run, inputs[0]), *inputs))

    return jax.lax.scan(_again(look_up, remat, scanned=True), carry, inputs)


def _python_scan(step: Callable[..., Any], carry: Any, stacked: Any, run: Run, remat: str) -> tuple[Any, Any]:
    outputs = []
    for i in range(run.stop - run.start):
        one = jax.tree.map(lambda leaf: leaf[i], stacked)  # noqa: B023

        def layer(carry: Any, one: Any, index: int = run.start + i) -> tuple[Any, Any]:
            return step(carry, (one[0], index, *one[1:]))

        carry, out = _again(layer, remat, scanned=False)(carry, one)
        outputs.append(out)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)
