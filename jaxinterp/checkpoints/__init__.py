"""Floor 4: other people's models in and out, tokenizers, and the bundled model."""

from jaxinterp.checkpoints.export import convert
from jaxinterp.checkpoints.export_huggingface import export_huggingface
from jaxinterp.checkpoints.export_llama2c import export_llama2c
from jaxinterp.checkpoints.load import load_model
from jaxinterp.checkpoints.native import save_model
from jaxinterp.checkpoints.tokenizers import JsonTokenizer, Tokenizer, read_tokenizer_json

__all__ = [
    "JsonTokenizer",
    "Tokenizer",
    "convert",
    "export_huggingface",
    "export_llama2c",
    "load_model",
    "read_tokenizer_json",
    "save_model",
]
