"""Floor 2: what features do, as files: the feature record, our dashboards, other people's, exporters. numpy only.

`open_features` finds out by content whose files they are and gives a `Features`: anything with ``feature(layer, index,
part="mlp")`` → record or None. The record is a JSON-ready dict (`jaxinterp.dashboards.record`).
"""

from __future__ import annotations

from jaxinterp.dashboards.opening import bundled, open_features
from jaxinterp.dashboards.record import Features

__all__ = ["Features", "bundled", "open_features"]
