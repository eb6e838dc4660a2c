"""The recorded inference quantities: log-likelihoods, greedy decoding and what is read at the first [IMG] group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from gill.models.gill import GillModel
from scripts.parity.folder import ParityFolder
from scripts.parity.training import Quantities

PROMPTS: tuple[tuple[str | int, ...], ...] = (  # an integer is the number of a recorded picture
    ("Q: what is this ?\nA:",),
    (0, "A picture of"),
    ("a red circle sits on", 1, "the dog looks at", 2, "two yellow"),
    ("three birds floats over", 3, "a cat"),
    ("the dog",),
)
_HUGE_SCALE = 1e5


@dataclass(frozen=True)
class Decoding:
    """Greedy settings: name in the keys, steps, earliest [IMG0], factor on its logit."""

    name: str
    num_steps: int
    min_tokens: int = 0
    factor: float = 1.0


GILL_DECODINGS = (
    Decoding("plain", 12),
    Decoding("min5", 12, min_tokens=5),
    Decoding("forced", 2, factor=_HUGE_SCALE),
    Decoding("min3forced", 12, min_tokens=3, factor=_HUGE_SCALE),
)
FROMAGE_DECODINGS = (Decoding("plain", 12),)


class GreedyDecoder:
    """Cached greedy decoding of one prompt, as the originals step."""

    def __init__(self, model: GillModel, embeddings: Tensor) -> None:
        self.model, self.cache, self.length = model, DynamicCache(), 0
        self.states = self._extend(embeddings)

    def run(self, decoding: Decoding) -> list[int]:
        """Ids; [IMG0] brings its whole group in one step."""
        ids: list[int] = []
        for step in range(decoding.num_steps):
            token = int(self._scores(step, decoding).argmax())
            new = [token]
            if token == self.model.vocabulary.num_words:
                new = list(range(token, self.model.vocabulary.size))
            ids += new
            self.states = torch.cat([self.states, self._extend(self.model.embed(torch.tensor([new])))], dim=1)
        return ids

    def logits(self) -> Tensor:
        """float[K + R] after the last token."""
        return self.model.logits(self.states[0, -1])

    def _scores(self, step: int, decoding: Decoding) -> Tensor:
        logits, first = self.logits().clone(), self.model.vocabulary.num_words
        logits[first + 1 :] = -torch.inf
        if step < decoding.min_tokens:
            logits[first] = -torch.inf
        elif self.model.config.img_logit_rule == "product":
            logits[first] *= decoding.factor
        elif decoding.factor > 1:
            logits[first] = logits[first].abs() * decoding.factor
        return logits

    def _extend(self, embeddings: Tensor) -> Tensor:
        num_new = embeddings.shape[1]
        positions = torch.arange(self.length, self.length + num_new)[None]
        self.length += num_new
        mask = torch.zeros(1, 1, num_new, self.length)
        mask.masked_fill_(torch.arange(self.length) > positions[0, :, None], torch.finfo(mask.dtype).min)
        return self.model.language.hidden_states(embeddings, positions, mask, self.cache)


@torch.no_grad()
def decoding_quantities(parity: ParityFolder) -> Quantities:
    """Every recorded inference quantity, by its key."""
    parity.task()
    for number, prompt in enumerate(PROMPTS):
        embeddings, ids = _embed_prompt(parity, prompt)
        if f"loglik.{number}" in parity.golden:
            yield f"loglik.{number}", _log_likelihood(parity.model, embeddings, ids)
        if f"gen.{number}.plain.ids" in parity.golden:
            yield from _generated(parity, f"gen.{number}", embeddings)
        if f"emit.{number}.ids" in parity.golden:
            yield from _emitted(parity, f"emit.{number}", embeddings)


def contract(ids: Sequence[int], model: GillModel, end_id: int) -> list[int]:
    """Ids up to the first [IMG] group, or the first end of sequence before it: what follows is no contract."""
    first = model.vocabulary.num_words
    for place, token in enumerate(ids):
        if token == first:
            return list(ids[: place + model.config.num_img_tokens])
        if token == end_id:
            return list(ids[: place + 1])
    return list(ids)


def _embed_prompt(parity: ParityFolder, prompt: Sequence[str | int]) -> tuple[Tensor, Tensor]:
    """(float[1, S, D], int64[S] ids with -1 at visual positions)."""
    model, tokenizer = parity.model, parity.tokenizer
    embeddings, ids, has_begun = [], [], False
    for piece in prompt:
        if isinstance(piece, int):
            feature = model.image_features(parity.pixel_values()[piece : piece + 1])
            embeddings.append(model.visual_prefix(feature)[0])
            ids += [-1] * model.config.num_visual_tokens
            continue
        words = ([] if has_begun else [tokenizer.bos_id]) + tokenizer.words(piece)
        embeddings.append(model.embed(torch.tensor(words)))
        ids, has_begun = ids + words, True
    return torch.cat(embeddings)[None], torch.tensor(ids)


def _log_likelihood(model: GillModel, embeddings: Tensor, ids: Tensor) -> float:
    states = GreedyDecoder(model, embeddings).states[0]
    log_probabilities = model.logits(states).log_softmax(-1)
    places = (ids[1:] >= 0).nonzero()[:, 0]
    return float(log_probabilities[places, ids[1:][places]].mean())


def _generated(parity: ParityFolder, key: str, embeddings: Tensor) -> Quantities:
    for decoding in FROMAGE_DECODINGS if parity.is_fromage else GILL_DECODINGS:
        decoder = GreedyDecoder(parity.model, embeddings)
        ids = decoder.run(decoding)
        yield f"{key}.{decoding.name}.ids", np.array([ids])
        if parity.is_fromage:
            # the last new token was never fed: the three before it were
            states = decoder.states[0, -4:-1]
            yield f"{key}.{decoding.name}.emb_last", parity.model.retrieval_heads.embed_text(states)[None].numpy()
        elif f"{key}.{decoding.name}.raw" in parity.golden:
            start = embeddings.shape[1] + ids.index(parity.model.vocabulary.num_words)
            img_hidden = decoder.states[:, start : start + parity.model.config.num_img_tokens]
            yield from _at_img_group(parity.model, f"{key}.{decoding.name}", img_hidden)


def _at_img_group(model: GillModel, key: str, img_hidden_1RD: Tensor) -> Quantities:
    conditioning = model.map_conditioning(img_hidden_1RD)
    yield f"{key}.raw", img_hidden_1RD.numpy()
    yield f"{key}.ret_emb", model.embed_text(img_hidden_1RD).numpy()
    yield f"{key}.gen_emb_slice", conditioning[:, ::11, ::96].numpy()
    yield f"{key}.gen_emb_mean", float(conditioning.mean())


def _emitted(parity: ParityFolder, key: str, embeddings: Tensor) -> Quantities:
    factor = float(parity.golden[f"{key}.factor"])
    num_steps = 8
    name = "ret_logit" if parity.is_fromage else "img0_logit"
    yield f"{key}.{name}", float(GreedyDecoder(parity.model, embeddings).logits()[parity.model.vocabulary.num_words])
    for suffix, min_tokens in (("", 0), (".min5", 5)):
        decoding = Decoding("emit", num_steps, min_tokens, factor)
        yield f"{key}{suffix}.ids", np.array([GreedyDecoder(parity.model, embeddings).run(decoding)])
