"""Floor 4: other people's models in and out, tokenizers, and the bundled model."""

from jaxinterp.checkpoints.load import load_model
from jaxinterp.checkpoints.native import save_model
from jaxinterp.checkpoints.tokenizers import JsonTokenizer, Tokenizer, read_tokenizer_json

__all__ = ["JsonTokenizer", "Tokenizer", "load_model", "read_tokenizer_json", "save_model"]
