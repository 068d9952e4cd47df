"""A model as one value: parameters, config, tokenizer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Tree
from jaxinterp.core.trees import digest_with_config
from jaxinterp.models.config import ModelConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Model:
    """A decoder with its weights. A pytree whose leaves are the weights.

    Attributes:
      params: nested dict of arrays as `models.weights.declare` says.
      config: `ModelConfig`.
      tokenizer: has ``encode``, ``decode`` and ``text``; None when there is none.
      name: shown to people and written into graphs; not used to find anything.
    """

    params: Tree
    config: ModelConfig = dataclasses.field(metadata={"static": True})
    tokenizer: Any = dataclasses.field(default=None, metadata={"static": True})
    name: str = dataclasses.field(default="", metadata={"static": True})

    def digest(self) -> str:
        """sha256 of the config and of every weight's name, dtype, shape and bytes; name and tokenizer do not count."""
        return digest_with_config(self.config, self.params)

    def astype(self, dtype: Any) -> Model:
        """The same model with weights of another dtype."""
        return dataclasses.replace(self, params=jax.tree.map(lambda leaf: leaf.astype(dtype), self.params))


def require_ours(given: Any, kind: type = Model) -> None:
    """Refuse to trace through anything but our own decoder.

    Raises:
      InputError: ``given`` is no ``kind`` (`Model`, or its config), such as a Flax module or a source of activations.
    """
    if not isinstance(given, kind):
        raise InputError(
            f"no graph can be traced through a {type(given).__name__}: edges come from the linear operator that our "
            "own decoder is with its attention patterns and norms held fixed; load the parameters into it with "
            "jaxinterp.checkpoints.load_flax (layouts gemma and maxtext) or load_model"
        )
