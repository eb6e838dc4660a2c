"""Who answers: a GILL, the frozen diffusion model alone, a frozen CLIP, or chance.

Shape legend: N = questions or pictures, E = width of a system's retrieval space.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from evals.harness.items import MEAN, MEAN_WITH_BOS, UNSHIFTED_SUM, Item, pictures_alone, texts_alone
from gill import load_gill
from gill.backbones import DEFAULT_CLIP, Clip, DiffusionDrawer, load_drawer, tiny_drawer
from gill.config import require_known
from gill.data import open_image
from gill.errors import ConfigError, DataError
from gill.files import digest_file
from gill.models.gill import DEFAULT_DIFFUSION, located, read_trained
from gill.types import GenerationOptions, ImageOutput, Segment

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth"}
_FINGERPRINTED = 2**20  # bytes at either end


@dataclass(frozen=True)
class Settings:
    """How a system is set up and how it draws; what a run's manifest tells of it.

    Attributes:
        model: folder of a GILL, or name of a diffusion model or CLIP; the empty name takes the papers' own.
        diffusion: folder or name of the pipeline that a GILL draws with; "" takes the one it was trained for.
        steps, guidance_scale: of the diffusion model; None takes its own.
        repeats_bos: every text of a prompt begins with its own beginning of sequence, as FROMAGe's evaluation has it.
    """

    system: str
    model: str
    diffusion: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    repeats_bos: bool = False


class System:
    """Answers questions whose pictures are opened; each kind of answer is refused unless a system gives it."""

    name = "system"

    def draw(self, items: Sequence[Item], seeds: Sequence[int]) -> list[Image.Image | None]:
        """A picture for each question, from its own seed; None where a safety checker withheld it."""
        raise ConfigError(f"--system {self.name} does not draw; use gill, diffusion or chance")

    def embed(self, items: Sequence[Item], seeds: Sequence[int]) -> Tensor:
        """float[N, E] unit rows on the host: what a question asks for, or what a gallery picture shows."""
        raise ConfigError(f"--system {self.name} does not retrieve; use gill, clip or chance")

    def describe(self, items: Sequence[Item], seeds: Sequence[int], num_tokens: int) -> list[str]:
        """A text of at most so many tokens for each question."""
        raise ConfigError(f"--system {self.name} does not write; use gill or chance")

    def rate(self, items: Sequence[Item], seeds: Sequence[int], rating: str) -> list[list[float]]:
        """A score for each candidate of each question, greater is better.

        Args:
            rating: SUM, UNSHIFTED_SUM, MEAN or MEAN_WITH_BOS of `items.py`.
        """
        raise ConfigError(f"--system {self.name} does not rate answers; use gill or chance")


class GillSystem(System):
    """A trained GILL or FROMAGe, ours or a released one."""

    name = "gill"

    def __init__(self, settings: Settings) -> None:
        changes = {"diffusion": settings.diffusion} if settings.diffusion else None
        self.generator = load_gill(settings.model, load_ret_embs=False, changes=changes).generator
        self.settings = settings

    def draw(self, items: Sequence[Item], seeds: Sequence[int]) -> list[Image.Image | None]:
        """The picture of an image that is forced right after the prompt.

        Raises:
            ConfigError: the model does not draw.
        """
        if self.generator.images.drawer is None:
            raise ConfigError(
                f"{self.settings.model} does not draw; give a GILL, with --diffusion-model if it names none"
            )
        options = GenerationOptions(
            num_words=1,
            force_image=True,
            num_retrieved=0,
            guidance_scale=self.settings.guidance_scale,
            num_inference_steps=self.settings.steps,
            repeats_bos=self.settings.repeats_bos,
        )
        replies = self.generator.generate_batch([item.prompt for item in items], options, seeds)
        outputs = [next(part for part in reply if isinstance(part, ImageOutput)) for reply in replies]
        return [output.generated[0].image if output.generated else None for output in outputs]

    def embed(self, items: Sequence[Item], seeds: Sequence[int]) -> Tensor:
        """Questions by the retrieval head of [IMG], pictures by the retrieval head of pictures."""
        if items[0].is_question:
            return self.generator.conditioning_of(
                [item.prompt for item in items], self.settings.repeats_bos
            ).queries.cpu()
        pictures = [picture for item in items for picture in pictures_alone(item.prompt)]
        with torch.no_grad():
            features = torch.stack(self.generator.layout.features(pictures))
            return self.generator.model.retrieval_heads.embed_image(features).float().cpu()

    def describe(self, items: Sequence[Item], seeds: Sequence[int], num_tokens: int) -> list[str]:
        """The likeliest word each time up to the end of a line, no images among the words.

        Of a model that has no other end, the first sentence. The released ones learned none, since padding and what
        follows it has no loss, and tell on; the originals cut their replies at the first full stop of all.
        """
        options = GenerationOptions(num_words=num_tokens, max_num_images=0)
        replies = self.generator.generate_batch([item.prompt for item in items], options, seeds)
        texts = ["".join(part for part in reply if isinstance(part, str)).strip() for reply in replies]
        return texts if self.generator.model.config.stop_words else [first_sentence(text) for text in texts]

    def rate(self, items: Sequence[Item], seeds: Sequence[int], rating: str) -> list[list[float]]:
        """From log-probabilities in nats; what stands before the candidates is read once, but for MEAN_WITH_BOS."""
        if rating == MEAN_WITH_BOS:
            return [self._mean_likelihoods(item) for item in items]
        prompts, candidates = [item.prompt for item in items], [item.candidates for item in items]
        found = self.generator.continuation_log_likelihoods(prompts, candidates, rating != UNSHIFTED_SUM)
        return [[float(each.mean() if rating == MEAN else each.sum()) for each in row] for row in found]

    def _mean_likelihoods(self, item: Item) -> list[float]:
        """As `get_log_likelihood_scores` of the prompt with each candidate."""
        prompts = [(*item.prompt, Segment(text=candidate)) for candidate in item.candidates]
        return [float(scores.mean()) for scores in self.generator.log_likelihoods(prompts)]


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a word."""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


class DiffusionSystem(System):
    """The frozen diffusion model alone: it reads a prompt's texts through its own text window."""

    name = "diffusion"

    def __init__(self, settings: Settings) -> None:
        self.drawer, self.settings = _load_drawer(settings.model or DEFAULT_DIFFUSION), settings

    def draw(self, items: Sequence[Item], seeds: Sequence[int]) -> list[Image.Image | None]:
        """Drawn from the texts; pictures of the prompt go unseen, and a long text loses its end."""
        sequences = self.drawer.encode([texts_alone(item.prompt) for item in items])
        return self.drawer.draw(sequences, seeds, self.settings.steps, self.settings.guidance_scale)


class ClipSystem(System):
    """A frozen CLIP: a question is the mean of the unit rows of its texts, read as one, and of its pictures."""

    name = "clip"

    def __init__(self, settings: Settings) -> None:
        self.clip = Clip(settings.model or DEFAULT_CLIP, pick_device())

    def embed(self, items: Sequence[Item], seeds: Sequence[int]) -> Tensor:
        """Unit rows; a long text loses its end."""
        return F.normalize(torch.stack([self._embed(item) for item in items]), dim=-1)

    def _embed(self, item: Item) -> Tensor:
        texts, pictures = texts_alone(item.prompt), pictures_alone(item.prompt)
        rows = [self.clip.embed_texts([texts])] if texts else []
        return torch.cat([*rows, *([self.clip.embed_pictures(pictures)] if pictures else [])]).mean(0)


@dataclass(frozen=True)
class Truths:
    """What is right for the questions of a data set, to be drawn by lot.

    Attributes:
        pictures: files. texts: those of a question are one entry.
    """

    pictures: Sequence[Path]
    texts: Sequence[Sequence[str]]

    def picture(self, number: int) -> Image.Image:
        """A picture by number; one that cannot be read gives way to the next.

        Raises:
            DataError: none can be read.
        """
        for offset in range(len(self.pictures)):
            with contextlib.suppress(DataError):
                return open_image(self.pictures[(number + offset) % len(self.pictures)], "evaluation")
        raise DataError("no picture of the data can be read; chance has nothing to draw from")

    def text(self, number: int) -> str:
        """The first text of a question by number."""
        return self.texts[number % len(self.texts)][0]


class ChanceSystem(System):
    """Answers that know nothing of the question: a true picture or text of the data, random rows, random scores."""

    name = "chance"
    width = 64

    def __init__(self, truths: Truths) -> None:
        self.truths = truths

    def draw(self, items: Sequence[Item], seeds: Sequence[int]) -> list[Image.Image | None]:
        """A picture of the data that is drawn by lot."""
        return [self.truths.picture(seed) for seed in seeds]

    def embed(self, items: Sequence[Item], seeds: Sequence[int]) -> Tensor:
        """Random directions."""
        return F.normalize(torch.stack([_noise(seed, self.width) for seed in seeds]), dim=-1)

    def describe(self, items: Sequence[Item], seeds: Sequence[int], num_tokens: int) -> list[str]:
        """What was said to a question that is drawn by lot, however long."""
        return [self.truths.text(seed) for seed in seeds]

    def rate(self, items: Sequence[Item], seeds: Sequence[int], rating: str) -> list[list[float]]:
        """Random scores."""
        return [_noise(seed, len(item.candidates)).tolist() for item, seed in zip(items, seeds, strict=True)]


SYSTEMS = ("chance", "clip", "diffusion", "gill")


def load_system(settings: Settings, truths: Truths) -> System:
    """The system that `settings` name.

    Args:
        truths: what chance answers with.

    Raises:
        UnknownNameError: no such system. CheckpointError, ConfigError: it cannot be loaded.
    """
    require_known("system", settings.system, SYSTEMS)
    if settings.system == "chance":
        return ChanceSystem(truths)
    kinds: dict[str, Callable[[Settings], System]] = {
        "gill": GillSystem,
        "diffusion": DiffusionSystem,
        "clip": ClipSystem,
    }
    return kinds[settings.system](settings)


def fingerprint_of(settings: Settings) -> list[str]:
    """Of all weights that lie in folders, so that other ones do not continue a system's answers."""
    if settings.system != "gill":
        return [fingerprint_of_folder(settings.model)]
    trained = read_trained(Path(settings.model))
    source = trained.source
    path = source if source.is_file() else source / "weights.safetensors"  # a decision head beside it changes nothing
    config = located(trained.config, source)
    frozen = (config.language, config.vision, settings.diffusion or config.diffusion)
    return [digest_file(path), *map(fingerprint_of_folder, frozen)]


def fingerprint_of_folder(name: str) -> str:
    """Of the weights in a local folder: their names, sizes and ends, since some have gigabytes; "" of a hub name."""
    digest, folder = hashlib.sha256(), Path(name)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS) if name else []
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}".encode())
        with path.open("rb") as file:
            for start in (0, max(size - _FINGERPRINTED, 0)):
                file.seek(start)
                digest.update(file.read(_FINGERPRINTED))
    return digest.hexdigest() if paths else ""


def pick_device() -> str:
    """An accelerator where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_drawer(name: str) -> DiffusionDrawer:
    if name == "tiny":
        return tiny_drawer()
    device = pick_device()
    return load_drawer(name, device, torch.float16 if device == "cuda" else torch.float32)


def _noise(seed: int, count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))
