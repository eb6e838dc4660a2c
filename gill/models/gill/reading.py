"""What a model makes of prompts without saying a word: likelihoods, and what it asks for at an image.

Each call is one pass of the language model over all its prompts, packed so that hardly a pad is computed.

Shape legend: B = prompts, R = [IMG] tokens, D = hidden width, E = retrieval width, L x C = conditioning sequence,
K = words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gill.backbones import ImageTransform
from gill.errors import GenerationError
from gill.models.gill.continuations import Continued, SharedPrompt
from gill.models.gill.decoding import check_length
from gill.models.gill.encoding import GillTokenizer
from gill.models.gill.model import GillModel
from gill.models.gill.prompts import PromptLayout, Prompts
from gill.types import Segment

Prompt = Sequence[Segment]


@dataclass(frozen=True)
class ImageStates:
    """What a model asks for when each prompt is answered by an image.

    Attributes:
        hidden: float[B, R, D]. conditioning: float[B, L, C], None for a model that does not draw.
        queries: float[B, E] unit rows in the retrieval space.
    """

    hidden: Tensor
    conditioning: Tensor | None
    queries: Tensor


class GillReader:
    """Reads prompts. Puts the model into eval mode.

    Args:
        transform: for pictures in prompts.
    """

    def __init__(self, model: GillModel, tokenizer: GillTokenizer, transform: ImageTransform | None) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.layout = PromptLayout(model, tokenizer, transform)
        self.img_ids = tuple(range(model.vocabulary.num_words, model.vocabulary.size))

    @torch.no_grad()
    def conditioning_of(self, prompts: Sequence[Prompt], repeats_bos: bool = False) -> ImageStates:
        """What answers prompts that each end in an image.

        Raises:
            GenerationError: a prompt that is too long. DataError: a picture that cannot be read.
        """
        laid = self.layout.read(prompts, repeats_bos).ending_in(self.img_ids)
        check_length(self.model, laid)
        return self.image_states(self.model.hidden_ends(laid.token_rows(), laid.visual, len(self.img_ids)))

    @torch.no_grad()
    def image_states(self, hidden_BRD: Tensor) -> ImageStates:
        """What is asked for at the states of images."""
        conditioning = None if self.model.mapper is None else self.model.map_conditioning(hidden_BRD)
        return ImageStates(hidden_BRD, conditioning, self.model.embed_text(hidden_BRD))

    @torch.no_grad()
    def next_logits(self, prompts: Sequence[Prompt], repeats_bos: bool = False) -> Tensor:
        """float[B, K + R] logits of what may follow each prompt, before any option acts; [IMG0] is column K."""
        states = self._hidden(self.layout.read(prompts, repeats_bos))
        return self.model.logits(torch.stack([row[-1] for row in states]))

    @torch.no_grad()
    def log_likelihoods(self, prompts: Sequence[Prompt], repeats_bos: bool = False) -> list[Tensor]:
        """Log-probability, in nats, of each text token of each prompt after all that stands before it.

        Returns:
            float[n] for each prompt: pictures are read and not scored, nor is the very first token.
        """
        laid = self.layout.read(prompts, repeats_bos)
        found = []
        for states, ids, is_text in zip(self._hidden(laid), laid.ids, laid.is_text, strict=True):
            places = [place for place in range(1, len(ids)) if is_text[place]]
            found.append(self._scores(states[[place - 1 for place in places]], [ids[place] for place in places]))
        return found

    @torch.no_grad()
    def continuation_log_likelihoods(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], is_shifted: bool = True
    ) -> list[list[Tensor]]:
        """Log-probability, in nats, of each token of texts that may follow a prompt; each prompt is read once.

        Args:
            continuations: for each prompt one or more texts, each of at least one token.
            is_shifted: False scores as FROMAGe published its ranking of answers (evals/eval_visdial_generation.py of
                github.com/kohjingyu/fromage): each text opens with a beginning of sequence of its own, and each token,
                that one included, gets the probability of following itself. For comparison with the paper alone.

        Returns:
            For each prompt, float[n] of each of its continuations.

        Raises:
            GenerationError: no continuation, an empty one, or one that is too long.
        """
        laid = self.layout.read(prompts)
        opening = [] if is_shifted else [self.tokenizer.bos_id]
        texts = [self.tokenizer.words_of(group) for group in continuations]
        if len(texts) != len(laid.ids) or not all(group and all(group) for group in texts):
            raise GenerationError("each prompt needs at least one continuation, and each of them at least one token")
        check_length(self.model, laid, [len(opening) + max(map(len, group)) for group in texts])
        found: list[list[Tensor]] = []
        for prompt_ids, group in zip(laid.ids, texts, strict=True):
            parts = SharedPrompt(self.model, prompt_ids, laid.visual).read([opening + ids for ids in group])
            found.append([score for part in parts for score in self._part_scores(part, is_shifted)])
        return found

    def _part_scores(self, part: Continued, is_shifted: bool) -> Sequence[Tensor]:
        return self._scores(part.before if is_shifted else part.at, part.ids).split(part.lengths)

    def _hidden(self, laid: Prompts) -> list[Tensor]:
        """float[n, D] last hidden states of the n ids of each prompt."""
        check_length(self.model, laid)
        rows = laid.token_rows()
        hidden = self.model.hidden(rows, laid.visual, splits=False).live_at(torch.arange(len(rows.ids)))
        return list(hidden.split([len(ids) for ids in laid.ids]))

    def _scores(self, states_ND: Tensor, ids: Sequence[int]) -> Tensor:
        """float[N] log-probability of each id after the state before it."""
        logits_NK = self.model.logits(states_ND)
        log_probabilities_NK = logits_NK.log_softmax(-1, dtype=torch.promote_types(logits_NK.dtype, torch.float32))
        return log_probabilities_NK.gather(1, torch.tensor(ids, device=states_ND.device)[:, None])[:, 0]
