"""Floor 4: other people's models in and out, tokenizers, and the bundled model."""

from jaxinterp.checkpoints.export import convert
from jaxinterp.checkpoints.export_huggingface import export_huggingface
from jaxinterp.checkpoints.export_llama2c import export_llama2c
from jaxinterp.checkpoints.flax_gemma import Gemma
from jaxinterp.checkpoints.flax_maxtext import MaxText
from jaxinterp.checkpoints.flax_params import flax_fields, load_flax, to_flax
from jaxinterp.checkpoints.load import load_model
from jaxinterp.checkpoints.messages import Chat, chat
from jaxinterp.checkpoints.native import save_model
from jaxinterp.checkpoints.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxinterp.checkpoints.tokenizers import JsonTokenizer, Tokenizer, read_tokenizer_json

__all__ = [
    "Chat",
    "Gemma",
    "JsonTokenizer",
    "MaxText",
    "SentencePieceTokenizer",
    "Tokenizer",
    "chat",
    "convert",
    "export_huggingface",
    "export_llama2c",
    "flax_fields",
    "load_flax",
    "load_model",
    "read_tokenizer_json",
    "save_model",
    "to_flax",
]
