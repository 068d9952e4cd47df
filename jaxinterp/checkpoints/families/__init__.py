"""The Hugging Face families that are understood, one file each."""

from jaxinterp.checkpoints.families.base import Family
from jaxinterp.checkpoints.families.gemma2 import GEMMA2
from jaxinterp.checkpoints.families.gpt2 import GPT2
from jaxinterp.checkpoints.families.llama import LLAMA

FAMILIES: dict[str, Family] = {family.model_type: family for family in (GEMMA2, GPT2, LLAMA)}

__all__ = ["FAMILIES", "Family"]
