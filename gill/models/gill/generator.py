"""Texts and pictures in, texts and pictures out (GILL, arXiv:2305.17216, section 3.4; FROMAGe, arXiv:2301.13823).

Shape legend: B = prompts, R = [IMG] tokens, D = hidden width, E = retrieval width, L x C = conditioning sequence,
K = words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from gill.backbones import ImageTransform
from gill.errors import GenerationError, ShapeError
from gill.mappers import DecisionHead
from gill.models.gill.answers import Album, ImageAnswerer, Progress
from gill.models.gill.decoding import Decoder
from gill.models.gill.encoding import GillTokenizer
from gill.models.gill.model import GillModel
from gill.models.gill.prompts import Prompts
from gill.models.gill.reading import GillReader, Prompt
from gill.models.gill.replies import Emission, Endings, Transcript, transcribe
from gill.types import (
    Drawer,
    GenerationEvent,
    GenerationOptions,
    ImageDecided,
    ImageOutput,
    ImageReady,
    PictureIndex,
    PictureSource,
    Ranker,
    TextDelta,
)

Reply = list[str | ImageOutput]


@dataclass(frozen=True)
class Decoded:
    """What the language model said, before it became texts and pictures.

    Attributes:
        ids: as said, with all ids of each image; the end of sequence is the last, if it came.
        hidden: float[len(ids) or one less, D] last hidden states; a word at the very end is not read.
    """

    ids: tuple[int, ...]
    hidden: Tensor


class GillGenerator(GillReader):
    """A model with everything around it that answering takes.

    Answers depend on the prompt, the options and the seed alone: not on the batch, the device's random state or what
    was asked before.

    Args:
        transform: for pictures in prompts, and to score drawn ones.
        index, fetcher, drawer, decision, ranker: as `ImageAnswerer`; without an index every image is drawn.

    Raises:
        ConfigError, ShapeError: as `ImageAnswerer`.
    """

    def __init__(
        self,
        model: GillModel,
        tokenizer: GillTokenizer,
        transform: ImageTransform | None,
        index: PictureIndex | None = None,
        fetcher: PictureSource | None = None,
        drawer: Drawer | None = None,
        decision: DecisionHead | None = None,
        ranker: Ranker | None = None,
    ) -> None:
        super().__init__(model, tokenizer, transform)
        self.images = ImageAnswerer(model, self.layout, index, fetcher, drawer, decision, ranker)

    def generate(
        self, prompt: Prompt, options: GenerationOptions, seed: int, progress: Progress | None = None
    ) -> Reply:
        """Answer one prompt with texts and images in reading order.

        Args:
            seed: of the words; drawn pictures have this seed and those that follow.
            progress: called by the diffusion model with (steps done, steps in all).

        Raises:
            GenerationError: a prompt that cannot be served, such as one that is too long.
            DataError: a picture of the prompt that cannot be read.
        """
        return self.generate_batch([prompt], options, [seed], progress)[0]

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Reply]:
        """Answer prompts together, each as `generate` answers it alone; one seed for each."""
        steps = self._emissions(prompts, options, seeds)
        transcripts = transcribe(self._endings(options), steps, len(prompts))
        albums = [Album(seed) for seed in seeds]
        rows = zip(prompts, transcripts, albums, strict=True)
        wanted = [(*asked, album) for prompt, row, album in rows for asked in self._asked(prompt, row)]
        outputs = iter(self._answer(wanted, options, progress))
        return [[piece if isinstance(piece, str) else next(outputs) for piece in row.pieces] for row in transcripts]

    def stream(
        self, prompt: Prompt, options: GenerationOptions, seed: int, progress: Progress | None = None
    ) -> Iterator[GenerationEvent]:
        """The same answer as it comes: stretches of text; an image as decided, then with its pictures.

        Raises:
            GenerationError, DataError: as `generate`, at the first event.
        """
        transcript, album = Transcript(self._endings(options)), Album(seed)
        for (emission,) in self._emissions([prompt], options, [seed]):
            if emission is None:
                break
            if news := transcript.add(emission):
                yield TextDelta(news)
            if emission.is_image:
                hidden, words = self._asked(prompt, transcript)[-1]
                request = self.images.requests(hidden[None], [words])[0]
                yield ImageDecided(request.output)
                yield ImageReady(self.images.answer([(request, album)], options, progress)[0])
        if news := transcript.rest():
            yield TextDelta(news)

    def decode(self, prompts: Sequence[Prompt], options: GenerationOptions, seeds: Sequence[int]) -> list[Decoded]:
        """What the language model says, as ids and hidden states; arguments and errors as `generate_batch`."""
        said: list[list[Emission]] = [[] for _ in prompts]
        for step in self._emissions(prompts, options, seeds):
            for row, emission in zip(said, step, strict=True):
                row += [] if emission is None else [emission]
        return [self._decoded(row) for row in said]

    def _emissions(
        self, prompts: Sequence[Prompt], options: GenerationOptions, seeds: Sequence[int]
    ) -> Iterator[Sequence[Emission | None]]:
        """What each row says, step by step; with num_words=0, the images its prompt asks for."""
        if len(seeds) != len(prompts):
            raise ShapeError(f"each prompt needs a seed of its own: got {len(seeds)} for {len(prompts)} prompts")
        laid = self.layout.read(prompts, options.repeats_bos)
        if not options.num_words:
            return zip_longest(*self._asked_for(laid, options.max_num_images))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return Decoder(self.model, self._endings(options), options).steps(laid, generators)

    @torch.no_grad()
    def _asked_for(self, laid: Prompts, max_num_images: int) -> list[list[Emission]]:
        """The images that each prompt asks for by their names."""
        found = []
        for ids, states in zip(laid.ids, self._hidden(laid), strict=True):
            ends = range(len(self.img_ids), len(ids) + 1)
            places = [slice(end - len(self.img_ids), end) for end in ends]
            places = [place for place in places if ids[place] == self.img_ids][:max_num_images]
            if not places:
                names = "".join(self.model.config.img_token_names)
                raise GenerationError(f"num_words=0 answers the images a prompt asks for; write {names} into it")
            found.append([Emission(self.img_ids, True, states[place]) for place in places])
        return found

    def _answer(
        self, wanted: Sequence[tuple[Tensor, str, Album]], options: GenerationOptions, progress: Progress | None
    ) -> list[ImageOutput]:
        if not wanted:
            return []
        hidden, words, albums = zip(*wanted, strict=True)
        requests = self.images.requests(torch.stack(hidden), words)
        return self.images.answer(list(zip(requests, albums, strict=True)), options, progress)

    def _asked(self, prompt: Prompt, transcript: Transcript) -> list[tuple[Tensor, str]]:
        """States and words of each image of a reply: the text right before it, or else the last one of the prompt."""
        last = next((part.text for part in reversed(prompt) if part.text), "")
        for name in self.model.config.img_token_names:
            last = last.replace(name, "")
        images = zip(transcript.images, transcript.leads, strict=True)
        return [(hidden, lead.strip() or last.strip()) for hidden, lead in images]

    def _endings(self, options: GenerationOptions) -> Endings:
        return Endings(self.tokenizer, options.stop_at_newline)

    def _decoded(self, said: Sequence[Emission]) -> Decoded:
        hidden = [emission.hidden for emission in said if emission.hidden is not None]
        nothing = torch.zeros(0, self.model.language.hidden_width, device=self.model.device)
        return Decoded(tuple(token for e in said for token in e.ids), torch.cat(hidden) if hidden else nothing)
