"""Frozen causal language models of `transformers`, reduced to what GILL needs of them.

Word embeddings in, last hidden states out, and the rows of the head. Positions, mask and cache are always explicit, so
one call can hold several packed texts.

Shape legend: G = rows of a call, S = positions, K = vocabulary, D = width of the word embeddings and of the head.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Cache, PreTrainedModel

from gill.backbones.cache import EverythingKept, KeyValueReader
from gill.backbones.linear import lay_out_by_columns, replace_linears
from gill.backbones.relu import replace_relus
from gill.config import require_known
from gill.errors import ConfigError
from gill.parameters import FrozenModule, freeze

QUANTIZATIONS = ("8bit", "4bit")  # of the linear layers' weights, by bitsandbytes
# Settings that change the logits behind the head; none of the supported families uses them.
_LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_to_scale")


class LanguageModel(FrozenModule):
    """A frozen causal language model.

    Args:
        model: any `...ForCausalLM` whose forward takes `inputs_embeds`, `position_ids` and a 4-D mask.

    Raises:
        ConfigError: the family cannot be driven so.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        _check_family(model)
        if model.dtype == torch.float64:
            _replace_rms_norms(model)
        replace_relus(model)
        replace_linears(model)
        lay_out_by_columns(model.get_output_embeddings())
        self.model: Any = freeze(model)

    @property
    def table(self) -> Tensor:
        """float[K, D] word embeddings."""
        return self.model.get_input_embeddings().weight

    @property
    def head(self) -> nn.Linear:
        """The linear map to logits."""
        return self.model.get_output_embeddings()

    @property
    def is_tied(self) -> bool:
        """Whether table and head are one tensor."""
        return self.head.weight is self.table

    @property
    def width(self) -> int:
        """D, of word embeddings."""
        return self.table.shape[1]

    @property
    def hidden_width(self) -> int:
        """Width of the last hidden state, which is the head's input."""
        return self.head.weight.shape[1]

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, in order."""
        lists = [module for module in self.model.base_model.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len)

    @property
    def max_positions(self) -> int | None:
        """Longest text the model has positions for, None when unbounded.

        No longer than a sliding window: the masks here let every token see all before it.
        """
        names = ("max_position_embeddings", "sliding_window")
        limits = [getattr(self.model.config, name, None) for name in names]
        return min((limit for limit in limits if limit), default=None)

    def embed(self, word_ids: Tensor) -> Tensor:
        """int64[...] -> float[..., D], as the model itself would look them up."""
        return self.model.get_input_embeddings()(word_ids)

    def hidden_states(
        self, inputs_embeds: Tensor, position_ids: Tensor, attention_mask: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Last hidden states, after the final norm.

        Args:
            inputs_embeds: float[G, S, D].
            position_ids: int64[G, S], from 0.
            attention_mask: float[G, 1, S, past + S], added to the attention scores.
            cache: holds the past and is extended in place; None keeps nothing.

        Returns:
            float[G, S, hidden width].
        """
        outputs = self.model.base_model(
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return outputs.last_hidden_state

    def remember(self, inputs_embeds: Tensor, position_ids: Tensor, attention_mask: Tensor) -> Cache:
        """Keys and values of positions whose states nobody asks for: the last layer computes nothing else.

        Args:
            as `hidden_states`, without a past.

        Returns:
            A cache that `hidden_states` extends.
        """
        cache = KeyValueReader(len(self.layers))
        with contextlib.suppress(EverythingKept):
            self.hidden_states(inputs_embeds, position_ids, attention_mask, cache)
        return cache.filled()


def load_language_model(
    name: str, device: torch.device | str, dtype: torch.dtype, attention: str = "sdpa", quantization: str = ""
) -> LanguageModel:
    """Load a frozen language model from a hub name or a local folder.

    Args:
        name: e.g. "facebook/opt-6.7b" or a folder.
        device, dtype: where and how it is kept; the dtype is always explicit, since real OPT folders are float16.
        attention: "sdpa" or "eager".
        quantization: one of `QUANTIZATIONS`, or "" for none; table and head keep `dtype`.

    Raises:
        ConfigError: nothing loadable there, or a family that cannot be driven by embeddings and positions, or
            quantization without bitsandbytes.
    """
    settings: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if quantization:
        settings |= {"quantization_config": _quantization(quantization, dtype), "device_map": {"": device}}
    try:
        model = AutoModelForCausalLM.from_pretrained(name, **settings)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the language model {name!r}: {error}; give a hub name or a local folder"
        ) from error
    return LanguageModel(model if quantization else model.to(device))


def load_language_tokenizer(name: str) -> Any:
    """The tokenizer of a language model, from a hub name or a local folder.

    Raises:
        ConfigError: nothing loadable there.
    """
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the tokenizer of {name!r}: {error}; give a hub name or a local folder"
        ) from error


def _quantization(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    require_known("quantization", kind, QUANTIZATIONS)
    missing = [name for name in ("bitsandbytes", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"quantization={kind!r} needs {' and '.join(missing)}: pip install {' '.join(missing)}, or leave it out"
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _replace_rms_norms(model: Any) -> None:
    """Use torch's RMS norm: the one of `transformers` computes in float32 even where everything else is float64."""
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if type(norm).__name__.endswith("RMSNorm") and hasattr(norm, "variance_epsilon"):
                wide = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=norm.weight.dtype)
                wide.weight = norm.weight
                setattr(parent, name, wide)


def _check_family(model: Any) -> None:
    name = type(model).__name__
    accepted = inspect.signature(model.base_model.forward).parameters
    missing = [wanted for wanted in ("inputs_embeds", "position_ids", "past_key_values") if wanted not in accepted]
    if missing:
        raise ConfigError(
            f"{name} does not take {', '.join(missing)}; use a family such as OPT, GPT-2, GPT-NeoX, Llama or Qwen2"
        )
    changed = [setting for setting in _LOGIT_SETTINGS if getattr(model.config, setting, None) not in (None, 1, 1.0, 0)]
    if changed:
        raise ConfigError(f"{name} changes its logits behind the head ({', '.join(changed)}), which is not supported")
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        raise ConfigError(f"{name} has no linear language model head")
