"""The Hugging Face families that are understood, one file each."""

from jaxinterp.checkpoints.families.base import Family
from jaxinterp.checkpoints.families.deepseek import DEEPSEEK_V2, DEEPSEEK_V3
from jaxinterp.checkpoints.families.gemma import GEMMA, GEMMA3, GEMMA3_TEXT
from jaxinterp.checkpoints.families.gemma2 import GEMMA2
from jaxinterp.checkpoints.families.gpt2 import GPT2
from jaxinterp.checkpoints.families.gpt_neox import GPT_NEOX
from jaxinterp.checkpoints.families.gpt_oss import GPT_OSS
from jaxinterp.checkpoints.families.llama import LLAMA
from jaxinterp.checkpoints.families.mistral import MISTRAL
from jaxinterp.checkpoints.families.mixtral import MIXTRAL
from jaxinterp.checkpoints.families.olmo2 import OLMO2
from jaxinterp.checkpoints.families.phi3 import PHI3
from jaxinterp.checkpoints.families.qwen import QWEN2, QWEN3
from jaxinterp.checkpoints.families.qwen3_moe import QWEN3_MOE

_ALL = (
    DEEPSEEK_V2,
    DEEPSEEK_V3,
    GEMMA,
    GEMMA2,
    GEMMA3,
    GEMMA3_TEXT,
    GPT2,
    GPT_NEOX,
    LLAMA,
    MISTRAL,
    OLMO2,
    PHI3,
    QWEN2,
    QWEN3,
    MIXTRAL,
    QWEN3_MOE,
    GPT_OSS,
)
FAMILIES: dict[str, Family] = {family.model_type: family for family in _ALL}

__all__ = ["FAMILIES", "Family"]
