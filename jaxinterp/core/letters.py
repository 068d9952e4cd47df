"""The letters that name array axes everywhere in this code base.

=======  ==============================  =======  ==============================
letter   axis                            letter   axis
=======  ==============================  =======  ==============================
``B``    batch                           ``E``    width of one attention head
``T``    query position                  ``M``    width of the MLP
``S``    key position                    ``L``    layers
``D``    width of the model              ``N``    features of a dictionary
``H``    attention heads                 ``V``    vocabulary
``K``    key/value heads                 ``A``    active features
``G``    heads per key/value head        ``C``    cotangents (targets in a batch)
=======  ==============================  =======  ==============================

Einsum strings use the same letters in lower case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

    Array = jax.Array
else:
    Array = Any

Tree = Any
"""A pytree: nested dicts, tuples and named tuples with arrays as leaves."""
