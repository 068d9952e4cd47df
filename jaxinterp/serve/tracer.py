"""A loaded model and its dictionary, asked for graphs and next tokens by people who may ask for anything.

Letters: T position, V vocabulary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinterp.attribution import trace
from jaxinterp.attribution.blocks import padded_length
from jaxinterp.attribution.prepare import prepare
from jaxinterp.attribution.setup import fit
from jaxinterp.attribution.target_text import parse_targets
from jaxinterp.attribution.targets import salient
from jaxinterp.attribution.wanted import Completion
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.prune import check_settings
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.generation import check_tokens, prompt_ids
from jaxinterp.models.model import Model
from jaxinterp.serve.jobs import Report

LONGEST = 1_000_000  # characters of a prompt
TARGETS = 100
_TRACED, _PRUNED, _WRITTEN = 0.9, 0.95, 0.99  # of all the work
_WARM_TOKENS = 12


@dataclass(frozen=True)
class Asked:
    """A graph that was asked for, and nothing about it is wrong as far as can be told without running the model.

    prompt: text or token ids; targets: of `attribution.trace`; the others as the command line has them.
    """

    prompt: str | list[int]
    targets: Any = None
    max_feature_nodes: int | None = None
    node_threshold: float = 0.8
    edge_threshold: float = 0.98


class Tracer:
    """A model and a dictionary.

    Args:
      model, dictionary: as for `attribution.trace`.
      convention: of every graph.
      target_files: the folder in which targets may name files; None refuses them.
      memory_budget: of `attribution.trace`.
    """

    def __init__(
        self, model: Model, dictionary: Any, *, convention: str = "paper", target_files: Path | None = None,
        memory_budget: int | None = None,
    ) -> None:  # fmt: skip
        check_settings(0, 0, convention)
        self.model, self.dictionary, self.convention = model, dictionary, convention
        self.target_files, self.memory_budget = target_files, memory_budget
        self.parts = fit(model, dictionary)

    @property
    def context(self) -> int:
        """The longest prompt, in tokens."""
        return self.model.config.context

    def check(self, asked: Asked) -> np.ndarray:
        """The tokens of the prompt [T], after looking at everything that can be wrong before the model runs.

        Raises:
          InputError: what `attribution.trace` and `Graph.prune` would refuse, memory apart.
        """
        check_settings(asked.node_threshold, asked.edge_threshold, self.convention)
        if asked.max_feature_nodes is not None and asked.max_feature_nodes < 1:
            raise InputError(f"max_feature_nodes is {asked.max_feature_nodes}, at least 1 is needed")
        ids = self.tokens(asked.prompt)
        text = asked.prompt if isinstance(asked.prompt, str) else None
        config, tokenizer = self.model.config, self.model.tokenizer
        prepare(asked.targets, ids, config, tokenizer, self.parts.junctions(), text)
        return ids

    def tokens(self, prompt: str | list[int]) -> np.ndarray:
        """[T] int32. Raises InputError: empty, too long, or outside the vocabulary."""
        if len(prompt) > LONGEST:
            raise InputError(f"the prompt has {len(prompt)} characters, more than the {LONGEST} allowed")
        return check_tokens(self.model.config, prompt_ids(self.model, prompt))

    def targets(self, text: str | None, completion: str | None = None) -> list[Any] | None:
        """What lines of text ask for, each as ``--target`` of ``jaxinterp trace`` takes it; None for no lines.

        Args:
          text: a target a line.
          completion: a text that continues the prompt, each token of which is a target.

        Raises:
          InputError: what `target_text.parse_targets` raises; more than 100 lines; a file that may not be read.
        """
        lines = [line for line in (text or "").splitlines() if line.strip()]
        if len(lines) > TARGETS:
            raise InputError(f"{len(lines)} targets are more than the {TARGETS} allowed")
        try:
            found = parse_targets(lines, self._target_file)
        except InputError as error:
            folder = "" if self.target_files is None else f"{self.target_files.resolve()}{os.sep}"
            raise InputError(str(error).replace(folder, "") if folder else str(error)) from None
        if completion:
            found.append(Completion(completion))
        return found or None

    def _target_file(self, name: str) -> Path:
        """The file that a target names, if it is in the folder for such files."""
        if self.target_files is None:
            raise InputError(
                f"the target names the file {name!r:.80}: start with --target-files FOLDER to allow it"
            )
        folder = self.target_files.resolve()
        try:
            path = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError):
            path = folder
        if not path.is_relative_to(folder) or not path.is_file():
            raise InputError(f"there is no file {name!r:.80} in the folder of --target-files")
        return path

    def graph(self, asked: Asked, report: Report) -> Graph:
        """The pruned graph. Raises what `attribution.trace` raises, and `jobs.Cancelled`."""
        report("running the model")

        def advance(done: int, total: int) -> None:
            report("tracing", _TRACED * done / max(total, 1))

        whole = trace(
            self.model, self.dictionary, asked.prompt, targets=asked.targets, convention=self.convention,
            max_feature_nodes=asked.max_feature_nodes, memory_budget=self.memory_budget, progress=advance,
            warm_up=False,
        )  # fmt: skip
        report("pruning", _TRACED)
        small = whole.prune(asked.node_threshold, asked.edge_threshold)
        report("writing", _PRUNED)
        return small

    def written(self, report: Report) -> None:
        """Say that all but the last step is done."""
        report("opening", _WRITTEN)

    def salient(self, prompt: str | list[int], mass: float, at_most: int) -> list[tuple[int, float]]:
        """(token id, probability) of the next tokens that a graph would explain; see `targets.salient`."""
        probabilities = self.probabilities(self.tokens(prompt))
        return [(int(i), float(probabilities[i])) for i in salient(probabilities, mass, at_most)]

    def probabilities(self, ids: np.ndarray) -> np.ndarray:
        """[V] float64: of the token after the prompt."""
        config = self.model.config
        padded = np.pad(ids, (0, padded_length(len(ids), config.context) - len(ids)), mode="edge")[None]
        logits = np.asarray(_last(self.model.params, config, padded, np.int32(len(ids) - 1)), np.float64)
        if not np.isfinite(logits).all():
            raise InputError("the model's logits are not finite on this prompt")
        shifted = np.exp(logits - logits.max())
        return shifted / shifted.sum()

    def text(self, token: int) -> str:
        """One token as a person reads it."""
        return str(getattr(self.model.tokenizer, "text", str)(int(token)))

    def warm(self, report: Report) -> None:
        """Compile what a short prompt needs, by tracing one."""
        config, tokenizer = self.model.config, self.model.tokenizer
        first = [] if getattr(tokenizer, "bos", None) is None else [tokenizer.bos]
        count = min(_WARM_TOKENS, config.context) - len(first)
        # No prompt in particular: tokens from all over the vocabulary.
        ids = [*first, *np.linspace(0, config.vocab_size - 1, max(count, 1) + 2)[1:-1].astype(int).tolist()]
        self.probabilities(np.asarray(ids, np.int32))
        trace(
            self.model, self.dictionary, ids, convention=self.convention, memory_budget=self.memory_budget,
            progress=lambda done, total: report("preparing", done / max(total, 1)),
        )  # fmt: skip


@partial(jax.jit, static_argnums=1)
def _last(params: Tree, config: ModelConfig, tokens: Array, position: Array) -> Array:
    return forward(params, config, tokens)[0][0, position]
