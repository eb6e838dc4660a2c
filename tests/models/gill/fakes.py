"""Stand-ins for an index, a fetcher and a diffusion model, which remember what they were asked; scripted speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from PIL import Image
from torch import Tensor

from gill.errors import FetchError
from gill.models.gill import GillGenerator
from gill.types import GenerationOptions, Hit, Segment

CAT = [Segment(text="a cat")]
FORCED = GenerationOptions(num_words=1, force_image=True)


class FakeIndex:
    """N random unit rows; picture i is "i.png"."""

    def __init__(self, num_images: int, width: int = 16, seed: int = 0) -> None:
        rows = torch.randn(num_images, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.rows_NE = torch.nn.functional.normalize(rows, dim=-1)
        self.num_images, self.width = num_images, width

    def search(self, queries: Tensor, count: int) -> list[list[Hit]]:
        """Exact."""
        scores_QN = queries.double() @ self.rows_NE.T
        best = scores_QN.topk(min(count, self.num_images))
        return [
            [Hit(score, f"{row}.png") for score, row in zip(scores, rows, strict=True)]
            for scores, rows in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


class FakeFetcher:
    """Opens "i.png" as a plain picture of a colour of its own, unless it is dead."""

    def __init__(self, dead: Callable[[str], bool] = lambda source: False) -> None:
        self.dead, self.asked = dead, list[str]()

    def fetch(self, source: str) -> Image.Image:
        """The picture."""
        self.asked.append(source)
        if self.dead(source):
            raise FetchError(f"{source}: gone")
        return plain(int(source.removesuffix(".png")))


class FakeDrawer:
    """Draws a plain picture of the seed's colour; withholds those of some seeds."""

    def __init__(self, withheld: Sequence[int] = ()) -> None:
        self.withheld, self.calls = withheld, list[tuple[Tensor, list[int], int | None, float | None]]()
        self.conditioning_shape = (12, 16)

    def draw(
        self,
        conditioning: Tensor,
        seeds: Sequence[int],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Image.Image | None]:
        """One picture a seed."""
        assert conditioning.shape == (len(seeds), *self.conditioning_shape)
        self.calls.append((conditioning, list(seeds), num_inference_steps, guidance_scale))
        if progress is not None:
            progress(1, 1)
        return [None if seed in self.withheld else plain(seed) for seed in seeds]


def plain(number: int) -> Image.Image:
    """A picture that says its number."""
    return Image.new("RGB", (32, 32), (number % 256, 53 * number % 256, 97 * number % 256))


def steer(generator: GillGenerator, *tokens: int | str) -> None:
    """Make the model say these tokens one after the other, "image" for [IMG0], whatever it reads."""
    told = iter(tokens)

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(hidden), generator.model.vocabulary.size, dtype=torch.float64)
        token = next(told)
        scores[:, generator.img_ids[0] if token == "image" else int(token)] = 9.0
        return scores

    generator.model.logits = logits  # type: ignore[method-assign]


def passes_of(generator: GillGenerator, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Fills with the (lines, columns) of each pass of the language model."""
    seen: list[tuple[int, ...]] = []
    network = generator.model.language.hidden_states

    def count(embeddings: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(tuple(embeddings.shape[:2]))
        return network(embeddings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(generator.model.language, "hidden_states", count)
    return seen
