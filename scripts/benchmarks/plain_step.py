"""The original's training step, restated plainly: what `gill.models.gill` is compared with for work and memory.

Three modes one after the other, each with its own vision tower pass and its own language model pass over right-padded
rows with full logits; one joined word table of which all rows get gradients and AdamW moments, though only the [IMG]
rows may change (github.com/kohjingyu/gill 4600b71, main.py and gill/models.py). Labels, lengths and gathers are
tensor operations and the optimiser is the one ours uses, so that only the algorithm differs.

Shape legend: B = captions, T = padded tokens, R = [IMG] tokens, V = visual tokens, K = words, D = width.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.config import Recipe
from gill.mappers import GILLMapper
from gill.models.gill import GillConfig, GillModel
from gill.types import IGNORED_LABEL, Batch

_PAD = 1  # of OPT's tokenizer
_FEED_FORWARD_FACTOR = 4  # inner width of the mapper's layers by their width


class PlainMapper(nn.Module):
    """The original's GILLMapper: every sample decodes its own copy of the queries."""

    def __init__(self, mapper: GILLMapper, config: GillConfig) -> None:
        super().__init__()
        self.input, self.output = copy.deepcopy(mapper.input), copy.deepcopy(mapper.output)
        self.queries = copy.deepcopy(mapper.queries)
        width, num_heads = config.mapper_width, config.mapper_heads
        layer = nn.TransformerDecoderLayer(
            width, num_heads, _FEED_FORWARD_FACTOR * width, dropout=0.0, norm_first=True, batch_first=True
        )
        self.transformer = nn.Transformer(
            width,
            num_heads,
            custom_encoder=copy.deepcopy(mapper.transformer.encoder),
            custom_decoder=nn.TransformerDecoder(layer, config.mapper_layers, nn.LayerNorm(width)),
            batch_first=True,
        )
        self.transformer.load_state_dict(copy.deepcopy(mapper.transformer.state_dict()), assign=True)  # on its device

    def forward(self, hidden_BRD: Tensor, rows_RD: Tensor) -> Tensor:
        """float[B, L, C]."""
        states = self.input(hidden_BRD + rows_RD)
        return self.output(self.transformer(states, self.queries.expand(len(states), -1, -1)))


class PlainGill(nn.Module):
    """The original's model with the weights of ours.

    Args:
        model: a GILL model around an OPT; its frozen layers and tower are shared, the rest is copied.
        batch: with pixels and stored conditioning targets, not paired: the original pads paired captions to the same
            number of positions, so its step costs the same.
        max_tokens: T, captions and [IMG] tokens are padded to.
    """

    def __init__(self, model: GillModel, batch: Batch, max_tokens: int) -> None:
        super().__init__()
        assert model.vision is not None
        self.config, self.num_words, self.tower = model.config, model.vocabulary.num_words, model.vision.tower
        self.language = _with_joined_table(model)
        self.visual_embeddings = copy.deepcopy(model.visual_prefix.linear)
        self.text_head = copy.deepcopy(model.retrieval_heads.text)
        self.image_head = copy.deepcopy(model.retrieval_heads.image)
        self.logit_scale = nn.Parameter(model.logit_scale.detach().clone())
        assert isinstance(model.mapper, GILLMapper)
        self.mapper = PlainMapper(model.mapper, model.config)
        self.batch = batch.to(model.device)
        self.lengths_B1 = batch.text_lengths[:, None].to(model.device)
        self.columns_T = torch.arange(max_tokens, device=model.device)
        self.ids_BT = _padded_ids(batch, self.num_words, self.config.num_img_tokens, max_tokens).to(model.device)

    @property
    def table(self) -> nn.Parameter:
        """float[K + R, D], input and output rows."""
        return self.language.get_input_embeddings().weight

    def forward(self) -> Tensor:
        """The weighted sum of the losses of all three modes."""
        config = self.config
        text, contrastive = self._retrieval()
        text_again, conditioning = self._generation()
        return (
            config.captioning_weight * self._captioning()
            + config.text_weight * 0.5 * (text + text_again)
            + config.contrastive_weight * contrastive
            + config.conditioning_weight * conditioning
        )

    def keep_img_rows_only(self) -> None:
        """Mask the table's gradient to the [IMG] rows, as the original does between backward and clipping."""
        assert self.table.grad is not None
        is_img_K = torch.arange(len(self.table), device=self.table.device) >= self.num_words
        self.table.grad.mul_(is_img_K[:, None])

    @torch.no_grad()
    def rescale_img_rows(self) -> None:
        """Give each [IMG] row the mean norm of all other rows, as the original does after the update."""
        norms_K = self.table.norm(dim=-1)
        self.table[self.num_words :] *= norms_K[: self.num_words].mean() / norms_K[self.num_words :, None]

    def _captioning(self) -> Tensor:
        visual_BVD = self.visual_embeddings(self._features()).unflatten(-1, (self.config.num_visual_tokens, -1))
        labels_BT = self.ids_BT.masked_fill(self.columns_T >= self.lengths_B1, IGNORED_LABEL)
        no_labels_BV = labels_BT.new_full(visual_BVD.shape[:2], IGNORED_LABEL)
        return self._read(torch.cat([visual_BVD, self._embed()], dim=1), torch.cat([no_labels_BV, labels_BT], dim=1))[0]

    def _retrieval(self) -> tuple[Tensor, Tensor]:
        features = self._features()
        loss, img_BRD = self._read_text()
        texts = F.normalize(self.text_head(img_BRD)[:, 0], dim=-1)  # all R positions are mapped, one is used
        images = F.normalize(self.image_head(features), dim=-1) * self.logit_scale.exp()
        scores, pairs = texts @ images.T, torch.arange(len(texts), device=texts.device)
        return loss, (F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)) / 2

    def _generation(self) -> tuple[Tensor, Tensor]:
        self._features()  # computed and thrown away
        loss, img_BRD = self._read_text()
        assert self.batch.conditioning_target is not None
        mapped_BLC = self.mapper(img_BRD, self.table[self.num_words :])
        return loss, (mapped_BLC - self.batch.conditioning_target).norm(dim=-1).mean()

    def _read_text(self) -> tuple[Tensor, Tensor]:
        """(loss, float[B, R, D] states at the [IMG] tokens); only [IMG0] and the words are labelled."""
        labels_BT = self.ids_BT.masked_fill(self.columns_T > self.lengths_B1, IGNORED_LABEL)
        loss, states_BTD = self._read(self._embed(), labels_BT)
        places_BR = self.lengths_B1 + self.columns_T[: self.config.num_img_tokens]
        return loss, states_BTD.take_along_dim(places_BR[..., None], dim=1)

    @torch.no_grad()
    def _features(self) -> Tensor:
        return self.tower(self.batch.images).pooler_output

    def _embed(self) -> Tensor:
        return self.language.get_input_embeddings()(self.ids_BT)

    def _read(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.language(inputs_embeds=embeddings, labels=labels, output_hidden_states=True, use_cache=False)
        return outputs.loss, outputs.hidden_states[-1]


def plain_step(plain: PlainGill, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
    """Forward, backward, mask, clip, update, rescale."""
    plain().backward()
    plain.keep_img_rows_only()
    torch.nn.utils.clip_grad_norm_([p for p in plain.parameters() if p.requires_grad], recipe.grad_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    plain.rescale_img_rows()


def build_plain_optimizer(plain: PlainGill, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over what trains and the whole word table, with the fastest kernel; on a CPU our step uses it too."""
    return torch.optim.AdamW(
        [parameter for parameter in plain.parameters() if parameter.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _with_joined_table(model: GillModel) -> Any:
    """The frozen language model with a word table that ends in the [IMG] rows and gets gradients, its head tied."""
    frozen = model.language.model
    kept = {id(p): p for p in frozen.parameters() if p is not model.language.table}
    language = copy.deepcopy(frozen, memo=dict(kept))
    rows = torch.cat([model.language.table[: model.vocabulary.num_words], model.img_tokens.input_rows]).detach()
    for layer in language.model.decoder.layers:
        layer.activation_fn = nn.ReLU()  # as transformers builds it; ours keeps less for the backward pass
    embedding = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=_PAD)
    language.set_input_embeddings(embedding)
    language.get_output_embeddings().weight = embedding.weight
    language.config.vocab_size = len(rows)  # the loss reads it
    return language


def _padded_ids(batch: Batch, num_words: int, num_img_tokens: int, width: int) -> Tensor:
    """int64[B, T]: caption, [IMG] tokens, pads."""
    columns_T, lengths_B1 = torch.arange(width), batch.text_lengths[:, None]
    words_BT = F.pad(batch.text_ids, (0, width - batch.text_ids.shape[1]), value=_PAD)
    img_BT = num_words + columns_T - lengths_B1
    ids_BT = torch.where(columns_T < lengths_B1, words_BT, img_BT)
    return ids_BT.masked_fill(columns_T >= lengths_B1 + num_img_tokens, _PAD)
