"""GILL's training step: three objectives from two passes of the language model.

Captioning reads each picture and predicts its text. The text pass reads the text and then the [IMG] tokens; its one run
serves the next-token loss, retrieval and conditioning. Gradients of all shares of a batch add up to the whole's.

Shape legend: B = samples of this share, N = of the whole step, R = [IMG] tokens, D = width, E = retrieval width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gill.models.gill.model import GillModel, Hidden
from gill.models.gill.sequence import (
    TokenRows,
    captioning_rows,
    count_captioning_labels,
    count_text_labels,
    text_rows,
)
from gill.objectives import (
    conditioning_distance,
    contrastive_loss,
    label_ranks,
    shared_gradient,
    token_cross_entropy,
)
from gill.types import Batch, Embeddings, Evaluation, LossBreakdown, TrainingTask, WholeBatch


@dataclass(frozen=True)
class _Pass:
    """One run of the language model: what it read and its last hidden states."""

    rows: TokenRows
    hidden: Hidden

    @property
    def num_labels(self) -> int:
        return len(self.rows.label_places)


@dataclass(frozen=True)
class _Passes:
    """Everything one step computes before its losses: picture features (paired first, then those in texts)."""

    features: Tensor
    captioning: _Pass
    text: _Pass


class GillTask(TrainingTask):
    """The losses of a `GillModel`."""

    def __init__(self, model: GillModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> LossBreakdown:
        """Loss of a batch, or of a share of one: values and gradients of all shares add up to the whole's.

        Raises:
            ConfigError: the batch lacks what the model needs; ShapeError: targets of another shape.
        """
        return self._losses(batch, self._run(batch))

    def label_counts(self, batch: Batch) -> dict[str, int]:
        """Labelled tokens by objective, from the lengths alone."""
        config = self.model.config
        return {
            "captioning": count_captioning_labels(batch, config.drops_second_bos),
            "text": count_text_labels(batch, self.model.vocabulary, config.joins_text),
        }

    @torch.no_grad()
    def embed(self, batch: Batch) -> Embeddings:
        """Unit retrieval rows, no gradient."""
        features = self._picture_features(batch)
        text = self._text_pass(batch, self.model.visual_prefix(features))
        return Embeddings(*self._retrieval_rows(features, text))

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Evaluation:
        """Losses, retrieval rows, caption token ranks and mapped conditioning, no gradient."""
        passes = self._run(batch)
        states, labels = self._predictions(passes.captioning, is_live=True)
        ranks = label_ranks(states, labels, *self.model.frozen_head(), self.model.img_tokens.output_rows)
        return Evaluation(
            losses=self._losses(batch, passes),
            embeddings=Embeddings(*self._retrieval_rows(passes.features, passes.text)),
            num_top1=int((ranks < 1).sum()),
            num_top5=int((ranks < 5).sum()),
            num_tokens=len(ranks),
            conditioning=None
            if self.model.mapper is None
            else self.model.map_conditioning(self._img_hidden(passes.text)),
        )

    def token_rows(self) -> list[nn.Parameter]:
        """The [IMG] rows as inputs."""
        return [self.model.img_tokens.input_rows]

    def frozen_layers(self) -> nn.ModuleList:
        """The language model's."""
        return self.model.language.layers

    def after_update(self) -> None:
        """Rescale the [IMG] rows, when the recipe says so."""
        if self.model.config.rescales_img_rows:
            self.model.img_tokens.rescale_()

    def captioning_rows(self, batch: Batch) -> TokenRows:
        """What the captioning pass reads."""
        return captioning_rows(batch, self.model.vocabulary, self.model.config.drops_second_bos)

    def text_rows(self, batch: Batch) -> TokenRows:
        """What the text pass reads."""
        config = self.model.config
        return text_rows(batch, self.model.vocabulary, config.joins_text, config.drops_second_bos)

    def _run(self, batch: Batch) -> _Passes:
        features = self._picture_features(batch)
        visual = self.model.visual_prefix(features)
        captions = self.captioning_rows(batch)
        captioning = _Pass(captions, self.model.hidden(captions, visual, splits=False, reads_last=False))
        return _Passes(features, captioning, self._text_pass(batch, visual))

    def _text_pass(self, batch: Batch, visual: Tensor) -> _Pass:
        rows = self.text_rows(batch)
        return _Pass(rows, self.model.hidden(rows, visual))

    def _picture_features(self, batch: Batch) -> Tensor:
        features = self.model.image_features(batch.images)
        if batch.context_images is None:
            return features
        return torch.cat([features, self.model.image_features(batch.context_images)])

    def _losses(self, batch: Batch, passes: _Passes) -> LossBreakdown:
        config = self.model.config
        counts = {"captioning": passes.captioning.num_labels, "text": passes.text.num_labels}
        whole = batch.whole or WholeBatch(len(batch), counts)
        losses = {
            "captioning": self._cross_entropy_sum(passes.captioning) / max(whole.label_counts["captioning"], 1),
            "text": self._cross_entropy_sum(passes.text) / max(whole.label_counts["text"], 1),
            "contrastive": self._contrastive(passes, whole),
        }
        if self.model.mapper is not None:
            losses["conditioning"] = self._conditioning_sum(batch, passes.text) / whole.num_samples
        total = torch.stack([getattr(config, f"{name}_weight") * loss for name, loss in losses.items()]).sum()
        return LossBreakdown(total, {name: loss.detach() for name, loss in losses.items()}, counts)

    def _cross_entropy_sum(self, one: _Pass) -> Tensor:
        """Summed over all labels: those predicted from frozen states keep no graph over the vocabulary."""
        weight, bias = self.model.frozen_head()
        parts = []
        for is_live in (False, True):
            states, labels = self._predictions(one, is_live)
            parts.append(token_cross_entropy(states, labels, weight, bias, self.model.img_tokens.output_rows))
        return torch.cat(parts).sum()

    def _predictions(self, one: _Pass, is_live: bool) -> tuple[Tensor, Tensor]:
        """(float[n, D] states, int64[n] labels they predict) of the frozen or of the live part."""
        places = one.rows.label_places
        chosen = places[one.hidden.is_live[places - 1] == is_live]
        states = one.hidden.live if is_live else one.hidden.frozen
        index, labels = one.hidden.index[chosen - 1], one.rows.labels[chosen]  # on the host: no sync with the device
        return states[index.to(states.device)], labels.to(states.device)

    def _img_hidden(self, text: _Pass) -> Tensor:
        """float[B, R, D] states at the [IMG] tokens."""
        return text.hidden.live_at(text.rows.img_places(self.model.vocabulary))

    def _retrieval_rows(self, features: Tensor, text: _Pass) -> tuple[Tensor, Tensor]:
        text_BE = self.model.embed_text(self._img_hidden(text))
        return text_BE, self.model.retrieval_heads.embed_image(features[: len(text_BE)])

    def _conditioning_sum(self, batch: Batch, text: _Pass) -> Tensor:
        mapped_BLC = self.model.map_conditioning(self._img_hidden(text))
        target_BLC = self.model.conditioning_targets(batch)
        return conditioning_distance(mapped_BLC, target_BLC, self.model.config.conditioning_distance).sum()

    def _contrastive(self, passes: _Passes, whole: WholeBatch) -> Tensor:
        """The whole's InfoNCE with gradient for this share's rows; its value counts by the share's size."""
        text_BE, image_BE = self._retrieval_rows(passes.features, passes.text)
        share = len(text_BE) / whole.num_samples
        text_NE = _among_all(text_BE, whole.text_embeddings, whole)
        image_NE = _among_all(image_BE, whole.image_embeddings, whole)
        loss = contrastive_loss(text_NE, image_NE, shared_gradient(self.model.logit_scale, share).exp())
        return share * loss.detach() + (loss - loss.detach())


def _among_all(own_BE: Tensor, all_NE: Tensor | None, whole: WholeBatch) -> Tensor:
    """float[N, E] retrieval rows of the whole step, ours with gradient among the others' as constants."""
    first_row = whole.first_row
    if all_NE is None and whole.gather is not None:
        all_NE, first_row = whole.gather(own_BE.detach())
    if all_NE is None:
        return own_BE
    return torch.cat([all_NE[:first_row], own_BE, all_NE[first_row + len(own_BE) :]])
