"""The same derivatives by another route: the model itself, with what is held fixed put back at its sites."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.models import Edit, forward
from jaxinterp.models.swap import SiteSwap
from jaxinterp.replacement import Reads, Sources
from tests.attribution.cases import TOKENS
from tests.replacement.combinations import Made

PATTERN = ("pattern",)
FROZEN = (
    *PATTERN,
    "attn_scale",
    "mlp_scale",
    "attn_post_scale",
    "mlp_post_scale",
    "latent_scale",
    "final_scale",
)

TOLERANCE = 1e-10


def random_like(structure: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), structure)


def dot(a: Any, b: Any) -> float:
    return float(sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


def close(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


def without_units(change: Any) -> Any:
    """The same change with none in the factors on biases, which the model has no place for, but those of decoders."""
    layers = change.layers
    zero = partial(jax.tree.map, jnp.zeros_like)
    layers = layers._replace(attention=zero(layers.attention), norm=zero(layers.norm), mlp=zero(layers.mlp))
    return change._replace(layers=layers, final=zero(change.final))


def derivative(made: Made, change: Sources, held: tuple[str, ...]) -> Reads:
    """What a small change of embeddings and of what is written does to reads, with the values at ``held`` fixed.

    Factors on biases but those of decoders have no change here.
    """
    params, config = made.model.params, made.model.config
    tokens = jnp.asarray(TOKENS)[None]
    sites = {*held, *(p.write_site for p in made.places), *(p.read_site for p in made.places if p.read_site)}
    _, clean = forward(params, config, tokens, sites=sorted(sites))
    held = tuple(site for site in held if getattr(clean, site) is not None)

    def run(strength: Any) -> Reads:
        embed = change.embed
        if config.positions == "learned":
            embed = embed + change.position[:, None] * params["embed"]["positions"][: len(TOKENS)]
        edits = [Edit("embed", "add", strength * embed)]
        if "final_scale" in held:
            edits.append(Edit("final_scale", "replace", clean.final_scale))

        def step(found: dict[Any, Any], layer: int, site: str, value: Any) -> Any:
            if site in held:
                value = getattr(clean, site)[layer]
            for i, place in enumerate(made.places):
                if place.write_site == site:
                    if place.read_site == site:
                        found = {**found, (i, layer): value}
                    value = written(found, i, layer, value)
            for i, place in enumerate(made.places):
                if place.read_site == site != place.write_site:
                    found = {**found, (i, layer): value}
            return found, value

        def written(found: dict[Any, Any], i: int, layer: int, value: Any) -> Any:
            place, own = made.places[i], made.at(made.places[i])
            if layer not in place.layers and not place.constant:
                return value
            moved = change.layers.write[i][layer]
            if own is not None and layer in place.layers:
                at = place.layers.index(layer)
                moved = moved + change.layers.decoder[i][layer][:, None] * own.params["b_dec"][at][None]
            value = getattr(clean, place.write_site)[layer] + strength * moved[None]
            if own is not None and own.config.skip and layer in place.layers:
                difference = found[i, layer] - getattr(clean, place.read_site)[layer]
                value = value + difference @ own.params["W_skip"][place.layers.index(layer)].T
            return value

        carry: dict[Any, Any] = {}

        def kept(found: Any, layer: int, site: str, value: Any) -> Any:
            nonlocal carry
            carry, value = step(carry, layer, site, value)
            return found, value

        _, activations = forward(
            params, config, tokens, sites=("final_norm",), edits=edits, swap=SiteSwap(kept, None)
        )
        reads = tuple(
            None if p.read_site is None else jnp.stack([carry[i, n][0] for n in range(config.n_layers)])
            for i, p in enumerate(made.places)
        )
        return Reads(reads, activations.final_norm[0])

    return jax.jvp(run, (jnp.zeros(()),), (jnp.ones(()),))[1]
