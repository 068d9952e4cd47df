"""jaxinterp: see how a language model computes.

Train sparse dictionaries, trace exact attribution graphs, read them and follow them. Everything named
here is imported when first used, so that ``import jaxinterp`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Completion": "jaxinterp.attribution",
    "Dictionary": "jaxinterp.dictionaries",
    "Difference": "jaxinterp.attribution",
    "Direction": "jaxinterp.attribution",
    "Feature": "jaxinterp.attribution",
    "Graph": "jaxinterp.graphs",
    "InputError": "jaxinterp.core.errors",
    "JaxinterpError": "jaxinterp.core.errors",
    "Model": "jaxinterp.models",
    "ModelConfig": "jaxinterp.models",
    "Salient": "jaxinterp.attribution",
    "Supernode": "jaxinterp.attribution",
    "Token": "jaxinterp.attribution",
    "contrast": "jaxinterp.attribution",
    "estimate": "jaxinterp.attribution",
    "generate": "jaxinterp.models",
    "head_loadings": "jaxinterp.attribution",
    "load_dictionary": "jaxinterp.dictionaries",
    "load_graph": "jaxinterp.graphs",
    "load_model": "jaxinterp.checkpoints",
    "operand_plots": "jaxinterp.attribution",
    "qk_attribution": "jaxinterp.attribution",
    "reproduce": "jaxinterp.attribution",
    "save_dictionary": "jaxinterp.dictionaries",
    "save_model": "jaxinterp.checkpoints",
    "trace": "jaxinterp.attribution",
    "virtual_weights": "jaxinterp.attribution",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from jaxinterp.attribution import Completion as Completion
    from jaxinterp.attribution import Difference as Difference
    from jaxinterp.attribution import Direction as Direction
    from jaxinterp.attribution import Feature as Feature
    from jaxinterp.attribution import Salient as Salient
    from jaxinterp.attribution import Supernode as Supernode
    from jaxinterp.attribution import Token as Token
    from jaxinterp.attribution import head_loadings as head_loadings
    from jaxinterp.attribution import operand_plots as operand_plots
    from jaxinterp.attribution import qk_attribution as qk_attribution
    from jaxinterp.attribution import trace as trace
    from jaxinterp.attribution import virtual_weights as virtual_weights
    from jaxinterp.attribution.contrast import contrast as contrast
    from jaxinterp.attribution.estimate import estimate as estimate
    from jaxinterp.attribution.reproduce import reproduce as reproduce
    from jaxinterp.checkpoints import load_model as load_model
    from jaxinterp.checkpoints import save_model as save_model
    from jaxinterp.core.errors import InputError as InputError
    from jaxinterp.core.errors import JaxinterpError as JaxinterpError
    from jaxinterp.dictionaries import Dictionary as Dictionary
    from jaxinterp.dictionaries import load_dictionary as load_dictionary
    from jaxinterp.dictionaries import save_dictionary as save_dictionary
    from jaxinterp.graphs import Graph as Graph
    from jaxinterp.graphs import load_graph as load_graph
    from jaxinterp.models import Model as Model
    from jaxinterp.models import ModelConfig as ModelConfig
    from jaxinterp.models import generate as generate


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'jaxinterp' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
