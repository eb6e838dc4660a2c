"""The training step as the paper and the original state it, slowly: the reference our exact step is compared with.

Three runs of the language model over right-padded sequences, full logits over one joined table, Python loops for the
labels. Nothing here is shared with `gill.models.gill` but the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gill.models.gill import GillModel
from gill.types import IMAGE_SLOT, Batch

IGNORED = -100


@dataclass
class Token:
    """One position: an id of the joined table (or None), a visual embedding (or None), a label, or -100."""

    token_id: int | None
    visual: Tensor | None
    label: int = IGNORED
    img_of: tuple[int, int] | None = None  # (sample, which [IMG]) this position is


class PlainStep:
    """Losses of a batch by the book; `parts` has our names, with the text loss counted half in each of two passes."""

    def __init__(self, model: GillModel) -> None:
        self.model, self.config = model, model.config
        self.words = model.vocabulary.num_words

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars by objective, and their weighted `total`."""
        config = self.config
        features = self.model.image_features(batch.images)
        captioning = self._captioning(batch, features)
        retrieval_loss, retrieval_states = self._text(batch, features)
        parts = {"captioning": captioning, "contrastive": self._contrastive(retrieval_states[:, 0], features)}
        text, total = retrieval_loss, config.captioning_weight * captioning
        total = total + config.contrastive_weight * parts["contrastive"]
        if self.model.mapper is not None:
            generation_loss, generation_states = self._text(batch, features)
            text = 0.5 * retrieval_loss + 0.5 * generation_loss
            parts["conditioning"] = self._conditioning(generation_states, batch)
            total = total + config.conditioning_weight * parts["conditioning"]
        return {**parts, "text": text, "total": total + config.text_weight * text}

    def _captioning(self, batch: Batch, features: Tensor) -> Tensor:
        rows: list[list[Token]] = []
        for sample in range(len(batch)):
            partner = sample ^ 1 if batch.is_paired else sample
            if IMAGE_SLOT in batch.text_ids[sample] or IMAGE_SLOT in batch.text_ids[partner]:
                continue
            row = [*self._picture(features[sample]), *self._prefix()]
            for place, word in enumerate(self._text_words(batch, sample)):
                if batch.is_paired and self.config.drops_second_bos and sample % 2 == 1 and place == 0:
                    continue
                row.append(Token(word, None, label=word))
            if batch.is_paired and sample % 2 == 1:
                rows[-1] = rows[-1] + row
            else:
                rows.append(row)
        return self._cross_entropy(rows, self._run(rows)) if rows else features.sum() * 0

    def _text(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
        joins = batch.is_paired and self.config.joins_text
        rows: list[list[Token]] = []
        next_picture = 0
        for sample in range(len(batch)):
            is_second = joins and sample % 2 == 1
            row = self._prefix()
            for place, word in enumerate(self._text_words(batch, sample)):
                if word == IMAGE_SLOT:
                    assert batch.context_images is not None
                    row += self._picture(
                        self.model.image_features(batch.context_images[next_picture : next_picture + 1])[0]
                    )
                    next_picture += 1
                elif not (is_second and self.config.drops_second_bos and place == 0):
                    row.append(Token(word, None, label=IGNORED if is_second else word))
            for number in range(self.config.num_img_tokens):
                labelled = number == 0 and not is_second
                row.append(Token(self.words + number, None, self.words if labelled else IGNORED, (sample, number)))
            if is_second:
                rows[-1] = rows[-1] + row
            else:
                rows.append(row)
        states = self._run(rows)
        return self._cross_entropy(rows, states), self._img_states(rows, states, len(batch))

    def _text_words(self, batch: Batch, sample: int) -> list[int]:
        return batch.text_ids[sample][: int(batch.text_lengths[sample])].tolist()

    def _picture(self, feature: Tensor) -> list[Token]:
        vocabulary = self.model.vocabulary
        prefix = self.model.visual_prefix
        flat = prefix.linear.weight @ feature + prefix.linear.bias
        visual = [Token(None, row) for row in flat.view(self.config.num_visual_tokens, -1)]
        before, after = ([Token(word, None) for word in ids] for ids in (vocabulary.opening, vocabulary.closing))
        return [*before, *visual, *after]

    def _prefix(self) -> list[Token]:
        return [Token(word, None) for word in self.model.vocabulary.prefix]

    def _run(self, rows: list[list[Token]]) -> Tensor:
        """Last hidden states of right-padded rows, without a mask: causality hides the pads."""
        table = torch.cat([self.model.language.table[: self.words], self.model.img_tokens.input_rows])
        width = max(len(row) for row in rows)
        embedded = []
        for row in rows:
            vectors = [token.visual if token.visual is not None else table[token.token_id] for token in row]
            embedded.append(torch.stack(vectors + [table[1]] * (width - len(row))))
        return self.model.language.model.base_model(inputs_embeds=torch.stack(embedded)).last_hidden_state

    def _cross_entropy(self, rows: list[list[Token]], states: Tensor) -> Tensor:
        head = self.model.language.head
        weight = torch.cat([head.weight[: self.words], self.model.img_tokens.output_rows])
        logits = states @ weight.T
        labels = torch.full(logits.shape[:2], IGNORED)
        for number, row in enumerate(rows):
            for place, token in enumerate(row):
                labels[number, place] = token.label
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)

    def _img_states(self, rows: list[list[Token]], states: Tensor, num_samples: int) -> Tensor:
        found: dict[tuple[int, int], Tensor] = {}
        for number, row in enumerate(rows):
            for place, token in enumerate(row):
                if token.img_of is not None:
                    found[token.img_of] = states[number, place]
        groups = [[found[sample, r] for r in range(self.config.num_img_tokens)] for sample in range(num_samples)]
        return torch.stack([torch.stack(group) for group in groups])

    def _contrastive(self, states: Tensor, features: Tensor) -> Tensor:
        heads = self.model.retrieval_heads
        texts = [F.normalize(heads.text.weight @ state + heads.text.bias, dim=0) for state in states]
        images = [F.normalize(heads.image.weight @ feature + heads.image.bias, dim=0) for feature in features]
        scores = self.model.logit_scale.exp() * torch.stack(texts) @ torch.stack(images).T
        total = scores.new_zeros(())
        for i in range(len(scores)):
            total = total - scores[i].log_softmax(0)[i] - scores[:, i].log_softmax(0)[i]
        return total / (2 * len(scores))

    def _conditioning(self, states: Tensor, batch: Batch) -> Tensor:
        assert self.model.mapper is not None
        mapped = self.model.mapper(states, self.model.img_tokens.input_rows)
        target = self.model.conditioning_targets(batch)
        return torch.stack(
            [(mapped[i, k] - target[i, k]).norm() for i in range(len(mapped)) for k in range(mapped.shape[1])]
        ).mean()
