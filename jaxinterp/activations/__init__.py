"""Floor 5: tokens and the activations they cause, streamed."""

from jaxinterp.activations.stream import Stream, StreamConfig
from jaxinterp.activations.text import TextConfig, make_source

__all__ = ["Stream", "StreamConfig", "TextConfig", "make_source"]
