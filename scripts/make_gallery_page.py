"""Ask a model trained in Flatland for everything it can do, and write what came as a page with pictures.

    python scripts/make_gallery_page.py docs     # writes docs/GALLERY.md and docs/img/gallery_*.png
    python scripts/make_gallery_page.py runs/gallery --model runs/flatland/model --count 8

Scenes are the first of a held-out split, so nothing is chosen; wrong answers stand as they came. The judge
(`gill.flatland.read_caption`, `read_picture`) marks them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image
from tqdm import tqdm

import gill
from gill.errors import DataError
from gill.files import write_text, write_whole
from gill.flatland import (
    Scene,
    caption,
    dialogue,
    dialogue_text,
    distinct_scenes,
    draw,
    read_caption,
    read_picture,
    story,
)
from gill.models.gill import GillGenerator
from gill.types import GenerationOptions, ImageOutput, Segment
from scripts.command import carry_out

SIDE, GAP, SEED = 64, 4, 0
RIGHT, WRONG = "yes", "no"
DESCRIBE = GenerationOptions(num_words=48, num_retrieved=0, num_generated=0)
DRAW = GenerationOptions(num_words=1, force_image=True, num_retrieved=0)
DECIDE = GenerationOptions(num_words=1, force_image=True, num_retrieved=1)
Row = Sequence[str]
Pictures = Sequence[Image.Image]


@dataclass(frozen=True)
class Section:
    """A part of the page: rows of pictures, then a table whose first row is its header."""

    name: str
    title: str
    about: str
    pictures: Sequence[Pictures]
    table: Sequence[Row]


def describe(generator: GillGenerator, count: int) -> Section:
    """A picture in, words out."""
    scenes = distinct_scenes("val", count, SEED)
    replies = generator.generate_batch([[Segment(image=draw(scene))] for scene in scenes], DESCRIBE, range(count))
    said = [next((part.strip() for part in reply if isinstance(part, str)), "") for reply in replies]
    rows = [(words, _mark(_told_by(words) == scene.content())) for words, scene in zip(said, scenes, strict=True)]
    about = "A picture alone, uploaded; the reply, and whether every word of it is true."
    return Section("described", "Describing a picture", about, [[draw(s) for s in scenes]], [("reply", "true"), *rows])


def draw_captions(generator: GillGenerator, count: int) -> Section:
    """Words in, a new picture out."""
    scenes = distinct_scenes("test", count, SEED + 1)
    outputs = [_image(generator, [Segment(text=caption(scene))], DRAW, number) for number, scene in enumerate(scenes)]
    drawn = [output.generated[0].image for output in outputs]
    rows = [(caption(scene), _mark(_shows(picture, scene))) for scene, picture in zip(scenes, drawn, strict=True)]
    about = "A caption; above what it means, below what was drawn, and whether the judge sees the same in both."
    pictures = [[draw(scene) for scene in scenes], drawn]
    return Section("drawn", "Drawing", about, pictures, [("asked for", "same"), *rows])


def fetch_or_draw(generator: GillGenerator, count: int) -> Section:
    """What is in the index is fetched; a pair of shape and colour that nothing has shown is drawn."""
    stored, novel = distinct_scenes("test", count, SEED), distinct_scenes("novel", count, SEED)
    asked = [*stored[: (count + 1) // 2], *novel[: count // 2]]
    rows, shown = [], []
    for number, scene in enumerate(asked):
        output = _image(generator, [Segment(text=caption(scene, template=2))], DECIDE, number)
        picture = output.shown
        assert picture is not None
        shown.append(picture.image)
        odds = "" if output.probability_generated is None else f"{output.probability_generated:.2f}"
        kind = "stored" if scene in stored else "never seen"
        rows.append((caption(scene, template=2), kind, odds, picture.source, _mark(_shows(picture.image, scene))))
    about = (
        "Captions of stored pictures, then of pairs of shape and colour that no part of the model has seen. The "
        "decision head says how likely it is that a picture has to be drawn; below, what is shown then."
    )
    header = ("asked for", "is", "probability of drawing", "shown", "right")
    return Section("decided", "Fetching or drawing", about, [[draw(s) for s in asked], shown], [header, *rows])


def listen(generator: GillGenerator, count: int) -> Section:
    """A picture that is only talked about, drawn from more and more of what was said."""
    asked = dialogue("test", 0, SEED)
    marks, drawn = {}, []
    for number in range(count):
        heard = round((number + 1) * len(asked.rounds) / count)
        prompt = [Segment(text=dialogue_text(asked.rounds[:heard]))]
        drawn.append(_image(generator, prompt, DRAW, number).generated[0].image)
        marks[heard] = _mark(_shows(drawn[-1], asked.scene))
    rows = [(e.question + "?", e.answer, marks.get(number, "")) for number, e in enumerate(asked.rounds, start=1)]
    about = (
        "Questions and answers about a picture that the model does not see. At the left the picture; then what was "
        "drawn after each round that has a mark in the last column."
    )
    header = ("question", "answer", "same")
    return Section("dialogue", "A dialogue", about, [[draw(asked.scene), *drawn]], [header, *rows])


def tell(generator: GillGenerator, count: int) -> Section:
    """A story whose colours stand in its pictures alone; each picture is drawn from all that came before it."""
    told = story("test", 0, SEED)
    prompt, drawn, rows = [Segment(text=told.texts[0]), Segment(image=draw(told.scenes[0]))], [draw(told.scenes[0])], []
    for number, text in enumerate(told.texts[1 : count + 1], start=1):
        prompt.append(Segment(text=f" {text}"))
        drawn.append(_image(generator, prompt, DRAW, number).generated[0].image)
        prompt.append(Segment(image=draw(told.scenes[number])))
        rows.append((text, _mark(_shows(drawn[-1], told.scenes[number]))))
    about = (
        f"*{told.texts[0]}* and its picture are given. The texts that follow tell no colours: these have to be taken "
        "from the pictures. Above the story's own pictures; below what was drawn in place of each, from the texts so "
        "far and the story's own pictures before it. A second thing is often left out ([LOG.md](LOG.md))."
    )
    pictures = [[draw(scene) for scene in told.scenes[: len(drawn)]], drawn]
    return Section("story", "A story", about, pictures, [("text", "same"), *rows])


SECTIONS = (describe, draw_captions, fetch_or_draw, listen, tell)


def _image(generator: GillGenerator, prompt: Sequence[Segment], options: GenerationOptions, seed: int) -> ImageOutput:
    return next(part for part in generator.generate(prompt, options, seed) if isinstance(part, ImageOutput))


def _told_by(words: str) -> Scene | None:
    try:
        return read_caption(words).content()
    except DataError:
        return None


def _shows(picture: Image.Image, scene: Scene) -> bool:
    return read_picture(picture.resize((SIDE, SIDE))).content() == scene.content()


def _mark(is_right: bool) -> str:
    return RIGHT if is_right else WRONG


def sheet(rows: Sequence[Pictures]) -> Image.Image:
    """Rows of pictures on white, SIDE pixels each."""
    step = SIDE + GAP
    page = Image.new("RGB", (max(map(len, rows)) * step - GAP, len(rows) * step - GAP), "white")
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            page.paste(picture.resize((SIDE, SIDE)), (across * step, down * step))
    return page


def page(sections: Sequence[Section], model: str) -> str:
    """The Markdown of all sections."""
    lines = [
        "# Gallery",
        "",
        f"What {model} answers: the first scenes of splits that no training has seen, none chosen.",
    ]
    lines += ["`python scripts/make_gallery_page.py docs` makes this page. How often answers are right in general is"]
    lines += ["measured in [RESULTS.md](RESULTS.md) and in the model's card."]
    for section in sections:
        header, *rows = section.table
        lines += [
            "",
            f"## {section.title}",
            "",
            section.about,
            "",
            f"![{section.title}](img/gallery_{section.name}.png)",
        ]
        lines += ["", *map(_line, (header, ["---"] * len(header), *rows))]
    return "\n".join(lines) + "\n"


def _line(cells: Row) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def main(words: list[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="FOLDER")
    parser.add_argument("--model", default="checkpoints/gill_flatland", help="default: checkpoints/gill_flatland")
    parser.add_argument("--count", type=int, default=4, help="scenes, questions or pictures a section (default: 4)")
    options = parser.parse_args(words)
    if not 1 <= options.count <= 10:
        parser.error("--count must be 1 to 10")
    return carry_out("make_gallery_page", lambda: _make(options.out, options.model, options.count))


def _make(out: Path, model: str, count: int) -> str:
    generator = gill.load_gill(model).generator
    sections = [make(generator, count) for make in tqdm(SECTIONS, desc="sections", unit="")]
    for section in sections:
        image = sheet(section.pictures)
        place = out / "img" / f"gallery_{section.name}.png"
        write_whole(place, partial(image.save, format="PNG", optimize=True))
    write_text(out / "GALLERY.md", page(sections, f"`{model}`"))
    return f"{out / 'GALLERY.md'}: {len(sections)} sections"


if __name__ == "__main__":
    sys.exit(main())
