"""What a family is: which config fields it has, what they mean, and how its tensors are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from jaxinterp.core.errors import InputError, near
from jaxinterp.models.config import ModelConfig

REQUIRED = object()


class Tensor(NamedTuple):
    """One of our weights and where it is stored.

    Attributes:
      ours: our dotted path.
      stored: the name in the file, ``{l}`` standing for the layer and ``{x}`` for the expert; ours is stacked over
        them.
      pattern: of `rearrange`, for one stored tensor. With ``part``, our side begins with the letter ``p`` (three
        parts) or ``w`` (two).
      part: which of the equal parts of the stored tensor this is, or which entries of our side's first axis (which then
        stays); None means all of it.
      rows: (first, end, all) rows of the stored tensor that ``pattern`` describes; None means all of them.
      layers: the layers that ours is stacked over; None means every one.
    """

    ours: str
    stored: str
    pattern: str
    part: int | slice | None = None
    rows: tuple[int, int, int] | None = None
    layers: tuple[int, ...] | None = None

    def names(self, config: ModelConfig) -> dict[tuple[int, ...], str]:
        """Where in our array each stored tensor belongs (numbers on the leading axes) → its name."""
        layers = range(config.n_layers) if self.layers is None else self.layers
        found = {(place,): layer for place, layer in enumerate(layers)} if "{l}" in self.stored else {(): 0}
        if "{x}" not in self.stored:
            return {place: self.stored.format(l=layer) for place, layer in found.items()}
        assert config.experts is not None
        return {
            (*place, x): self.stored.format(l=layer, x=x)
            for place, layer in found.items()
            for x in range(config.experts.n)
        }


class Family(NamedTuple):
    """A family of Hugging Face models.

    Attributes:
      model_type: the value of that field in ``config.json``.
      architecture: the class with a language-model head.
      fields: config field → its default, `REQUIRED` where there is none. These decide the model.
      fixed: config field → the values that are supported; other values change the computation.
      harmless: config fields that do not change the forward pass, whatever their value.
      config: the values of ``fields`` (defaults filled in) → `ModelConfig`.
      tensors: `ModelConfig` → the tensors of the model.
      buffers: regular expressions of stored tensors that are no weights.
      prefix: a prefix that all names but the head's may have or lack together.
      head: the name of the unembedding, which a tied model may store or not.
      rename: a name in the files → the name in ``tensors``, or None for a tensor of another part of the model.
      inner: the field that holds the text model's own config in a model of several parts, which then is read instead.
      left_out: (config.json, `ModelConfig`) → names of tensors that the config announces and that are deliberately not
        read.
      export: `ModelConfig` → values of ``fields`` that say as much of it as the family can; None for a family that
        is only read. What a family cannot say shows when those values are read again (`export_config`).
    """

    model_type: str
    architecture: str
    fields: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, ...]]
    harmless: frozenset[str]
    config: Callable[[Mapping[str, Any], str], ModelConfig]
    tensors: Callable[[ModelConfig], list[Tensor]]
    buffers: tuple[str, ...] = ()
    prefix: str = ""
    head: str = "lm_head.weight"
    rename: Callable[[str], str | None] | None = None
    inner: str | None = None
    left_out: Callable[[Mapping[str, Any], ModelConfig], Collection[str]] | None = None
    export: Callable[[ModelConfig], dict[str, Any]] | None = None


def names(text: str) -> frozenset[str]:
    """The words of ``text``."""
    return frozenset(text.split())


# Fields that the base class of Hugging Face configs writes and that no forward pass of ours depends on:
# bookkeeping, training, generation defaults, and what a run returns.
COMMON = names(
    """architectures model_type transformers_version torch_dtype dtype _name_or_path name_or_path
    _commit_hash _attn_implementation attn_implementation _attn_implementation_autoset use_cache
    cache_implementation
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id tokenizer_class
    initializer_range attention_dropout gradient_checkpointing torchscript use_bfloat16 tf_legacy_loss
    return_dict output_hidden_states output_attentions problem_type finetuning_task task_specific_params
    id2label label2id prefix max_length min_length do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
    output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens license mlp_dropout"""
)

COMMON_FIXED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "is_decoder": (False, True),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "chunk_size_feed_forward": (0,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    # The same with the root of 2/pi to ten digits (GPT-NeoX-20B).
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def activation(values: Mapping[str, Any], field: str, where: str) -> str:
    """Our name of the activation function in ``field``."""
    value = values[field]
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise InputError(f"{where}: {field} is {value!r}, supported are {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[value]


def read_fields(family: Family, content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields that decide the model, after every field of the config has been accounted for.

    Raises:
      InputError: a field that this family does not have (with a near match), one with a value that is not
        supported (with those that are), or a missing one.
    """
    fixed = {**COMMON_FIXED, **family.fixed}
    known = {*family.fields, *fixed, *family.harmless, *COMMON}
    for name, value in content.items():
        if name not in known:
            raise InputError(
                f"{where}: unknown field {name!r} = {value!r}{near(name, known)}; "
                f"a {family.model_type} config is refused unless every field is understood"
            )
        if name in fixed and value not in fixed[name]:
            supported = " or ".join(repr(v) for v in fixed[name])
            raise InputError(f"{where}: {name} is {value!r}, supported is {supported}")
    values = {}
    for name, default in family.fields.items():
        if name not in content and default is REQUIRED:
            raise InputError(f"{where}: the field {name!r} is missing")
        values[name] = content.get(name, default)
    return values


def whole_number(values: Mapping[str, Any], field: str, where: str) -> int:
    """The positive whole number in ``field``."""
    value = values[field]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{where}: {field} is {value!r}, expected a whole number of at least 1")
    return value


def number(values: Mapping[str, Any], field: str, where: str) -> float:
    """The positive finite number in ``field``."""
    value = values[field]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise InputError(f"{where}: {field} is {value!r}, expected a positive number")
    return float(value)


def flag(values: Mapping[str, Any], field: str, where: str) -> bool:
    """The boolean in ``field``."""
    value = values[field]
    if not isinstance(value, bool):
        raise InputError(f"{where}: {field} is {value!r}, expected true or false")
    return value


def head_width(values: Mapping[str, Any], width: str, heads: str, where: str) -> int:
    """``head_dim`` when it is given, otherwise the model's width divided by its heads."""
    if values.get("head_dim") is not None:
        return whole_number(values, "head_dim", where)
    d, h = whole_number(values, width, where), whole_number(values, heads, where)
    if d % h:
        raise InputError(f"{where}: {width} {d} is not a multiple of {heads} {h}")
    return d // h


_TYPES = ("sliding_attention", "full_attention")


def windows(
    values: Mapping[str, Any], n_layers: int, sliding: Callable[[int], bool], where: str
) -> tuple[int, ...]:
    """The window of each layer from ``layer_types`` and ``sliding_window``; () when no layer has one.

    Args:
      sliding: layer → whether it has a window, where ``layer_types`` is absent.
    """
    types = values.get("layer_types")
    if types is None:
        types = [_TYPES[0] if sliding(layer) else _TYPES[1] for layer in range(n_layers)]
    if not isinstance(types, list) or len(types) != n_layers:
        raise InputError(f"{where}: layer_types is {types!r}, expected a list of {n_layers}, one a layer")
    for kind in types:
        if kind not in _TYPES:
            raise InputError(f"{where}: layer_types has {kind!r}, supported are {' and '.join(_TYPES)}")
    if _TYPES[0] not in types:
        return ()
    if values["sliding_window"] is None:
        raise InputError(f"{where}: sliding_window is null but layer_types has {_TYPES[0]!r}")
    window = whole_number(values, "sliding_window", where)
    return tuple(window if kind == _TYPES[0] else 0 for kind in types)


def sizes(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The sizes of `ModelConfig` from the field names that Llama and most families after it use."""
    heads = whole_number(values, "num_attention_heads", where)
    grouped = values.get("num_key_value_heads") is not None
    return {
        "vocab_size": whole_number(values, "vocab_size", where),
        "d_model": whole_number(values, "hidden_size", where),
        "n_layers": whole_number(values, "num_hidden_layers", where),
        "n_heads": heads,
        "n_kv_heads": whole_number(values, "num_key_value_heads", where) if grouped else heads,
        "d_head": head_width(values, "hidden_size", "num_attention_heads", where),
        "d_mlp": whole_number(values, "intermediate_size", where),
        "context": whole_number(values, "max_position_embeddings", where),
    }


def size_fields(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `sizes`, without ``head_dim``, which not every family has."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_mlp,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "max_position_embeddings": config.context,
    }


# Of several names for one function the one that the reference writes today.
_WRITTEN: dict[str, str] = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}


def activation_name(config: ModelConfig) -> str:
    """The inverse of `activation`."""
    return _WRITTEN.get(config.activation, config.activation)


def window_fields(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `windows`. Without any, the width is one that no text outgrows: the reference wants a number."""
    types = [_TYPES[0] if window else _TYPES[1] for window in config.windows or (0,) * config.n_layers]
    return {"sliding_window": max(config.windows, default=0) or config.context, "layer_types": types}


def inverse_root(scale: float) -> int | float:
    """The number whose power -1/2 is ``scale`` to the last bit: a whole one if there is one, else the nearest."""
    estimate = scale**-2
    near_by = (estimate, math.nextafter(estimate, 0), math.nextafter(estimate, math.inf))
    return next((n for n in (round(estimate), *near_by) if n > 0 and float(n) ** -0.5 == scale), estimate)


SIZES: dict[str, Any] = {
    "vocab_size": REQUIRED,
    "hidden_size": REQUIRED,
    "intermediate_size": REQUIRED,
    "num_hidden_layers": REQUIRED,
    "num_attention_heads": REQUIRED,
    "num_key_value_heads": None,
    "max_position_embeddings": REQUIRED,
}
