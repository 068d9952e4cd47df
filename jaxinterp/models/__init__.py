"""Floor 3: one decoder that every family is a config of. Knows no file format and no dictionary."""

from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.generation import continue_prompts, generate, generate_tokens, pad_prompts
from jaxinterp.models.generation_loop import Generated, continue_tokens
from jaxinterp.models.model import Model
from jaxinterp.models.sites import SITES, Activations, Edit
from jaxinterp.models.weights import declare

__all__ = [
    "SITES",
    "Activations",
    "Edit",
    "Generated",
    "Model",
    "ModelConfig",
    "continue_prompts",
    "continue_tokens",
    "declare",
    "forward",
    "generate",
    "generate_tokens",
    "pad_prompts",
]
