"""Writes Flatland in the file formats of the real benchmarks: CC3M as GILL reads it, VIST, VisDial, decision votes.

Every file is a function of (size, seed). Pictures appear under a temporary name and are then renamed, tables are
written last, so a killed run is continued by the same call and never leaves half a file behind.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from gill.errors import ConfigError, DataError
from gill.files import write_text, write_whole
from gill.flatland.captions import random_caption
from gill.flatland.decisions import decision
from gill.flatland.dialogues import Dialogue, all_answers, dialogue
from gill.flatland.pictures import draw
from gill.flatland.stories import Story, story
from gill.flatland.world import Scene, item_rng, sample_scene

MANIFEST = "flatland.json"
FORMAT_VERSION = 1
NUM_OPTIONS = 100
FIRST_IMAGE_ID = {"story": 10_000_000, "dialogue": 100_000}


@dataclass(frozen=True)
class Part:
    """One kind of file: `write(i)` makes item i's pictures and returns its row; `finish(rows)` writes the table."""

    name: str
    count: int
    write: Callable[[int], Any]
    finish: Callable[[list[Any]], None]


def parts(out: Path, size: int, seed: int) -> list[Part]:
    """What there is to write into `out`, in order, after claiming the folder.

    Args:
        out: folder, new or from an earlier call with the same size and seed.
        size: number of training pictures; there are a tenth as many (at least one) of everything else.
        seed: of the world.

    Raises:
        ConfigError: if the size is below 1, or `out` was written with another size or seed.
        DataError: if `out` cannot be written, or holds something else.
    """
    if size < 1:
        raise ConfigError(f"size must be at least 1, got {size}")
    _claim(out, {"format": FORMAT_VERSION, "size": size, "seed": seed})
    tenth = max(1, size // 10)
    return [
        _captions_part(out, "train", "training", size, seed),
        _captions_part(out, "val", "validation", tenth, seed),
        _stories_part(out, tenth, seed),
        _dialogues_part(out, tenth, seed),
        _decisions_part(out, tenth, size, seed),
    ]


def _claim(out: Path, manifest: dict[str, int]) -> None:
    path = out / MANIFEST
    if path.is_file():
        found = json.loads(path.read_text())
        if found != manifest:
            raise ConfigError(f"{out} was written with {found}, not {manifest}; choose another folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} holds something else; choose a new or an empty folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(manifest) + "\n")
    except OSError as error:
        raise DataError(f"cannot write into {out}: {error.strerror}; choose another folder") from error


def write_picture(path: Path, picture: Image.Image) -> None:
    """PNG or high-quality JPEG by the name's ending, whole or not at all; a picture that is there stays."""
    if path.exists():
        return
    form = {"format": "JPEG", "quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {"format": "PNG"}
    write_whole(path, lambda unfinished: picture.save(unfinished, **form))


def training_scene(index: int, seed: int, split: str = "train") -> Scene:
    """The scene of picture number `index` of a caption file."""
    return sample_scene(item_rng(seed, split, "captioned", index), split)


def _captions_part(out: Path, split: str, folder: str, count: int, seed: int) -> Part:
    def write(index: int) -> str:
        name = f"{split}_{index:07d}.png"
        scene = training_scene(index, seed, split)
        write_picture(out / "data" / "cc3m" / folder / name, draw(scene))
        return f"{random_caption(item_rng(seed, split, 'caption', index), scene)}\t{name}"

    def finish(rows: list[str]) -> None:
        write_text(out / "dataset" / f"cc3m_{split}.tsv", "\n".join(["caption\timage", *rows]) + "\n")

    return Part(f"captioned pictures ({split})", count, write, finish)


def _stories_part(out: Path, count: int, seed: int) -> Part:
    def write(index: int) -> Story:
        told = story("val", index, seed)
        for frame, scene in enumerate(told.scenes):
            write_picture(out / "sis" / "val_images" / f"{_story_image(index, frame)}.png", draw(scene))
        return told

    def finish(rows: list[Story]) -> None:
        write_text(out / "sis" / "val.story-in-sequence.json", json.dumps(_vist(rows)) + "\n")

    return Part("stories", count, write, finish)


def _story_image(index: int, frame: int) -> str:
    return str(FIRST_IMAGE_ID["story"] + 5 * index + frame)


def _vist(stories: list[Story]) -> dict[str, Any]:
    """VIST's story-in-sequence layout; without `url_o`, since the pictures are there already."""
    frames = [(i, f, text) for i, told in enumerate(stories) for f, text in enumerate(told.texts)]
    return {
        "info": {"description": "Flatland stories in the layout of VIST SIS", "version": str(FORMAT_VERSION)},
        "type": "vist",
        "albums": [{"id": str(index), "title": f"story {index}"} for index in range(len(stories))],
        "images": [{"id": _story_image(i, f), "title": "", "album_id": str(i)} for i, f, _ in frames],
        "annotations": [[_vist_annotation(i, f, text)] for i, f, text in frames],
    }


def _vist_annotation(index: int, frame: int, text: str) -> dict[str, Any]:
    return {
        "story_id": str(index),
        "storylet_id": str(5 * index + frame),
        "album_id": str(index),
        "photo_flickr_id": _story_image(index, frame),
        "worker_arranged_photo_order": frame,
        "text": text,
        "original_text": text,
        "setting": "first-2-pick-and-tell",
        "tier": "story-in-sequence",
        "worker_id": "flatland",
    }


def _dialogues_part(out: Path, count: int, seed: int) -> Part:
    folder = out / "VisualDialog"

    def write(index: int) -> Dialogue:
        held = dialogue("val", index, seed)
        name = f"VisualDialog_val2018_{FIRST_IMAGE_ID['dialogue'] + index:012d}.jpg"
        write_picture(folder / "VisualDialog_val2018" / name, draw(held.scene))
        return held

    def finish(rows: list[Dialogue]) -> None:
        visdial = _visdial(rows, seed)
        dense = [_dense(visdial, index, item_rng(seed, "val", "dense", index).randrange(10)) for index in range(count)]
        write_text(folder / "visdial_1.0_val.json", json.dumps(visdial) + "\n")
        write_text(folder / "visdial_1.0_val_dense_annotations.json", json.dumps(dense) + "\n")

    return Part("dialogues", count, write, finish)


def _visdial(dialogues: list[Dialogue], seed: int) -> dict[str, Any]:
    """VisDial 1.0's layout: questions and answers by number, 100 options a round."""
    questions = sorted({each.question for held in dialogues for each in held.rounds})
    data = {
        "questions": questions,
        "answers": all_answers(),
        "dialogs": [_visdial_dialog(index, held, questions, seed) for index, held in enumerate(dialogues)],
    }
    return {"version": "1.0", "split": "val", "data": data}


def _visdial_dialog(index: int, held: Dialogue, questions: list[str], seed: int) -> dict[str, Any]:
    rng, answers = item_rng(seed, "val", "options", index), all_answers()
    rounds = []
    for each in held.rounds:
        right, place = answers.index(each.answer), rng.randrange(NUM_OPTIONS)
        options = rng.sample([number for number in range(len(answers)) if number != right], NUM_OPTIONS - 1)
        options.insert(place, right)
        question = questions.index(each.question)
        rounds.append({"question": question, "answer": right, "answer_options": options, "gt_index": place})
    return {"image_id": FIRST_IMAGE_ID["dialogue"] + index, "caption": held.caption, "dialog": rounds}


def _dense(visdial: dict[str, Any], index: int, round_index: int) -> dict[str, Any]:
    """Relevance of the options of one round: 1 for the answer, one half for another way to say the same fact."""
    dialog, answers = visdial["data"]["dialogs"][index], visdial["data"]["answers"]
    asked = dialog["dialog"][round_index]
    fact = _fact(answers[asked["answer"]])
    relevance = [
        1.0 if option == asked["answer"] else 0.5 * (_fact(answers[option]) == fact)
        for option in asked["answer_options"]
    ]
    return {"image_id": dialog["image_id"], "round_id": round_index + 1, "gt_relevance": relevance}


def _fact(answer: str) -> str:
    """What an answer says, without its yes or no."""
    return answer.removeprefix("yes, ").removeprefix("no, ").removeprefix("there is ")


def _decisions_part(out: Path, count: int, num_stored: int, seed: int) -> Part:
    stored = [training_scene(index, seed) for index in range(num_stored)]
    contents = frozenset(scene.content() for scene in stored)

    def write(index: int) -> str:
        asked = decision(index, stored, contents, seed)
        category = "Stored" if asked.is_stored else "New"
        challenge = "One thing" if len(asked.scene.things) == 1 else "Two things"
        return f"{asked.prompt}\t{category}\t{challenge}\t\t{','.join(asked.votes)}"

    def finish(rows: list[str]) -> None:
        header = "Prompt\tCategory\tChallenge\tNote\tDecisions"
        write_text(out / "data" / "PartiPromptsAllDecisions.tsv", "\n".join([header, *rows]) + "\n")

    return Part("decisions", count, write, finish)
