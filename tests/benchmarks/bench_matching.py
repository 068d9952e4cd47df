"""What matching large dictionaries costs: ``python tests/benchmarks/bench_matching.py [features] [width]``.

The second dictionary is the first in another order, with noise, so that the share of features found again is known.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from scipy import sparse

from jaxinterp.evaluation.matching import best, greedy
from jaxinterp.evaluation.similarity import Correlation, Cosine

TOKENS, ACTIVE = 20_000, 32


def main(features: int = 16_384, width: int = 256) -> None:
    """Print a line for each way of matching."""
    draw = np.random.default_rng(0)
    order = draw.permutation(features)
    a = draw.normal(size=(features, width)).astype(np.float32)
    b = a[order] + 0.3 * draw.normal(size=(features, width)).astype(np.float32)
    columns = draw.integers(0, features, (TOKENS, ACTIVE)).ravel()
    ends = np.arange(0, TOKENS * ACTIVE + 1, ACTIVE)
    codes = sparse.csr_matrix((draw.random(TOKENS * ACTIVE), columns, ends), (TOKENS, features))
    vectors, activations = Cosine(a, b), Correlation(codes, codes[:, order])
    for name, similarity, way in (
        ("best, decoders", vectors, best),
        ("greedy, decoders", vectors, greedy),
        (f"best, activations on {TOKENS} tokens, {ACTIVE} active", activations, best),
    ):
        start = time.process_time()
        found = way(similarity)
        seconds = time.process_time() - start
        partner = found.partner if way is best else found.second
        right = float((order[partner] == np.arange(features)).mean())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {seconds:.1f} CPU s, peak {memory:.2f} GiB, {right:.1%} found again", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3]))
