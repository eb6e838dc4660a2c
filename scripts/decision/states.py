"""The hidden states a decision is read from: frozen, so each is computed once and stored.

Shape legend: N = prompts, D = language model width.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from gill.models.gill import GillModel, GillReader, GillTokenizer
from gill.parameters import tensor_hash
from gill.types import Segment

STATES_FILE = "states.safetensors"
_BATCH_SIZE = 64


def img_states(model: GillModel, tokenizer: GillTokenizer, prompts: Sequence[str]) -> Tensor:
    """float32[N, D] on the CPU: the state at [IMG0] behind each prompt, the language model run once a batch."""
    reader, found = GillReader(model, tokenizer, transform=None), []
    for start in tqdm(range(0, len(prompts), _BATCH_SIZE), desc="hidden states", unit="batch"):
        part = [[Segment(text=prompt)] for prompt in prompts[start : start + _BATCH_SIZE]]
        found.append(reader.conditioning_of(part).hidden[:, 0].float().cpu())
    return torch.cat(found)


def stored_states(model: GillModel, tokenizer: GillTokenizer, prompts: Sequence[str], folder: Path) -> Tensor:
    """`img_states`, read from `folder` if they are there for this model and these prompts, and stored there if not."""
    path, key = folder / STATES_FILE, _key(model, prompts)
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as store:
                if (store.metadata() or {}).get("key") == key:
                    return store.get_tensor("states")
        except SafetensorError:
            path.unlink()  # half of a file, or something else: computed again below
    states = img_states(model, tokenizer, prompts)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"states": states.contiguous()}, path, metadata={"key": key})
    return states


def _key(model: GillModel, prompts: Sequence[str]) -> str:
    """Of what states depend on: the [IMG] rows, the language model and the prompts."""
    frozen = tensor_hash(model.language.table)
    parts = [tensor_hash(model.img_tokens.input_rows), model.config.language, frozen, *prompts]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
