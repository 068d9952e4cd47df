"""What a dashboards run computes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from jaxinterp.activations.text import TextConfig
from jaxinterp.core.errors import InputError


@dataclass(frozen=True)
class DashboardConfig:
    """What is computed, of which tokens. Everything here changes the files; what does not is an argument of `make`.

    Attributes:
      tokens: how many are read; whole sequences, and fewer where the text has fewer.
      text: which; ``text.batch`` and ``text.limit`` do not count.
      seed: of the text.
      layers: the model's layers of which features get dashboards; empty means all that the dictionary has.
      top: texts with the largest activations. Texts that agree from the window's beginning to the token after the peak
        are one, and counted.
      quantiles, in_quantile: groups of further texts, a fair sample of all, from the largest activations to the
        smallest, and how many are in each.
      before, after: tokens shown around a peak.
      logits, neighbours, coactive: how many of each are kept; 0 leaves them out.
      coactive_tokens: of how many tokens, sampled, it is counted which features are active together.
      microbatch: sequences a device runs at a time; 0 takes about 4,096 tokens. It is part of what the result depends
        on, in the last digit.
      first_tokens: whether the first token of every document counts.
      real: as what real numbers are stored, "float32" or "float16" (of which activations keep 3 digits).
    """

    tokens: int = 1_000_000
    text: TextConfig = field(default_factory=TextConfig)
    seed: int = 0
    layers: tuple[int, ...] = ()
    top: int = 20
    quantiles: int = 5
    in_quantile: int = 5
    before: int = 40
    after: int = 20
    logits: int = 10
    neighbours: int = 10
    coactive: int = 10
    coactive_tokens: int = 16_384
    microbatch: int = 0
    first_tokens: bool = True
    real: str = "float32"

    def __post_init__(self) -> None:
        limits = {"tokens": 1, "top": 1, "before": 0, "after": 0, "logits": 0, "neighbours": 0, "coactive": 0}
        limits |= {"quantiles": 0, "in_quantile": 1, "coactive_tokens": 0, "microbatch": 0, "seed": 0}
        for name, least in limits.items():
            if getattr(self, name) < least:
                raise InputError(f"dashboards: {name} is {getattr(self, name)}, expected at least {least}")
        for name, most in {
            "top": 1000,
            "before": 4096,
            "after": 4096,
            "logits": 1000,
            "tokens": 1 << 32,
        }.items():
            if getattr(self, name) > most:
                raise InputError(f"dashboards: {name} is {getattr(self, name)}, expected at most {most}")
        if self.quantiles * self.in_quantile > 1000 or self.quantiles > 100:
            raise InputError("dashboards: more than 1000 examples in quantiles, or more than 100 quantiles")
        if self.real not in ("float32", "float16"):
            raise InputError(f"dashboards: real is {self.real!r}, expected float32 or float16")
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def sequences(self) -> int:
        """How many are read at most."""
        return max(1, self.tokens // self.text.length)

    @property
    def block(self) -> int:
        """Sequences in a block."""
        return min(self.sequences, self.microbatch or max(1, 4096 // self.text.length))

    @property
    def window(self) -> int:
        """Tokens of an example at most."""
        return self.before + 1 + self.after

    def settings(self) -> dict[str, Any]:
        """JSON-ready, for provenance; the text is named apart."""
        found = dataclasses.asdict(self)
        del found["text"]
        return {**found, "layers": list(self.layers), "microbatch": self.block}
