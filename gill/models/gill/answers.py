"""Answer an image that a reply asks for: decide, fetch, draw, and rank what was drawn.

Retrieved and drawn pictures are scored alike, by the cosine with the query in the retrieval space. Which of several
drawn candidates are kept is decided by the same score, or by a ranker that reads the words before the image.

Shape legend: N = images asked for, R = [IMG] tokens, D = hidden width, E = retrieval width, L x C = conditioning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from gill.errors import ConfigError, ShapeError
from gill.mappers import DecisionHead
from gill.mappers.decision import GENERATE
from gill.models.gill.model import GillModel
from gill.models.gill.prompts import PromptLayout
from gill.types import Drawer, GenerationOptions, Hit, ImageOutput, Picture, PictureIndex, PictureSource, Ranker

Progress = Callable[[int, int], None]

_SPARE_HITS = 16  # dead links that are passed over for one image, each at the cost of one attempt


@dataclass(frozen=True)
class ImageRequest:
    """An image a reply asks for: float[E] unit query, and what is known of the answer before there are pictures.

    Attributes:
        words: that stand before the image, for a ranker.
    """

    query: Tensor
    words: str
    output: ImageOutput


@dataclass
class Album:
    """What one reply has used up: the seed of its next drawn picture, and the sources that were tried."""

    next_seed: int
    tried: set[str] = field(default_factory=set)

    def take_seeds(self, count: int) -> range:
        """Seeds that follow each other; the picture with a running number has the same seed in any batch."""
        seeds = range(self.next_seed, self.next_seed + count)
        self.next_seed += count
        return seeds


class ImageAnswerer:
    """Finds pictures for what the language model asked for.

    Args:
        layout: makes features of drawn pictures, to score them.
        index, fetcher: to retrieve; both or neither.
        drawer: to draw; without one a model that could draw gives the conditioning alone.
        decision: chooses between the two.
        ranker: chooses among drawn candidates by the words before the image; None compares with the query.

    Raises:
        ConfigError: an index without a fetcher. ShapeError: an index that was not made for this model.
    """

    def __init__(
        self,
        model: GillModel,
        layout: PromptLayout,
        index: PictureIndex | None,
        fetcher: PictureSource | None,
        drawer: Drawer | None,
        decision: DecisionHead | None,
        ranker: Ranker | None = None,
    ) -> None:
        self.model, self.layout, self.index, self.fetcher, self.drawer = model, layout, index, fetcher, drawer
        self.ranker = ranker
        self.decision = None if decision is None else decision.to(model.device).eval()
        if index is not None and fetcher is None:
            raise ConfigError("an index names pictures, something has to open them; give a fetcher too")
        if index is not None and index.width != model.config.retrieval_width:
            raise ShapeError(
                f"the index holds rows of {index.width} numbers, the model makes {model.config.retrieval_width}; "
                "build the index with this model"
            )

    @torch.no_grad()
    def requests(self, hidden_NRD: Tensor, words: Sequence[str]) -> list[ImageRequest]:
        """What is asked for at each image's hidden states and in words, and how it is to be answered."""
        queries_NE = self.model.embed_text(hidden_NRD)
        conditioning: Sequence[Tensor | None] = [None] * len(hidden_NRD)
        if self.model.mapper is not None:
            conditioning = list(self.model.map_conditioning(hidden_NRD))
        probabilities = self._probabilities_generated(hidden_NRD)
        return [
            ImageRequest(query, text, ImageOutput((), (), None if p is None else p >= 0.5, p, sequence))
            for query, text, p, sequence in zip(queries_NE, words, probabilities, conditioning, strict=True)
        ]

    def answer(
        self,
        requests: Sequence[tuple[ImageRequest, Album]],
        options: GenerationOptions,
        progress: Progress | None = None,
    ) -> list[ImageOutput]:
        """The pictures of each request; those of one reply share its album, in reading order."""
        retrieved = self._retrieve(requests, options)
        generated = self._draw(requests, options, progress)
        return [
            replace(request.output, generated=drawn, retrieved=fetched, notes=(*drawn_notes, *fetched_notes))
            for (request, _), (fetched, fetched_notes), (drawn, drawn_notes) in zip(
                requests, retrieved, generated, strict=True
            )
        ]

    def _probabilities_generated(self, hidden_NRD: Tensor) -> list[float] | list[None]:
        can_draw = self.model.mapper is not None
        if can_draw and self.index is None:
            return [1.0] * len(hidden_NRD)
        if not can_draw and self.index is not None:
            return [0.0] * len(hidden_NRD)
        if not can_draw or self.decision is None:
            return [None] * len(hidden_NRD)
        logits_N2 = self.decision(hidden_NRD[:, 0].to(next(self.decision.parameters()).dtype))
        return logits_N2.softmax(-1)[:, GENERATE].tolist()

    def _retrieve(
        self, requests: Sequence[tuple[ImageRequest, Album]], options: GenerationOptions
    ) -> list[tuple[tuple[Picture, ...], tuple[str, ...]]]:
        if self.index is None or not options.num_retrieved or not requests:
            return [((), ())] * len(requests)
        count = options.num_retrieved * options.max_num_images + _SPARE_HITS
        hits = self.index.search(torch.stack([request.query for request, _ in requests]).float().cpu(), count)
        return [self._fetch(row, album, options) for row, (_, album) in zip(hits, requests, strict=True)]

    def _fetch(
        self, hits: Sequence[Hit], album: Album, options: GenerationOptions
    ) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
        """The best pictures the reply has not shown; a dead link falls to the next hit."""
        assert self.fetcher is not None
        pictures: list[Picture] = []
        dead: list[OSError] = []
        for hit in hits:
            if len(pictures) == options.num_retrieved or len(dead) > _SPARE_HITS:
                break
            if hit.source in album.tried:
                continue
            album.tried.add(hit.source)
            try:
                pictures.append(Picture(self.fetcher.fetch(hit.source), hit.score, hit.source))
            except OSError as error:
                dead.append(error)
        return tuple(pictures), (f"links that failed: {len(dead)}, the last one {dead[-1]}",) if dead else ()

    def _draw(
        self, requests: Sequence[tuple[ImageRequest, Album]], options: GenerationOptions, progress: Progress | None
    ) -> list[tuple[tuple[Picture, ...], tuple[str, ...]]]:
        count = options.num_generated * options.num_candidates
        if self.drawer is None or self.model.mapper is None or not count or not requests:
            return [((), ())] * len(requests)
        seeds = [list(album.take_seeds(count)) for _, album in requests]
        conditioning = [request.output.conditioning for request, _ in requests]
        images = self.drawer.draw(
            torch.stack([sequence for sequence in conditioning if sequence is not None]).repeat_interleave(count, 0),
            [seed for row in seeds for seed in row],
            options.num_inference_steps,
            options.guidance_scale,
            progress,
        )
        rows = [images[at : at + count] for at in range(0, len(images), count)]
        return [
            self._rank(request, row, row_seeds, options.num_generated)
            for (request, _), row, row_seeds in zip(requests, rows, seeds, strict=True)
        ]

    def _rank(
        self, request: ImageRequest, images: Sequence[Image.Image | None], seeds: Sequence[int], num_kept: int
    ) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
        """The best of the pictures that were not withheld."""
        there = [(image, f"seed {seed}") for image, seed in zip(images, seeds, strict=True) if image is not None]
        num_withheld = len(images) - len(there)
        notes = (f"pictures withheld by the safety checker: {num_withheld} of {len(images)}",) if num_withheld else ()
        scores = self._scores(request.query, [image for image, _ in there])
        pictures = [Picture(image, score, source) for (image, source), score in zip(there, scores, strict=True)]
        ranks = [-1.0 if score is None else score for score in scores]
        if self.ranker is not None and request.words and len(there) > 1:
            ranks = self.ranker.rank(request.words, [image for image, _ in there])
        best = sorted(range(len(there)), key=ranks.__getitem__, reverse=True)[:num_kept]
        return tuple(pictures[place] for place in best), notes

    @torch.no_grad()
    def _scores(self, query: Tensor, images: Sequence[Image.Image]) -> Sequence[float | None]:
        if not images or self.model.vision is None or self.layout.transform is None:
            return [None] * len(images)
        features_NF = torch.stack(self.layout.features(images))
        return (self.model.retrieval_heads.embed_image(features_NF) @ query).tolist()
