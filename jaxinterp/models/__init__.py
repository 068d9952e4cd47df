"""Floor 3: one decoder that every family is a config of. Knows no file format and no dictionary."""

from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.generation import generate, generate_tokens
from jaxinterp.models.model import Model
from jaxinterp.models.sites import SITES, Activations, Edit
from jaxinterp.models.weights import declare

__all__ = [
    "SITES",
    "Activations",
    "Edit",
    "Model",
    "ModelConfig",
    "declare",
    "forward",
    "generate",
    "generate_tokens",
]
