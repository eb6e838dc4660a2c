"""MS-COCO captions (Chen et al. 2015, arXiv:1504.00325) as questions: drawn, found, described.

A folder holds `dataset_coco.json` (Karpathy's split, whose test part counts) or `captions_val2014.json` (or 2017's),
also below `annotations/`, and the pictures as `val2014/COCO_val2014_<12 digits>.jpg`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.harness.items import PICTURE, Item, Reading, lot_of, read_json
from gill.errors import DataError
from gill.types import Segment

KARPATHY, OFFICIAL = "dataset_coco.json", ("captions_val2014.json", "captions_val2017.json")
CAPTIONS_PER_PICTURE = 5  # a few pictures have six or seven; as CLIP's evaluation, the first five count
_WANTED = f"give COCO's folder (--data), which holds {KARPATHY} or {OFFICIAL[0]}"


@dataclass(frozen=True)
class Row:
    """A picture and one of its captions, as a file has them; `caption_id` tells captions apart and orders them."""

    image_id: int
    path: str
    caption_id: int
    caption: str


@dataclass(frozen=True)
class Captioned:
    """A picture with its captions by number; `name` is its id in twelve digits."""

    name: str
    path: Path
    captions: tuple[str, ...]


def read_generation(folder: Path, protocol: str, context: str) -> Reading:
    """Each picture is to be drawn from its first caption, in an order drawn by lot, so that `--limit` asks a sample."""
    pictures, left_out, notes = read_pictures(folder, (*OFFICIAL, KARPATHY))
    by_lot = sorted(pictures, key=lambda picture: lot_of(picture.name))
    items = [
        Item(
            picture.name,
            (Segment(text=picture.captions[0]),),
            picture.path,
            (picture.path,),
            references=picture.captions[:1],
        )
        for picture in by_lot
    ]
    return Reading(tuple(items), folder, left_out, notes)


def read_captioning(folder: Path, protocol: str, context: str) -> Reading:
    """Each picture is to be described; all its captions are right."""
    pictures, left_out, notes = read_pictures(folder, (KARPATHY, *OFFICIAL))
    items = [
        Item(each.name, (Segment(image_path=each.path),), each.path, (each.path,), references=each.captions)
        for each in pictures
    ]
    return Reading(tuple(items), folder, left_out, notes)


def read_retrieval(folder: Path, protocol: str, context: str) -> Reading:
    """The picture of each caption is to be found among all, and a caption of each picture."""
    pictures, left_out, notes = read_pictures(folder, (KARPATHY, *OFFICIAL))
    questions = [
        Item(f"{each.name}-{number}", (Segment(text=text),), each.path, (each.path,), target=each.name)
        for each in pictures
        for number, text in enumerate(each.captions, start=1)
    ]
    gallery = [
        Item(f"picture-{each.name}", (Segment(image_path=each.path),), each.path, (each.path,), PICTURE, each.name)
        for each in pictures
    ]
    return Reading((*questions, *gallery), folder, left_out, notes)


def read_pictures(folder: Path, names: Sequence[str]) -> tuple[list[Captioned], Counter[str], Counter[str]]:
    """Pictures by id with their captions by caption id, whatever the order of the file; what is left out; what was met.

    Args:
        names: of annotation files; the first that is there is read.

    Raises:
        MissingFileError: none is there. DataError: annotations of another form.
    """
    places = [folder / below / name for name in names for below in ("", "annotations")]
    path = next((place for place in places if place.is_file()), folder / names[0])
    content = read_json(path, _WANTED)
    left_out, notes = Counter[str](), Counter[str]()
    try:
        rows = list(_karpathy(content) if path.name == KARPATHY else _official(content, path.stem[9:], left_out, notes))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not laid out as COCO's captions: {error!r}") from error
    captions: dict[int, dict[int, str]] = {}
    paths: dict[int, str] = {}
    for row in rows:
        told = captions.setdefault(row.image_id, {})
        notes["captions whose id occurs twice (the first counts)"] += row.caption_id in told
        told.setdefault(row.caption_id, row.caption)
        paths.setdefault(row.image_id, row.path)
    notes["captions beyond the fifth of a picture"] = sum(
        max(len(c) - CAPTIONS_PER_PICTURE, 0) for c in captions.values()
    )
    pictures = [
        Captioned(
            f"{image:012d}", folder / paths[image], tuple(told[each] for each in sorted(told)[:CAPTIONS_PER_PICTURE])
        )
        for image, told in sorted(captions.items())
    ]
    return pictures, +left_out, +notes


def _karpathy(content: Any) -> Iterator[Row]:
    for image in content["images"]:
        if image["split"] == "test":
            path = f"{image['filepath']}/{image['filename']}"
            for sentence in image["sentences"]:
                yield Row(int(image["cocoid"]), path, int(sentence["sentid"]), _one_line(sentence["raw"]))


def _official(content: Any, split: str, left_out: Counter[str], notes: Counter[str]) -> Iterator[Row]:
    files = {int(image["id"]): f"{split}/{image['file_name']}" for image in content["images"]}
    notes["pictures that are listed twice (the last counts)"] = len(content["images"]) - len(files)
    captioned = {int(row["image_id"]) for row in content["annotations"]}
    left_out["a picture without a caption"] = len(files.keys() - captioned)
    for row in content["annotations"]:
        image_id = int(row["image_id"])
        if image_id in files:
            yield Row(image_id, files[image_id], int(row["id"]), _one_line(row["caption"]))
        else:
            left_out["a caption of a picture that is not listed"] += 1


def _one_line(text: str) -> str:
    return " ".join(text.split())
