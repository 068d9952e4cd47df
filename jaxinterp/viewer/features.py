"""Which dashboards belong to a graph: those given, a folder beside its file, those that come with the package."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import FEATURE, PART_NAMES, Graph
from jaxinterp.graphs.plain import plain
from jaxinterp.viewer.messages import Refused

LOG = logging.getLogger("jaxinterp.viewer")
BESIDE = ("features", "dashboards")


class FeatureSource:
    """Records of the features of one graph; ``source`` is anything with ``feature(layer, index, part)``."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self._lock = threading.Lock()  # sources read files and remember; requests come in several threads

    def record(self, graph: Graph, node: int) -> dict[str, Any] | None:
        """The record of a feature node (FEATURE of docs/viewer.md), or None. Raises InputError on damaged files."""
        place = graph.nodes[node]
        if place["kind"] != FEATURE or place["index"] < 0:
            return None
        with self._lock:
            found = self.source.feature(
                int(place["layer"]), int(place["index"]), PART_NAMES[int(place["part"])]
            )
        return None if found is None else plain(found, "feature")

    def label(self, graph: Graph, node: int) -> str:
        """A feature's label, "" where there is none or it cannot be read."""
        try:
            found = self.record(graph, node)
        except Exception:  # labels are an extra: without them the graph is as good
            LOG.exception("the label of node %d", node)
            return ""
        label = (found or {}).get("label")
        return label if isinstance(label, str) else ""

    def labels(self, graph: Graph) -> dict[int, str]:
        """Labels of the graph's features that have none in the graph, where the source has them all at hand."""
        known = getattr(self.source, "labels", None)
        if known is None or not hasattr(known, "all"):
            return {}
        try:
            with self._lock:
                found = known.all()
        except Exception:  # as above
            LOG.exception("labels")
            return {}
        if not found:
            return {}
        features = np.flatnonzero(graph.nodes["kind"] == FEATURE)
        columns = (graph.nodes[name][features].tolist() for name in ("part", "layer", "index"))
        labels = {}
        for node, part, layer, index in zip(features.tolist(), *columns, strict=True):
            one = found.get(f"{PART_NAMES[part]}/{layer}/{index}")
            if one and isinstance(one.get("label"), str) and one["label"] and not graph.labels[node]:
                labels[node] = one["label"]
        return labels


class Dashboards:
    """Where to look. given: a path from the user, for every graph (InputError if nothing there is understood)."""

    def __init__(self, given: str | None = None) -> None:
        self.given = given
        if given is not None:
            self._open(given, None, scans=None)

    def of(self, path: Path, graph: Graph) -> FeatureSource | None:
        """The dashboards of a graph whose file is ``path``, or None. Never fails: what cannot be read is logged."""
        metadata = (graph.foreign or {}).get("metadata", {})
        scan = metadata.get("scan")
        scan = scan if isinstance(scan, str) and scan else None
        places = [Path(self.given)] if self.given is not None else []
        places += [path.with_name(f"{path.stem}.{name}") for name in BESIDE]
        places += [path.with_name(name) for name in BESIDE]
        for place in places:
            if place.exists():
                try:
                    return self._open(str(place), scan, scans=graph)
                except InputError as error:
                    LOG.warning("no dashboards for %s: %s", path.name, error)
                except Exception:
                    LOG.exception("dashboards in %s", place)
        return bundled_features(graph)

    def _open(self, place: str, scan: str | None, scans: Graph | None) -> FeatureSource:
        from jaxinterp.dashboards import open_features

        if scan is not None and scans is not None:
            try:
                return FeatureSource(open_features(place, scan=scan))
            except InputError:
                pass  # the set may have another name there, or none
        return FeatureSource(open_features(place))


def record_of(source: FeatureSource | None, graph: Graph, node: int) -> dict[str, Any] | None:
    """The record of a node for the page, None where nothing is known of it. Raises Refused (404) where it cannot be
    read."""
    if source is None:
        return None
    try:
        return source.record(graph, node)
    except InputError as error:
        LOG.warning("%s", error)
        raise Refused(404, "the dashboard of this feature cannot be read; see the terminal") from error


def bundled_features(graph: Graph) -> FeatureSource | None:
    """The dashboards of the bundled dictionaries, for graphs made with one of them."""
    from jaxinterp.dashboards import bundled

    name = graph.settings.get("dictionary")
    if not (isinstance(name, str) and name.startswith("pocket")):
        return None
    try:
        found = bundled(name)
    except InputError as error:
        LOG.warning("%s", error)
        return None
    return None if found is None else FeatureSource(found)
