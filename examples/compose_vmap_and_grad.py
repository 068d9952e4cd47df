"""Compose the library's functions with jax.vmap, jax.grad and jax.jit.

Every step of a trace is a pure function of pytrees. Here: every direct effect on many targets at once with
vmap, an edge as a function of the model's weights with grad, and both checked against finite differences
and against the graph that ``trace`` makes.

Run: python examples/compose_vmap_and_grad.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxinterp as ji
from jaxinterp.biology.pocket import demo_prompt
from jaxinterp.models.decoder import unembedding
from jaxinterp.models.generation import prompt_ids
from jaxinterp.replacement import freeze, make_operator, part_arrays, places

model = ji.load_model("pocket")
clt = ji.load_dictionary("pocket")
config, where = model.config, places([clt], model.config)
tokens = jnp.asarray(prompt_ids(model, demo_prompt()))[None]


def operator_of(params):
    """The frozen replacement model of the prompt, as a function of the model's weights."""
    run = freeze(params, config, tokens, places=where)
    return run, make_operator(params, config, run, where, part_arrays(where, [clt.params], config))


@jax.jit
def effects_of_embeddings(params, targets):
    """Direct effect of every token's embedding on every target token: [C, T]."""
    run, operator = operator_of(params)
    vectors = unembedding(params, config)
    vectors = (vectors - vectors.mean(axis=1, keepdims=True)).T[targets]

    def one(vector):
        reads = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.out_structure)
        back = operator.transpose(reads._replace(final=reads.final.at[-1].set(vector)))
        return jnp.einsum("td,td->t", back.embed, run.embed[0])

    return jax.vmap(one)(vectors)


graph = ji.trace(model, clt, demo_prompt())
answers = jnp.asarray(graph.nodes["index"][graph.targets])
effects = effects_of_embeddings(model.params, answers)
print("direct effects of the prompt's tokens on the next tokens:\n", np.round(np.asarray(effects), 3))


def edge(params):
    """The edge from the last token's embedding to the most probable next token, patterns and scales included."""
    return effects_of_embeddings(params, answers)[0, -1]


gradient = jax.grad(edge)(model.params)
direction = jax.tree.map(lambda g: g / (1e-12 + jnp.linalg.norm(g)), gradient)
step = 1e-3
ahead, behind = (
    edge(jax.tree.map(lambda p, d, s=sign: p + s * step * d, model.params, direction)) for sign in (1, -1)
)
slope = sum(
    jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
)
print(
    f"slope of that edge along its gradient: {slope:.4f}, by finite differences: {(ahead - behind) / (2 * step):.4f}"
)
