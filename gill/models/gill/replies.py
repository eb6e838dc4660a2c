"""From emitted ids to the texts and images of a reply.

Shape legend: R = [IMG] tokens, D = hidden width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gill.models.gill.encoding import GillTokenizer

_HALF_CHARACTER = "\ufffd"  # what a tokenizer writes for the first bytes of a character


@dataclass(frozen=True)
class Emission:
    """What one row said in one step: a word, or an image.

    Attributes:
        ids: one word, or the R ids of an image.
        hidden: float[len(ids), D] last hidden states; None for a word at the very end, which nothing has to read.
    """

    ids: tuple[int, ...]
    is_image: bool
    hidden: Tensor | None


class Endings:
    """Where a reply is over: the end of sequence, a stop word, or a new line."""

    def __init__(self, tokenizer: GillTokenizer, stops_at_newline: bool) -> None:
        self.tokenizer, self.stops_at_newline = tokenizer, stops_at_newline
        self._silent = tokenizer.stop_ids
        self._texts: dict[int, str] = {}

    def ends(self, token: int, has_words: bool) -> bool:
        """Whether a reply is over with this token; newlines before its first word do not count."""
        if token in self._silent:
            return True
        text = self._text(token)
        return self.stops_at_newline and "\n" in (text if has_words else text.lstrip("\n"))

    def is_word(self, token: int) -> bool:
        """Whether this token is more than newlines."""
        return bool(self._text(token).strip("\n"))

    def text(self, ids: Sequence[int], is_first: bool) -> str:
        """The text of a stretch of ids up to where the reply is over; `is_first`: nothing was said before."""
        text = self.tokenizer.decode([token for token in ids if token not in self._silent])
        if not self.stops_at_newline:
            return text
        return (text.lstrip("\n") if is_first else text).partition("\n")[0]

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode([token])
        return self._texts[token]


class Transcript:
    """One reply as it comes: the ids of its texts, and float[R, D] hidden states where images belong."""

    def __init__(self, endings: Endings) -> None:
        self.endings = endings
        self._finished: list[str | Tensor] = []
        self._ids: list[int] = []
        self._shown = ""

    @property
    def pieces(self) -> list[str | Tensor]:
        """Texts and states in reading order, empty texts left out."""
        text = self._text()
        return [*self._finished, text] if text else self._finished

    @property
    def images(self) -> list[Tensor]:
        """The states of the images alone."""
        return [piece for piece in self._finished if not isinstance(piece, str)]

    @property
    def leads(self) -> list[str]:
        """The text right before each image, "" where there is none."""
        before = ["", *self._finished]
        pairs = zip(before, self._finished, strict=False)
        return [text if isinstance(text, str) else "" for text, piece in pairs if not isinstance(piece, str)]

    def add(self, emission: Emission) -> str:
        """Returns the text that can be shown now: half a character waits for its other half, or for an image."""
        if not emission.is_image:
            self._ids += emission.ids
            return self._news(self._text().rstrip(_HALF_CHARACTER))
        assert emission.hidden is not None, "an image is always read"
        news = self.rest()
        self._finished = [*self.pieces, emission.hidden]
        self._ids, self._shown = [], ""
        return news

    def rest(self) -> str:
        """What has not been shown of the text so far, which goes no further."""
        return self._news(self._text())

    def _text(self) -> str:
        return self.endings.text(self._ids, is_first=not self._finished)

    def _news(self, text: str) -> str:
        news, self._shown = text[len(self._shown) :], text
        return news


def transcribe(endings: Endings, steps: Iterable[Sequence[Emission | None]], num_rows: int) -> list[Transcript]:
    """The replies that all rows give, from what each says step by step."""
    transcripts = [Transcript(endings) for _ in range(num_rows)]
    for step in steps:
        for transcript, emission in zip(transcripts, step, strict=True):
            if emission is not None:
                transcript.add(emission)
    return transcripts
