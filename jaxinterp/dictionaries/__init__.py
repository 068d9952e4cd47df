"""Floor 4: dictionaries. One protocol; per-layer and cross-layer transcoders; files in and out."""

from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, Kind, fits, kind_of
from jaxinterp.dictionaries.lazy import LazyDictionary
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from jaxinterp.dictionaries.sites import preset

__all__ = [
    "Dictionary",
    "DictionaryConfig",
    "Kind",
    "LazyDictionary",
    "fits",
    "kind_of",
    "load_dictionary",
    "preset",
    "save_dictionary",
]
