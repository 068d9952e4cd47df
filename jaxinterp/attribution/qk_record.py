"""What QK attribution found: attention scores as sums over pairs of sources, to be asked in several ways.

Query and key are each a sum of one vector a source, so the table of all pairs is a product of two thin matrices and is
never held whole: sums over groups and over one side are products of sums.

Letters: E head width, n sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.kinds import BIAS, BIAS_NAMES, EMBEDDING, FEATURE, KIND_NAMES, MLP_PART, PART_NAMES

_BLOCK, _KEPT = 1024, 100
_KINDS = 4  # sums by kind that a report shows
_FIELDS = ("kind", "part", "layer", "position", "index")


class Pair(NamedTuple):
    """A term of a score: the number of the source of the query, of the key, and what they add."""

    query: int
    key: int
    value: float


class Share(NamedTuple):
    """The sum of the terms of two groups of sources."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    value: float


@dataclass(frozen=True, eq=False)
class QkScore:
    """A score, or the difference of two for the same query, as a sum over pairs of sources.

    Attributes:
      keys: position of the key; of a difference the one, then the other.
      value: what the model computes, before mask and softmax, after the factor on scores.
      attention: of each key.
      sources: [n] of dtype `graphs.kinds.NODE`.
      of_query, of_key: [n, E] what each source adds to the query (times the factor on scores) and to the key (of a
        difference: to the one less to the other).
    """

    keys: tuple[int, ...]
    value: float
    attention: tuple[float, ...]
    sources: np.ndarray
    of_query: np.ndarray
    of_key: np.ndarray

    @cached_property
    def total(self) -> float:
        """The sum of all terms."""
        return float(self.of_query.sum(axis=0, dtype=np.float64) @ self.of_key.sum(axis=0, dtype=np.float64))

    @property
    def residual(self) -> float:
        """|sum of terms − value| / sum of |terms|: rounding, and nothing else."""
        return abs(self.total - self.value) / self.size if self.size else abs(self.total - self.value)

    @property
    def size(self) -> float:
        """The sum of the absolute values of all terms."""
        return self._survey[1]

    @property
    def feature_share(self) -> float:
        """The share of pairs of features in the sum of absolute terms: how much of the score features can explain."""
        return self._survey[2] / self.size if self.size else 0.0

    def terms(self) -> np.ndarray:
        """The whole table [n, n], queries' sources down, in float64. Raises InputError above 4 GiB."""
        n = len(self.sources)
        if 8 * n * n > 4 << 30:
            raise InputError(
                f"the table of {n} sources squared needs {8 * n * n / 2**30:.1f} GiB: use pairs() or by()"
            )
        return _wide(self.of_query) @ _wide(self.of_key).T

    def pairs(self, top: int = 20) -> tuple[list[Pair], float]:
        """The ``top`` largest terms, by absolute value, and the sum of all others."""
        found = self._survey[0][:top] if top <= _KEPT else self._walk(top)[0]
        return found, self.total - sum(pair.value for pair in found)

    def marginal(self, side: str) -> np.ndarray:
        """[n] what each source adds on one side, "query" or "key", summed over all of the other."""
        if side not in ("query", "key"):
            raise InputError(f"side is {side!r}, expected 'query' or 'key'")
        one, other = (self.of_query, self.of_key) if side == "query" else (self.of_key, self.of_query)
        return _wide(one) @ other.sum(axis=0, dtype=np.float64)

    def by(self, *fields: str) -> list[Share]:
        """Sums over pairs of groups of sources that agree in some fields: "kind", "part", "layer", "position", "index".

        Groups come in ascending order; sources that add nothing are left out.
        """
        if not fields or set(fields) - set(_FIELDS):
            raise InputError(
                f"sources are grouped by {', '.join(_FIELDS)}, not by {', '.join(fields) or 'nothing'}"
            )
        sides = []
        for used, vectors in zip(self._used, (self.of_query, self.of_key), strict=True):
            columns = np.stack([self.sources[name][used].astype(np.int64) for name in fields], axis=1)
            groups, which = np.unique(columns, axis=0, return_inverse=True)
            sums = np.zeros((len(groups), vectors.shape[1]))
            np.add.at(sums, which.reshape(-1), _wide(vectors[used]))
            sides.append((groups, sums))
        table = sides[0][1] @ sides[1][1].T
        names = [[tuple(int(x) for x in group) for group in groups] for groups, _ in sides]
        return [
            Share(q, k, float(table[i, j])) for i, q in enumerate(names[0]) for j, k in enumerate(names[1])
        ]

    @cached_property
    def _used(self) -> tuple[np.ndarray, np.ndarray]:
        """Sources that add something to the query, and to the key."""
        return np.flatnonzero(self.of_query.any(axis=1)), np.flatnonzero(self.of_key.any(axis=1))

    @cached_property
    def _survey(self) -> tuple[list[Pair], float, float]:
        return self._walk(_KEPT)

    def _walk(self, top: int) -> tuple[list[Pair], float, float]:
        """The largest terms, the sum of absolute terms, and that of pairs of features, in one pass over the table."""
        queries, keys = self._used
        features = self.sources["kind"] == FEATURE
        keys = keys[np.argsort(~features[keys], kind="stable")]  # features first
        count = int(features[keys].sum())
        of_key = np.ascontiguousarray(self.of_key[keys].T)
        found: list[Pair] = []
        size, feature_size = 0.0, 0.0
        least = 0.0  # what the last of ``top`` terms has at least
        for start in range(0, len(queries) if len(keys) else 0, _BLOCK):
            rows = queries[start : start + _BLOCK]
            table = self.of_query[rows] @ of_key
            np.abs(table, out=table)
            sums = table[:, :count].sum(axis=1)
            size += float(sums.sum(dtype=np.float64) + table[:, count:].sum(axis=1).sum(dtype=np.float64))
            feature_size += float(sums[features[rows]].sum(dtype=np.float64))
            highest = table.max(axis=1)
            if top < len(highest):  # so many rows have a term of that size
                least = max(least, float(np.partition(highest, -top)[-top]) if top else np.inf)
            here = np.flatnonzero(highest >= least)
            for i, j in zip(*np.nonzero(table[here] >= least), strict=True):
                query, key = int(rows[here[i]]), int(keys[j])
                value = float(_wide(self.of_query[query]) @ _wide(self.of_key[key]))
                found.append(Pair(query, key, value))
            found = sorted(found, key=lambda pair: (-abs(pair.value), pair.query, pair.key))[:top]
            if len(found) == top and top:
                least = max(least, abs(found[-1].value) * (1 - 1e-5))
        return found, size, feature_size


@dataclass(frozen=True, eq=False)
class QkAttribution:
    """Scores of one query of a head. ``attribution[key]`` is the `QkScore` of a key.

    Attributes:
      layer, head, query: whose.
      token_ids, token_texts: of the prompt.
      scores: a `QkScore` for each key.
      model, dictionaries: their names.
    """

    layer: int
    head: int
    query: int
    token_ids: tuple[int, ...]
    token_texts: tuple[str, ...]
    scores: tuple[QkScore, ...]
    model: str = ""
    dictionaries: tuple[str, ...] = ()

    def __getitem__(self, key: int) -> QkScore:
        for score in self.scores:
            if score.keys == (key,):
                return score
        known = ", ".join(str(score.keys[0]) for score in self.scores)
        raise InputError(f"the key at position {key} was not asked for, only {known}")

    def contrast(self, key: int, other: int) -> QkScore:
        """Why ``key`` rather than ``other``: the difference of their scores, in the same terms.

        Where neither is masked it is the logarithm of the ratio of their attention. The sources of the query come once,
        with what they add to the difference.
        """
        one, two = self[key], self[other]
        return QkScore(
            (key, other), one.value - two.value, (*one.attention, *two.attention), one.sources, one.of_query,
            one.of_key - two.of_key,
        )  # fmt: skip

    def name(self, source: int) -> str:
        """A source in a few words."""
        row = self.scores[0].sources[source]
        layer, position, index = int(row["layer"]), int(row["position"]), int(row["index"])
        part = "" if row["part"] == MLP_PART else f" {PART_NAMES[row['part']]}"
        at = f"@{position} {self.token_texts[position]!r}"
        if row["kind"] == FEATURE:
            return f"feature L{layer}{part}/{index}{at}"
        if row["kind"] == EMBEDDING:
            return f"embedding {at}"
        if row["kind"] == BIAS:
            return f"{BIAS_NAMES[index]} bias L{layer}{part}{at}"
        return f"{KIND_NAMES[row['kind']]} L{layer}{part}{at}"

    def report(self, top: int = 10) -> str:
        """A page for people: every key with its score by kinds and its largest terms, and two keys compared."""
        lines = [f"layer {self.layer}, head {self.head}, query {self.query} {self.token_texts[self.query]!r}"]
        for score in self.scores:
            key = score.keys[0]
            lines.append(
                f"\nkey {key} {self.token_texts[key]!r}: attention {score.attention[0]:.1%}, score {score.value:+.4f}"
            )
            lines += self._explain(score, top)
        if len(self.scores) > 1:
            one, two = self.scores[0].keys[0], self.scores[1].keys[0]
            score = self.contrast(one, two)
            lines.append(
                f"\nwhy key {one} rather than {two}: score {score.value:+.4f}, attention x{np.exp(score.value):.3g}"
            )
            lines += self._explain(score, top)
        return "\n".join(lines)

    def _explain(self, score: QkScore, top: int) -> list[str]:
        kinds = sorted(score.by("kind"), key=lambda share: -abs(share.value))
        named = [f"{KIND_NAMES[s.query[0]]} x {KIND_NAMES[s.key[0]]} {s.value:+.4f}" for s in kinds[:_KINDS]]
        if len(kinds) > _KINDS:
            named.append(f"others {sum(s.value for s in kinds[_KINDS:]):+.4f}")
        lines = ["  by kind (query x key): " + ", ".join(named)]
        pairs, rest = score.pairs(top)
        lines += [f"  {p.value:+10.4f}  {self.name(p.query)}  x  {self.name(p.key)}" for p in pairs]
        lines.append(f"  {rest:+10.4f}  all other pairs")
        lines.append(
            f"  sum {score.total:+.4f}, off by {score.residual:.1e} of the sum of absolute terms, "
            f"{score.feature_share:.0%} of which are pairs of features"
        )
        return lines

    def to_dict(self, top: int = 20) -> dict[str, Any]:
        """JSON values: each score with its sums by kind, its ``top`` pairs and the sum of the others."""
        return {
            "layer": self.layer,
            "head": self.head,
            "query": self.query,
            "token_ids": list(self.token_ids),
            "token_texts": list(self.token_texts),
            "model": self.model,
            "dictionaries": list(self.dictionaries),
            "scores": [self.score_to_dict(score, top) for score in self.scores],
        }

    def score_to_dict(self, score: QkScore, top: int = 20) -> dict[str, Any]:
        """The same of one score, or of a contrast."""
        pairs, rest = score.pairs(top)
        return {
            "keys": list(score.keys),
            "attention": list(score.attention),
            "value": score.value,
            "sum": score.total,
            "residual": score.residual,
            "feature_share": score.feature_share,
            "by_kind": [
                {"query": KIND_NAMES[s.query[0]], "key": KIND_NAMES[s.key[0]], "value": s.value}
                for s in score.by("kind")
            ],
            "pairs": [
                {"query": self._source(p.query), "key": self._source(p.key), "value": p.value} for p in pairs
            ],
            "rest": rest,
        }

    def _source(self, number: int) -> dict[str, Any]:
        row = self.scores[0].sources[number]
        return {
            "kind": KIND_NAMES[row["kind"]],
            "part": PART_NAMES[row["part"]],
            "layer": int(row["layer"]),
            "position": int(row["position"]),
            "index": int(row["index"]),
            "text": self.name(number),
        }


def _wide(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float64, copy=False)
