"""The GILL model: frozen backbones, and the few maps that train.

Shape legend: B = samples, M = pictures inside texts, R = [IMG] tokens, V = visual tokens a picture, F = image feature
width, D = language model width, E = retrieval width, L x C = conditioning sequence, S = positions of all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Cache

from gill.backbones import ConditioningEncoder, LanguageModel, VisionTower, reading_cache
from gill.backbones.linear import linear
from gill.errors import ConfigError, ShapeError
from gill.mappers import ImgTokenEmbedding, MapperSizes, RetrievalHeads, VisualPrefix, build_mapper
from gill.models.gill.config import GillConfig
from gill.models.gill.packing import Grid, attention_mask, pack, pack_ends
from gill.models.gill.sequence import TokenRows, Vocabulary
from gill.types import Batch


@dataclass(frozen=True)
class Hidden:
    """Last hidden states of rows, split where gradient begins.

    Attributes:
        frozen: float[n, D] of positions before the first trainable one of their row, no gradient; possibly empty.
        live: float[m, D] of the others that were asked for.
        is_live: bool[S]. index: int64[S], place of each position within its part, out of range for a position that was
            not asked for; both on the host.
    """

    frozen: Tensor
    live: Tensor
    is_live: Tensor
    index: Tensor

    def live_at(self, places: Tensor) -> Tensor:
        """float[..., D] states at flat places, given on the host, that carry gradient."""
        return self.live[self.index[places].to(self.live.device)]


class GillModel(nn.Module):
    """Frozen language model and vision tower, with the maps between them that train.

    Args:
        language: the frozen language model.
        vocabulary: id space of its tokenizer with the [IMG] tokens.
        feature_width: F, of the vision tower or of the stored features.
        conditioning_shape: (L, C), or None for a model that does not draw.
        vision: needed for pixels, not for stored features.
        conditioning: makes conditioning targets from captions; None when they are stored.
        whitening: float[F, F] of the features that visual tokens are made of; None leaves them as they are.
    """

    def __init__(
        self,
        config: GillConfig,
        language: LanguageModel,
        vocabulary: Vocabulary,
        feature_width: int,
        conditioning_shape: tuple[int, int] | None,
        vision: VisionTower | None = None,
        conditioning: ConditioningEncoder | None = None,
        whitening: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.language, self.vision, self.conditioning = language, vision, conditioning
        self.img_tokens = build_img_tokens(config, language, vocabulary)
        self.visual_prefix = VisualPrefix(
            feature_width, config.num_visual_tokens, language.width, config.image_dropout, whitening
        )
        self.retrieval_heads = RetrievalHeads(
            language.hidden_width, feature_width, config.retrieval_width, config.text_dropout, config.image_dropout
        )
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.mapper = None if conditioning_shape is None else _mapper(config, language, conditioning_shape)

    @property
    def trainable_dtype(self) -> torch.dtype:
        """Of the master weights."""
        return self.logit_scale.dtype

    @property
    def device(self) -> torch.device:
        """Where what trains is, and in a model that was built whole everything."""
        return self.logit_scale.device

    def image_features(self, images: Tensor) -> Tensor:
        """float[..., 3, H, W] pixels through the tower, or stored float[..., F] features as they are; no gradient.

        Raises:
            ConfigError: pixels came, but the model was built without a vision tower.
        """
        images = images.to(self.device)
        if images.dim() == 4:
            if self.vision is None:
                raise ConfigError(
                    "pictures came as pixels, but no vision tower was loaded; set vision or store features"
                )
            images = self.vision(images)
        return images.to(self.trainable_dtype)

    def conditioning_targets(self, batch: Batch) -> Tensor:
        """float[B, L, C] as the diffusion model's text encoder makes them, stored or computed now.

        Raises:
            ConfigError: the batch has neither targets nor ids for a text encoder that is loaded.
        """
        if batch.conditioning_target is not None:
            return batch.conditioning_target.to(self.device, self.trainable_dtype)
        if batch.conditioning_ids is None or self.conditioning is None:
            raise ConfigError("conditioning has no targets; set diffusion to a pipeline, or give stored targets")
        return self.conditioning(batch.conditioning_ids.to(self.device)).to(self.trainable_dtype)

    def embed(self, ids: Tensor, visual: Tensor | None = None) -> Tensor:
        """Embeddings of any ids of the vocabulary, in the language model's dtype.

        Args:
            ids: int64[...]. visual: float[pictures, V, D], needed where visual ids occur.
        """
        words = self.language.embed(ids.clamp(max=self.vocabulary.num_words - 1))
        trainable: list[Tensor] = [self.img_tokens.input_rows]
        if visual is not None:
            trainable.append(visual.flatten(0, 1))
        index = (ids - self.vocabulary.num_words).clamp(min=0)
        learned = torch.cat(trainable)[index].to(words.dtype)  # gathered first: gradients of one row are summed wide
        return torch.where((ids >= self.vocabulary.num_words)[..., None], learned, words)

    def hidden(self, rows: TokenRows, visual: Tensor | None, splits: bool = True, reads_last: bool = True) -> Hidden:
        """Last hidden states of all rows; without gradient wherever none can flow.

        Args:
            rows: on the host. visual: float[pictures, V, D].
            splits: False when nearly every position carries gradient anyway, as in captioning.
            reads_last: False when nobody asks for the state of a row's last token, as in captioning, where it is
                predicted and predicts nothing.

        Raises:
            ShapeError: a row longer than the language model has positions for.
        """
        if not len(rows.ids):
            return self._nothing_hidden()
        self._check_length(rows)
        frozen, live = pack(rows, self.vocabulary.num_words, splits, reads_last)
        is_live = torch.zeros(len(rows.ids), dtype=torch.bool).index_fill(0, live.places, True)
        index = torch.full((len(rows.ids),), len(rows.ids))
        for grid in (frozen, live):
            if grid is not None:
                index[grid.places] = torch.arange(len(grid.places))
        cache, keys = None, []
        frozen_hidden = self._nothing_hidden().frozen
        if frozen is not None:
            cache, keys = reading_cache(), [frozen.to(self.device)]
            with torch.no_grad():
                frozen_hidden = self.run(keys[0], self.language.embed(keys[0].ids), keys, cache)
        live = live.to(self.device)
        live_hidden = self.run(live, self.embed(live.ids, visual), [*keys, live], cache)
        return Hidden(frozen_hidden, live_hidden, is_live, index)

    @torch.no_grad()
    def hidden_ends(self, rows: TokenRows, visual: Tensor | None, count: int) -> Tensor:
        """float[B, count, D] last hidden states at the end of every row; of what stands before, only keys and values.

        Args:
            rows: on the host, each of `count` positions or more. visual: float[pictures, V, D].

        Raises:
            ShapeError: a row longer than the language model has positions for.
        """
        self._check_length(rows)
        before, ends = pack_ends(rows, count)
        cache, keys = None, []
        if before is not None:
            keys = [before.to(self.device)]
            embeddings = self.embed(keys[0].ids, visual)
            mask = attention_mask(keys[0], keys, embeddings.dtype)
            cache = self.language.remember(embeddings, keys[0].positions, mask)
        ends = ends.to(self.device)
        states = self.run(ends, self.embed(ends.ids, visual), [*keys, ends], cache)
        return states.view(rows.num_rows, count, -1)

    def _check_length(self, rows: TokenRows) -> None:
        length, limit = int(rows.positions.max()) + 1, self.language.max_positions
        if limit is not None and length > limit:
            raise ShapeError(
                f"a row has {length} tokens, the language model reads {limit}; lower max_tokens or do not pair"
            )

    def _nothing_hidden(self) -> Hidden:
        states = self.language.table.new_zeros(0, self.language.hidden_width)
        index = torch.zeros(0, dtype=torch.long)
        return Hidden(states, states, index.bool(), index)

    def run(self, grid: Grid, embeddings: Tensor, keys: list[Grid], cache: Cache | None) -> Tensor:
        """float[n, D] last hidden states of the n positions on a grid, in the order of its places.

        Args:
            embeddings: float[G, W, D] of the grid. keys: the grids it attends to, itself the last one.
            cache: holds the keys and values of the grids before, and gets those of this one.
        """
        mask = attention_mask(grid, keys, embeddings.dtype)
        states = self.language.hidden_states(embeddings, grid.positions, mask, cache)
        return states.flatten(0, 1)[grid.cells]

    def logits(self, hidden: Tensor) -> Tensor:
        """float[..., D] -> float[..., K + R] over the words in use and the [IMG] tokens."""
        weight, bias = self.frozen_head()
        words = linear(hidden, weight, bias)
        return torch.cat([words, hidden @ self.img_tokens.output_rows.to(hidden.dtype).T], dim=-1)

    def frozen_head(self) -> tuple[Tensor, Tensor | None]:
        """(float[K, D] rows, float[K] bias or None) of the words in use."""
        head, num_words = self.language.head, self.vocabulary.num_words
        return head.weight[:num_words], None if head.bias is None else head.bias[:num_words]

    def embed_text(self, img_hidden_BRD: Tensor) -> Tensor:
        """float[B, E] retrieval rows from the states at the [IMG] tokens, of which the first is read."""
        return self.retrieval_heads.embed_text(img_hidden_BRD[:, 0].to(self.trainable_dtype))

    def map_conditioning(self, img_hidden_BRD: Tensor) -> Tensor:
        """float[B, L, C] for the diffusion model.

        Raises:
            ConfigError: this model does not draw.
        """
        if self.mapper is None:
            raise ConfigError("this model has no mapper (conditioning_weight=0); it can retrieve, not draw")
        return self.mapper(img_hidden_BRD.to(self.trainable_dtype), self.img_tokens.input_rows)


def build_img_tokens(config: GillConfig, language: LanguageModel, vocabulary: Vocabulary) -> ImgTokenEmbedding:
    """[IMG] rows that fit a language model, with the mean norms of the rows they stand beside."""
    input_norm = _mean_norm(language.table[: vocabulary.num_words])
    output_norm = None if language.is_tied else _mean_norm(language.head.weight[: vocabulary.num_words])
    return ImgTokenEmbedding(config.num_img_tokens, language.width, input_norm, output_norm)


def _mapper(config: GillConfig, language: LanguageModel, shape: tuple[int, int]) -> nn.Module:
    own = (config.mapper_width, config.mapper_layers, config.mapper_heads)
    return build_mapper(config.mapper, MapperSizes(language.hidden_width, config.num_img_tokens, *shape, *own))


@torch.no_grad()
def _mean_norm(rows: Tensor) -> float:
    if rows.is_meta:
        return 1.0  # shapes only
    return float(torch.linalg.vector_norm(rows.float(), dim=-1).mean())
