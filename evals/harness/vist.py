"""VIST stories (Huang et al. 2016, arXiv:1604.03968) as questions: which picture comes last?

A folder holds `val.story-in-sequence.json` as released, or the original's `val_formatted.json`, and the pictures as
`val_images/<image id>.png` (`evals/download_vist_images.py` fetches them). A story counts when its five texts and five
pictures are there, whatever part of them a context shows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.harness.items import PICTURE, Item, Reading, read_json
from gill.errors import DataError
from gill.types import Segment

CONTEXTS = ("1cap", "5cap", "5cap4img", "2cap1img")
RELEASED, FORMATTED, PICTURES = "val.story-in-sequence.json", "val_formatted.json", "val_images"
NUM_FRAMES = 5
_WANTED = "give the folder of VIST's story-in-sequence files (--data), which holds " + f"{RELEASED} or {FORMATTED}"


@dataclass(frozen=True)
class Frame:
    """One text of a story and the picture it belongs to.

    Attributes:
        order: its place as the worker arranged it.
        album: of the picture, from which several stories are told; "" in the original's short form.
    """

    caption: str
    image_id: str
    order: int
    album: str = ""


def read_generation(folder: Path, protocol: str, context: str) -> Reading:
    """The last picture of each story is to be drawn."""
    stories, left_out, notes = read_stories(folder, protocol)
    asked = _survivors(stories) if protocol == "paper" else stories
    items = [_question(folder, story, frames, context) for story, frames in asked.items()]
    return Reading(tuple(items), folder, left_out, notes)


def read_retrieval(folder: Path, protocol: str, context: str) -> Reading:
    """The last picture of each story is to be found among the pictures of all stories."""
    stories, left_out, notes = read_stories(folder, protocol)
    questions = [_question(folder, story, frames, context) for story, frames in stories.items()]
    gallery = dict.fromkeys(frame.image_id for frames in stories.values() for frame in frames)
    return Reading((*questions, *(_candidate(folder, image) for image in gallery)), folder, left_out, notes)


def read_stories(folder: Path, protocol: str) -> tuple[dict[str, tuple[Frame, ...]], Counter[str], Counter[str]]:
    """Five frames by story id, why other stories are left out, and what was met.

    "corrected" puts frames in the order the worker arranged and keeps the first of two that claim one place; "paper"
    trusts the file's order, as the original does.

    Raises:
        MissingFileError: no annotations there. DataError: annotations of another form.
    """
    told: dict[str, list[Frame]] = defaultdict(list)
    for story, frame in read_frames(folder):
        told[story].append(frame)
    left_out, notes = Counter[str](), Counter[str]()
    stories = {}
    for story, frames in told.items():
        arranged = frames if protocol == "paper" else _arranged(frames, notes)
        if len(arranged) != NUM_FRAMES:
            left_out["a story without five texts"] += 1
        else:
            stories[story] = tuple(arranged)
    last = Counter(frames[-1].image_id for frames in stories.values())
    notes["stories that share their last picture"] = sum(count for count in last.values() if count > 1)
    return stories, left_out, +notes


def read_frames(folder: Path) -> list[tuple[str, Frame]]:
    """(story id, frame) as the file has them.

    Raises:
        MissingFileError: no annotations there. DataError: annotations of another form.
    """
    path = next((folder / name for name in (RELEASED, FORMATTED) if (folder / name).is_file()), folder / RELEASED)
    content = read_json(path, _WANTED)
    try:
        if isinstance(content["annotations"], dict):
            return [(story, _formatted(row)) for story, rows in content["annotations"].items() for row in rows]
        return [(str(row["story_id"]), _released(row)) for (row,) in content["annotations"]]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not laid out as VIST's story-in-sequence files: {error!r}") from error


def picture_path(folder: Path, image_id: str) -> Path:
    """Where a picture lies."""
    return folder / PICTURES / f"{image_id}.png"


def _released(row: dict[str, Any]) -> Frame:
    order = int(row["worker_arranged_photo_order"])
    return Frame(row["text"], str(row["photo_flickr_id"]), order, str(row.get("album_id", "")))


def _formatted(row: dict[str, Any]) -> Frame:
    return Frame(row["caption"], str(row["image_id"]), int(row["sequence_index"]), str(row.get("album_id", "")))


def _arranged(frames: Iterable[Frame], notes: Counter[str]) -> list[Frame]:
    frames = list(frames)
    by_order: dict[int, Frame] = {}
    for frame in frames:
        by_order.setdefault(frame.order, frame)
    arranged = [by_order[order] for order in sorted(by_order)]
    notes["places of a story that are told twice (the first counts)"] += len(frames) - len(arranged)
    kept = [frame for frame in frames if by_order[frame.order] is frame]
    notes["stories not in the order the worker arranged (put in order)"] += kept != arranged
    return arranged


def _survivors(stories: dict[str, tuple[Frame, ...]]) -> dict[str, tuple[Frame, ...]]:
    """The original names a picture by the story's last image, so of stories that share it the last one overwrites the
    others and is scored for each."""
    last = {frames[-1].image_id: frames for frames in stories.values()}
    return {story: last[frames[-1].image_id] for story, frames in stories.items()}


def _question(folder: Path, story: str, frames: Sequence[Frame], context: str) -> Item:
    paths = [picture_path(folder, frame.image_id) for frame in frames]
    return Item(
        id=story,
        prompt=_prompt(frames, paths, context),
        truth=paths[-1],
        needs=tuple(paths),
        target=frames[-1].image_id,
        shown=tuple(frame.image_id for frame in frames[:-1]) if context == "5cap4img" else _shown(frames, context),
        subject=frames[-1].album,
    )


def _shown(frames: Sequence[Frame], context: str) -> tuple[str, ...]:
    return (frames[-2].image_id,) if context == "2cap1img" else ()


def _prompt(frames: Sequence[Frame], paths: Sequence[Path], context: str) -> tuple[Segment, ...]:
    captions = [frame.caption for frame in frames]
    if context in ("1cap", "5cap"):
        return (Segment(text=" ".join(captions[-int(context[0]) :])),)
    first = 0 if context == "5cap4img" else NUM_FRAMES - 2
    before = zip(captions[first:-1], paths[first:-1], strict=True)
    pairs = [part for text, path in before for part in (Segment(text=text), Segment(image_path=path))]
    return (*pairs, Segment(text=captions[-1]))


def _candidate(folder: Path, image_id: str) -> Item:
    path = picture_path(folder, image_id)
    return Item(f"picture-{image_id}", (Segment(image_path=path),), path, (path,), PICTURE, image_id)
