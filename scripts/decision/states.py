"""The hidden states a decision is read from: frozen, so each is computed once and stored.

Shape legend: N = prompts, D = language model width, R = [IMG] tokens.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from gill.models.gill import GillModel, GillTokenizer, TokenRows
from gill.parameters import tensor_hash
from gill.types import IGNORED_LABEL

STATES_FILE = "states.safetensors"
_BATCH_SIZE = 64


@torch.no_grad()
def img_states(model: GillModel, tokenizer: GillTokenizer, prompts: Sequence[str]) -> Tensor:
    """float32[N, D] on the CPU: the state at [IMG0] behind each prompt, the language model run once a batch.

    Prompts are laid out as in training: the vocabulary's prefix, a beginning of sequence, the words, the [IMG] tokens.
    """
    found = []
    for start in tqdm(range(0, len(prompts), _BATCH_SIZE), desc="hidden states", unit="batch"):
        rows = _token_rows(model, tokenizer, prompts[start : start + _BATCH_SIZE])
        first = rows.img_places(model.vocabulary)[:, 0]
        found.append(model.hidden(rows, None).live_at(first).float().cpu())
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


def _token_rows(model: GillModel, tokenizer: GillTokenizer, prompts: Sequence[str]) -> TokenRows:
    vocabulary = model.vocabulary
    img_ids = range(vocabulary.num_words, vocabulary.size)
    texts = [[*vocabulary.prefix, tokenizer.bos_id, *tokenizer.words(prompt), *img_ids] for prompt in prompts]
    lengths = torch.tensor([len(text) for text in texts])
    ids = torch.tensor([token for text in texts for token in text])
    rows = torch.arange(len(texts)).repeat_interleave(lengths)
    positions = torch.arange(len(ids)) - (lengths.cumsum(0) - lengths)[rows]
    return TokenRows(ids, torch.full_like(ids, IGNORED_LABEL), rows, positions)


def _key(model: GillModel, prompts: Sequence[str]) -> str:
    """Of what states depend on: the [IMG] rows, the language model and the prompts."""
    frozen = tensor_hash(model.language.table)
    parts = [tensor_hash(model.img_tokens.input_rows), model.config.language, frozen, *prompts]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
