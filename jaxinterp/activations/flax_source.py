"""Activations of any Flax model, linen or nnx, by module path: what dictionaries of other architectures train on.

Paths are those of the modules, joined by ``/``; a module stands for the value that its ``__call__`` returns, a sown
name for the value that was sown. Letters: B batch, T position, D width, L layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.flax_calls import Inputs, Run, as_function
from jaxinterp.activations.text import Batch
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.trees import digest_with_config

READ, WRITE = "read", "write"


@dataclass(frozen=True)
class SourceConfig:
    """What has to be known of a model whose architecture is not ours.

    Attributes:
      vocab_size, context: token ids and the longest sequence.
      n_layers, d_model: how many layers its sites have, and how wide they are.
    """

    vocab_size: int
    context: int
    n_layers: int
    d_model: int

    def to_dict(self) -> dict[str, int]:
        """The fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class FlaxSource:
    """A Flax model as a source of activations; made by `flax_source`.

    Attributes:
      variables: linen variables or an nnx state: the arrays.
      sites: name → path, with ``{l}`` for the layer, or of an array with a leading axis of layers.
      config: sizes.
      tokenizer, name: as of a `Model`.
      run: the module as a pure function.
      documents: whether ``run`` keeps the documents of a sequence apart.
    """

    variables: Tree
    sites: Mapping[str, str]
    config: SourceConfig
    run: Run = field(repr=False)
    tokenizer: Any = None
    name: str = ""
    documents: bool = False

    def activations(
        self, variables: Tree, tokens: Array, positions: Array | None = None, segments: Array | None = None
    ) -> dict[str, Array]:
        """Every site of tokens [B, T], [L, B, T, D] each. Pure: to be jitted, differentiated and sharded."""
        where = _places(tokens, positions, segments)
        paths = tuple(self.sites.values())
        values = _gather(self.run, paths, self.config.n_layers, variables, tokens, *where)
        return dict(zip(self.sites, values, strict=True))

    def collect(
        self, tokens: Array, segments: Array, positions: Array, sites: tuple[str, ...]
    ) -> tuple[Array, ...]:
        """The asked sites of a batch with all its rows in one axis, [L, B·T, D] each.

        Where the source has no site of that name, the first that is asked for means "read" and any other "write":
        a dictionary's reading site comes before its writing site.
        """
        paths = tuple(self.sites[self._name(site, sites[0])] for site in sites)
        return _collect(self.variables, tokens, positions, segments, self.run, paths, self.config.n_layers)

    def _name(self, site: str, first: str) -> str:
        for name in (site, READ if site == first else WRITE):
            if name in self.sites:
                return name
        raise InputError(
            f"flax source: no site {site!r}{near(site, self.sites)}: it has {', '.join(self.sites)}"
        )

    def check(self, batch: Batch) -> None:
        """`InputError` for sequences of several documents that the model would mix."""
        if not self.documents and (batch.segments != batch.segments[:, :1]).any():
            raise InputError(
                "flax source: a sequence of the text holds several documents, which this model cannot tell apart: give "
                "flax_source(inputs=...), a function of tokens, positions and segments"
            )

    def digest(self) -> str:
        """sha256 of the sizes and of every array's path, dtype, shape and bytes; random keys do not count."""
        return digest_with_config(self.config, _arrays(self.variables))


def flax_source(
    module: Any, variables: Any = None, *, sites: Mapping[str, str], vocab_size: int, context: int,
    n_layers: int | None = None, keywords: Mapping[str, Any] | None = None, inputs: Inputs | None = None,
    tokenizer: Any = None, name: str = "",
) -> FlaxSource:  # fmt: skip
    """A linen or nnx model as a source of activations for training.

    The model is called once abstractly: nothing is computed, but every path is checked.

    Args:
      module: a linen module, or an nnx module (in evaluation mode, where it has one).
      variables: of a linen module: ``{"params": ...}`` and whatever else its call reads; None for nnx.
      sites: what to give out, for instance ``{"read": "h_{l}/ln_2", "write": "h_{l}/mlp"}``; names are "read" and
        "write", or sites of dictionaries such as "mlp_in" and "mlp_out". ``{l}`` stands for the layer; without it the
        value has a leading axis of layers, as scanned modules give, or is that of the only layer. ``path[1]`` is the
        second of several calls, ``path/0`` the first of several returned values.
      vocab_size, context: token ids and the longest sequence.
      n_layers: how many layers; None counts the axis of a scanned site, or the layers that have the path.
      keywords: of every call, for instance ``{"deterministic": True}``.
      inputs: the arguments of a call from tokens, positions and segments, for modules that take more than tokens.
      tokenizer, name: as of a `Model`.

    Raises:
      InputError: a path that the model does not have (with near ones), values of another shape than [B, T, D], sites of
        different widths, or a call that fails.
    """
    run, arrays = as_function(module, variables, inputs, dict(keywords or {}))
    if not sites:
        raise InputError('flax source: no sites: give for instance {"read": path, "write": path}')
    probe = jax.ShapeDtypeStruct((2, min(context, 5)), jnp.int32)
    try:
        found = jax.eval_shape(lambda v, t: run(v, t, *_places(t, None, None), None), arrays, probe)
    except InputError:
        raise
    except Exception as error:  # whatever the user's own call raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"flax source: the model cannot be called with tokens {probe.shape}: {type(error).__name__}: {reason}; "
            "keywords= or inputs= say how"
        ) from error
    layers = n_layers or _count(sites.values(), found)
    widths = {site: _width(site, path, found, layers, probe.shape) for site, path in sites.items()}
    if len(set(widths.values())) > 1:
        said = ", ".join(f"{site} ({sites[site]}) {width}" for site, width in widths.items())
        raise InputError(f"flax source: sites of different widths: {said}")
    config = SourceConfig(vocab_size, context, layers, next(iter(widths.values())))
    return FlaxSource(arrays, dict(sites), config, run, tokenizer, name, documents=inputs is not None)


def _each(path: str, layers: int) -> list[str]:
    return [path.replace("{l}", str(layer)) for layer in range(layers)]


def _count(paths: Iterable[str], found: Mapping[str, Any]) -> int:
    """How many layers the first path has."""
    path = next(iter(paths))
    if "{l}" not in path:
        return int(found[path].shape[0]) if path in found and found[path].ndim == 4 else 1
    count = 0
    while path.replace("{l}", str(count)) in found:
        count += 1
    return max(count, 1)


def _width(site: str, path: str, found: Mapping[str, Any], layers: int, tokens: tuple[int, ...]) -> int:
    """D of a site, after its paths and shapes have been looked at."""
    single = "{l}" not in path
    width = 0
    for one in [path] if single else _each(path, layers):
        if one not in found:
            some = ", ".join(sorted(found)[:6])
            raise InputError(
                f"flax source: the model gives nothing at {one!r} (site {site!r}){near(one, found)}; it has "
                f"{len(found)} paths, such as {some}"
            )
        shape, dtype = found[one].shape, found[one].dtype
        stacked = single and not (layers == 1 and len(shape) == 3)
        lead = (layers, *tokens) if stacked else tokens
        fits = len(shape) == len(lead) + 1 and shape[:-1] == lead and (not width or shape[-1] == width)
        if not fits or not jnp.issubdtype(dtype, jnp.floating):
            asked = ("layers, " if stacked else "") + f"B, T, {width or 'D'}"
            raise InputError(
                f"flax source: {one!r} (site {site!r}) has shape {shape} and dtype {dtype} for tokens {tokens} and "
                f"{layers} layers, expected [{asked}] of floating-point numbers"
                + ("; a path of one layer has {l} in place of its number" if stacked else "")
            )
        width = int(shape[-1])
    return width


def _places(tokens: Array, positions: Array | None, segments: Array | None) -> tuple[Array, Array]:
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :], tokens.shape)
    return positions, jnp.zeros(tokens.shape, jnp.int32) if segments is None else segments


def _gather(
    run: Run,
    paths: tuple[str, ...],
    layers: int,
    variables: Tree,
    tokens: Array,
    positions: Array,
    segments: Array,
) -> list[Array]:
    each = [[path] if "{l}" not in path else _each(path, layers) for path in paths]
    wanted = frozenset(one for group in each for one in group)
    found = run(variables, tokens, positions, segments, wanted)
    return [
        found[path] if path in found and found[path].ndim == 4 else jnp.stack([found[one] for one in group])
        for path, group in zip(paths, each, strict=True)
    ]


# The function of a source is made once, so that the same source and paths compile once.
@partial(jax.jit, static_argnames=("run", "paths", "layers"))
def _collect(
    variables: Tree,
    tokens: Array,
    positions: Array,
    segments: Array,
    run: Run,
    paths: tuple[str, ...],
    layers: int,
) -> tuple[Array, ...]:
    values = _gather(run, paths, layers, variables, tokens, positions, segments)
    return tuple(v.reshape(v.shape[0], -1, v.shape[-1]) for v in values)


def _arrays(variables: Tree) -> dict[str, np.ndarray]:
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            keys = (str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
            found["/".join(keys)] = np.asarray(leaf)
    return found
