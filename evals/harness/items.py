"""Questions put to a system, and how an evaluation keeps account of what it cannot ask."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from gill.data import open_image
from gill.errors import DataError, MissingFileError
from gill.types import Segment

QUESTION, PICTURE = "question", "picture"
# How log-probabilities of a text's tokens make its score: each after what stands before it; "unshifted" after itself;
# "with_bos" counts the beginning of sequence that stands between a prompt's picture and the text.
SUM, UNSHIFTED_SUM, MEAN, MEAN_WITH_BOS = "sum", "unshifted_sum", "mean", "mean_with_bos"
SQUASHED = (224, 224)  # the size to which the original evaluation squashes every picture of VIST


@dataclass(frozen=True)
class Item:
    """One question, or one picture of the gallery that questions are answered from.

    Attributes:
        id: unique in its data set; names the files of its answer and, with the run's seed, its noise.
        prompt: texts and picture files in reading order.
        truth: the picture that is asked for, or that the gallery shows; None where a text is wanted.
        needs: files that must hold readable pictures for the item to count, in whatever context it is asked: what one
            context leaves out, every context leaves out.
        kind: QUESTION or PICTURE.
        target: id of the gallery picture that is right. shown: ids of those that the context shows itself.
        references: texts that are wanted, where any are: what people said of the same picture. answer_type: what kind
            of answer they gave, by which scores are told apart.
        candidates: texts to choose from; `right` is the place of the true one, `relevance` a value for each or nothing.
        subject: what questions share that are not independent, such as an album; nothing is asked of it.
    """

    id: str
    prompt: tuple[Segment, ...]
    truth: Path | None = None
    needs: tuple[Path, ...] = ()
    kind: str = QUESTION
    target: str = ""
    shown: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    answer_type: str = ""
    candidates: tuple[str, ...] = ()
    right: int = -1
    relevance: tuple[float, ...] = ()
    subject: str = ""

    @property
    def is_question(self) -> bool:
        """Whether a system has to answer it."""
        return self.kind == QUESTION

    def to_json(self, folder: Path) -> dict[str, Any]:
        """What an output says of the question; files relative to the data's folder."""
        said = [part.text if part.is_text else {"picture": _name(part.image_path, folder)} for part in self.prompt]
        told: dict[str, Any] = {"id": self.id, "kind": self.kind, "prompt": said}
        if self.truth is not None:
            told["truth"] = _name(self.truth, folder)
        for name in ("target", "shown", "references", "answer_type", "candidates", "right", "relevance", "subject"):
            value = getattr(self, name)
            if value not in ("", (), -1):
                told[name] = list(value) if isinstance(value, tuple) else value
        return told


@dataclass(frozen=True)
class Reading:
    """A data set as questions.

    Attributes:
        items: in the order in which they are asked.
        folder: where its files lie.
        left_out: by reason, how many questions cannot be asked at all.
        notes: by kind, how often something was met that the protocol had to decide, such as an id that occurs twice.
    """

    items: tuple[Item, ...]
    folder: Path
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def first(self, count: int | None) -> Reading:
        """The first questions alone; the gallery stays whole."""
        if count is None:
            return self
        questions = [item for item in self.items if item.is_question][:count]
        gallery = [item for item in self.items if not item.is_question]
        return replace(self, items=(*questions, *gallery))

    def digest(self) -> str:
        """Of all that is asked: another data set, order or context is another digest."""
        told = json.dumps([replace(item, subject="").to_json(self.folder) for item in self.items])
        return hashlib.sha256(told.encode()).hexdigest()


def lot_of(name: str) -> bytes:
    """32 bytes by which names stand in an order drawn by lot, the same everywhere."""
    return hashlib.sha256(name.encode()).digest()


def seed_of(seed: int, item_id: str) -> int:
    """The seed of an item's noise: it depends on nothing else that is asked, so nothing that is left out changes it."""
    return zlib.crc32(f"{seed}/{item_id}".encode())


def with_pictures(item: Item, is_squashed: bool) -> Item:
    """The same item with its prompt's pictures opened, after all it needs was found readable.

    Raises:
        DataError: a picture that is missing or damaged.
    """
    for path in item.needs:
        _open(path, is_squashed)
    prompt = tuple(
        part if part.image_path is None else Segment(image=_open(part.image_path, is_squashed)) for part in item.prompt
    )
    return replace(item, prompt=prompt)


def reason_of(error: DataError) -> str:
    """Why an item was left out, in words that are the same for every item of a kind."""
    return "a picture is missing" if isinstance(error, MissingFileError) else "a picture is damaged"


def read_json(path: Path, wanted: str) -> Any:
    """The contents of an annotation file.

    Raises:
        MissingFileError: it is not there. DataError: it is no JSON.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; {wanted}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); copy it again") from error


def texts_alone(prompt: Sequence[Segment]) -> str:
    """The texts of a prompt, one after the other."""
    return " ".join(part.text for part in prompt if part.text)


def pictures_alone(prompt: Sequence[Segment]) -> list[Image.Image]:
    """The opened pictures of a prompt."""
    return [part.image for part in prompt if part.image is not None]


def _open(path: Path, is_squashed: bool) -> Image.Image:
    if not path.is_file():
        raise MissingFileError(f"no picture {path}")
    image = open_image(path, "evaluation")
    return image.resize(SQUASHED) if is_squashed else image


def _name(path: Path | None, folder: Path) -> str:
    assert path is not None
    return path.relative_to(folder).as_posix()


Read = Callable[[Path, str, str], Reading]
