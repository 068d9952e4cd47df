"""Floor 5: tokens and the activations they cause, streamed and stored."""

from jaxinterp.activations.collect import CollectConfig, collect
from jaxinterp.activations.flax_source import FlaxSource, flax_source
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.store_stream import StoredConfig, StoredStream, open_store, stored_stream
from jaxinterp.activations.stream import Stream, StreamConfig
from jaxinterp.activations.text import TextConfig, make_source

__all__ = [
    "CollectConfig",
    "FlaxSource",
    "Store",
    "StoredConfig",
    "StoredStream",
    "Stream",
    "StreamConfig",
    "TextConfig",
    "collect",
    "flax_source",
    "make_source",
    "open_store",
    "stored_stream",
]
