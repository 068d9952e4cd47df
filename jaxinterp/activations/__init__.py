"""Floor 5: tokens and the activations they cause, streamed."""

from jaxinterp.activations.flax_source import FlaxSource, flax_source
from jaxinterp.activations.stream import Stream, StreamConfig
from jaxinterp.activations.text import TextConfig, make_source

__all__ = ["FlaxSource", "Stream", "StreamConfig", "TextConfig", "flax_source", "make_source"]
