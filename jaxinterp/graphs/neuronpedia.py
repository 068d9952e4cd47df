"""Attribution graphs as the JSON that Neuronpedia and other viewers read; reading takes every dialect."""

from __future__ import annotations

from jaxinterp.graphs.json_read import read_json_graph
from jaxinterp.graphs.json_write import json_document, write_json_graph

__all__ = ["json_document", "read_json_graph", "write_json_graph"]
