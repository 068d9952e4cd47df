"""The feature record, and what gives records.

A record is a dict that is JSON as it stands:

  source          "jaxinterp", "circuit-tracer", "anthropic" or "neuronpedia"
  layer, part, index, label
  explanations    [{"text", "by", "score" or None}]
  frequency       share of tokens on which it is active, or None
  max_activation  or None
  histogram       {"edges": [k + 1], "counts": [k], "log": bool} or None
  quantiles       100 values, ascending, or None
  examples        [{"name": "Top" or "Quantile 3" ..., "examples": [{"tokens": [str], "values": [x], "at": place of the
                  peak, "where": str or None, "repeats": how often this text came}]}]
  top_logits, bottom_logits   [[text, value or None]]
  decoder_norms   [[layer, norm]]
  neighbours      [{"layer", "index", "cosine", "label"}]
  coactive        [{"layer", "index", "value"}]
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

Record = dict[str, Any]


@runtime_checkable
class Features(Protocol):
    """Where records come from."""

    def feature(self, layer: int, index: int, part: str = "mlp") -> Record | None:
        """The record of a feature, or None where there is none of it.

        Raises:
          InputError: the files are damaged; one line that names the file.
        """


def empty(source: str, layer: int, part: str, index: int) -> Record:
    """A record in which nothing is known but which feature it is of."""
    return {
        "source": source, "layer": layer, "part": part, "index": index, "label": "", "explanations": [],
        "frequency": None, "max_activation": None, "histogram": None, "quantiles": None, "examples": [],
        "top_logits": [], "bottom_logits": [], "decoder_norms": [], "neighbours": [], "coactive": [],
    }  # fmt: skip
