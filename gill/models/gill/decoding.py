"""Continue a batch of prompts step by step, every token read once.

Rows advance together, one word or one image a step. A row that has nothing to read while others do gets masked columns,
so no row changes what another one says. [IMG1..R-1] are never sampled: once [IMG0] is chosen, all R are read in one
pass, also on the last step. A forced first image is read together with the prompt.

Shape legend: B = rows, N = tokens read in one pass, S = columns read so far, R = [IMG] tokens, D = hidden width,
K = words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gill.backbones import decoding_cache, reading_cache
from gill.errors import GenerationError
from gill.models.gill.model import GillModel
from gill.models.gill.packing import pack
from gill.models.gill.prompts import Prompts, rows_of
from gill.models.gill.replies import Emission, Endings
from gill.sampling import choose_tokens
from gill.types import GenerationOptions


class Memory:
    """What the language model has read and is about to read, row by row, kept as keys and values.

    Args:
        visual: float[pictures, V, D] of the visual ids that will be read.
    """

    def __init__(self, model: GillModel, visual: Tensor | None, num_rows: int) -> None:
        self.model, self.visual, self.cache = model, visual, decoding_cache()
        self.is_real_BS = torch.zeros(num_rows, 0, dtype=torch.bool, device=model.device)
        self.unread: list[tuple[int, ...]] = [()] * num_rows
        self._last_BD = torch.zeros(num_rows, model.language.hidden_width, device=model.device)

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        """Put ids of each row, possibly none, behind what is to be read next."""
        self.unread = [(*before, *ids) for before, ids in zip(self.unread, rows, strict=True)]

    def read(self) -> list[Tensor]:
        """Read what was added in one pass: float[n, D] last hidden states of the n new ids of each row."""
        is_beginning = self.is_real_BS.shape[1] == 0 and len(self.unread) > 1
        found = self._read_prompts() if is_beginning else self._read_more()
        self._last_BD = torch.stack(
            [new[-1] if len(new) else old.to(new) for new, old in zip(found, self._last_BD, strict=True)]
        )
        self.unread = [()] * len(found)
        return found

    def last_BD(self) -> Tensor:
        """float[B, D] state at the end of each row, once everything is read."""
        if any(self.unread):
            self.read()
        return self._last_BD

    def _read_prompts(self) -> list[Tensor]:
        """Read what comes first, several rows side by side so that hardly a pad is computed, then spread the memory."""
        rows = rows_of(self.unread)
        grid = pack(rows, self.model.vocabulary.num_words, splits=False)[1].to(self.model.device)
        packed = reading_cache()
        states_SD = self.model.run(grid, self.model.embed(grid.ids, self.visual), [grid], packed)
        counts = torch.bincount(rows.rows, minlength=len(self.unread))
        self.is_real_BS = (torch.arange(int(counts.max())) < counts[:, None]).to(self.model.device)
        for number, layer in enumerate(packed.layers):
            keys, values = (_spread(kept, grid.cells, self.is_real_BS) for kept in (layer.keys, layer.values))
            self.cache.update(keys, values, number)
        return list(states_SD.split(counts.tolist()))

    def _read_more(self) -> list[Tensor]:
        counts = torch.tensor([len(ids) for ids in self.unread])
        width = int(counts.max())
        padded = torch.tensor([[*ids, *(0,) * (width - len(ids))] for ids in self.unread])
        is_new_BN = torch.arange(width) < counts[:, None]
        states_BND = self._run(padded.to(self.model.device), is_new_BN.to(self.model.device))
        return [states[:count] for states, count in zip(states_BND, counts.tolist(), strict=True)]

    def _run(self, ids_BN: Tensor, is_new_BN: Tensor) -> Tensor:
        past = self.is_real_BS.shape[1]
        self.is_real_BS = torch.cat([self.is_real_BS, is_new_BN], dim=1)
        positions_BN = (self.is_real_BS.cumsum(1) - 1).clamp(min=0)[:, past:]
        columns_S = torch.arange(self.is_real_BS.shape[1], device=ids_BN.device)
        sees_BNS = self.is_real_BS[:, None] & (columns_S <= columns_S[past:, None])
        embeddings_BND = self.model.embed(ids_BN, self.visual)
        mask_BNS = torch.zeros(sees_BNS.shape, dtype=embeddings_BND.dtype, device=ids_BN.device)
        mask_BNS.masked_fill_(~sees_BNS, torch.finfo(mask_BNS.dtype).min)
        return self.model.language.hidden_states(embeddings_BND, positions_BN, mask_BNS[:, None], self.cache)


def _spread(packed_GHWd: Tensor, cells_S: Tensor, is_real_BN: Tensor) -> Tensor:
    """Keys or values of positions that share lines -> float[B, H, N, d], one row a line, zeros where nothing is."""
    of_positions = packed_GHWd.transpose(1, 2).flatten(0, 1)[cells_S]
    spread_BNHd = of_positions.new_zeros(*is_real_BN.shape, *of_positions.shape[1:])
    spread_BNHd[is_real_BN] = of_positions
    return spread_BNHd.transpose(1, 2)


class Decoder:
    """Continues prompts under one set of options."""

    def __init__(self, model: GillModel, endings: Endings, options: GenerationOptions) -> None:
        self.model, self.endings, self.options = model, endings, options
        self.img_ids = tuple(range(model.vocabulary.num_words, model.vocabulary.size))

    @torch.no_grad()
    def steps(self, prompts: Prompts, generators: Sequence[torch.Generator]) -> Iterator[list[Emission | None]]:
        """What each row says, step by step; None from a row that has ended.

        Args:
            generators: one a row, on the CPU.

        Raises:
            GenerationError: the replies might not fit the language model's positions.
        """
        options = self.options
        num_images = min(options.max_num_images, options.num_words)
        most = options.num_words + num_images * (len(self.img_ids) - 1)
        check_length(self.model, prompts, [most] * len(prompts.ids))
        memory = Memory(self.model, prompts.visual, len(prompts.ids))
        memory.add(prompts.ids)
        speakers = [_Speaker(self) for _ in prompts.ids]
        for step in range(options.num_words):
            said = [
                speaker.say(token)
                for speaker, token in zip(speakers, self._choose(memory, step, generators), strict=True)
            ]
            memory.add(said)
            is_last = step + 1 == options.num_words or all(speaker.has_ended for speaker in speakers)
            hidden = [None] * len(said) if is_last and self.img_ids not in said else memory.read()
            yield [self._emission(ids, states) for ids, states in zip(said, hidden, strict=True)]
            if is_last:
                return

    def _emission(self, ids: tuple[int, ...], states: Tensor | None) -> Emission | None:
        if not ids:
            return None
        # a forced image is read together with what stands before it
        return Emission(ids, ids == self.img_ids, None if states is None else states[-len(ids) :])

    def _choose(self, memory: Memory, step: int, generators: Sequence[torch.Generator]) -> list[int]:
        options = self.options
        if options.force_image and step == options.min_word_tokens:
            return [self.img_ids[0]] * len(generators)
        logits_BK = self._steered(self.model.logits(memory.last_BD()), step)
        return choose_tokens(logits_BK, generators, options.temperature, options.top_p, options.top_k).tolist()

    def _steered(self, logits_BK: Tensor, step: int) -> Tensor:
        """The logits with what the options say about images, changed in place."""
        options, first = self.options, self.img_ids[0]
        logits_BK[:, first + 1 :] = -torch.inf
        if step < options.min_word_tokens or not options.max_num_images:
            logits_BK[:, first] = -torch.inf
        elif self.model.config.img_logit_rule == "product":
            logits_BK[:, first] *= options.img_logit_scale
        elif options.img_logit_scale > 1:
            logits_BK[:, first] = logits_BK[:, first].abs() * options.img_logit_scale
        logits_BK[:, first] += options.img_logit_bias
        return logits_BK


def check_length(model: GillModel, prompts: Prompts, num_more: Sequence[int] = ()) -> None:
    """Refuse prompts that leave no room for further tokens.

    Args:
        num_more: how many follow each prompt; none, by default.

    Raises:
        GenerationError: the language model has fewer positions.
    """
    lengths, limit = [len(ids) for ids in prompts.ids], model.language.max_positions
    for length, more in zip(lengths, num_more or [0] * len(lengths), strict=True):
        if limit is not None and length + more > limit:
            raise GenerationError(
                f"the prompt has {length} tokens and up to {more} may follow, the language model reads {limit}; "
                "shorten the prompt, or lower num_words or max_num_images"
            )


class _Speaker:
    """One row: turns the chosen token into what is said, and knows when the reply is over."""

    def __init__(self, decoder: Decoder) -> None:
        self.img_ids, self.endings = decoder.img_ids, decoder.endings
        self.num_images_left = decoder.options.max_num_images
        self.owes_image = decoder.options.force_image
        self.has_words = self.has_ended = False

    def say(self, token: int) -> tuple[int, ...]:
        """The ids that are said: a word, all of an image, or nothing once the reply is over.

        An image that is forced and has not come yet stands where the reply would end.
        """
        is_ending = self.endings.ends(token, self.has_words)
        is_image = token == self.img_ids[0] or (is_ending and self.owes_image)
        if is_image:
            self.has_ended |= not self.num_images_left
            self.num_images_left -= 1
            self.owes_image = False
        if self.has_ended:
            return ()
        self.has_ended = is_ending
        self.has_words |= self.endings.is_word(token)
        return self.img_ids if is_image else (token,)
