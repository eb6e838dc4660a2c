"""What a chat with a model trained in Flatland gets: descriptions, pictures that exist, pictures that do not.

    python evals/flatland_chat.py checkpoints/gill_flatland

Requests are those of the demo: a picture alone is described, a caption is answered by an image. Everything asked about
is of splits that no training has seen.

    described.*   a picture is given; place, shapes and colours of the reply's first text, in the right cells. A thing
                  that is named and not there is a wrong one, a text that is no caption is all wrong.
    retrieved.*   a caption of a picture of the index: does the reply hold an image at all, and is the best match it?
    drawn.*       a caption of a pair of shape and colour that no part has seen (split `novel`), drawn and judged.

Each is a mean with its 95 % interval; the last line is one JSON object. How well the model decides between retrieving
and drawing is what `scripts/train_decision_model.py` reports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from evals.flatland_report import MARKS, interval
from evals.harness.measures import caption_marks
from gill import load_gill
from gill.errors import MissingFileError
from gill.flatland import Scene, compare, distinct_scenes, draw, random_caption, read_caption, read_picture
from gill.flatland.world import item_rng
from gill.models.gill import GillGenerator
from gill.models.gill.generator import Reply
from gill.types import GenerationOptions, ImageOutput, Segment
from scripts.command import carry_out
from scripts.make_flatland_gallery import CAPTIONS_NAME, GALLERY_NAME

BATCH_SIZE, SEED = 32, 2
NUM_WORDS = 48  # the longest caption and an image
Measures = dict[str, list[float]]


def describe(generator: GillGenerator, count: int) -> Measures:
    """What the model says of pictures."""
    asked = distinct_scenes("val", count, SEED)
    options = GenerationOptions(num_words=NUM_WORDS, num_retrieved=0, num_generated=0)
    replies = _answers(generator, [[Segment(image=draw(scene))] for scene in asked], options, "describing")
    marks = [_told(reply, scene) for reply, scene in zip(replies, asked, strict=True)]
    return {f"described.{name}": [each[name] for each in marks] for name in marks[0]}


def retrieve(generator: GillGenerator, index: Path, count: int) -> Measures:
    """Whether what exists is found.

    Raises:
        MissingFileError: the index has no pictures of Flatland with their captions.
    """
    stored = _stored_scenes(index / GALLERY_NAME)[:count]
    rng = item_rng(SEED, "test", "chat", 0)
    prompts = [[Segment(text=random_caption(rng, scene))] for _, scene in stored]
    options = GenerationOptions(num_words=NUM_WORDS, num_retrieved=1, num_generated=0)
    images = [_first_image(reply) for reply in _answers(generator, prompts, options, "retrieving")]
    found = [image.retrieved[0].source if image and image.retrieved else "" for image in images]
    return {
        "retrieved.answered_by_image": [float(image is not None) for image in images],
        "retrieved.r1": [float(Path(source).name == name) for source, (name, _) in zip(found, stored, strict=True)],
    }


def draw_new(generator: GillGenerator, count: int) -> Measures:
    """Whether what does not exist is drawn."""
    asked = distinct_scenes("novel", count, SEED)
    rng = item_rng(SEED, "novel", "chat", 0)
    prompts = [[Segment(text=random_caption(rng, scene))] for scene in asked]
    options = GenerationOptions(num_words=NUM_WORDS, num_retrieved=0, num_generated=1)
    images = [_first_image(reply) for reply in _answers(generator, prompts, options, "drawing")]
    marks = [
        compare(read_picture(image.generated[0].image), scene) if image and image.generated else None
        for image, scene in zip(images, asked, strict=True)
    ]
    return {f"drawn.{name}": [0.0 if each is None else getattr(each, name) for each in marks] for name in MARKS}


def _answers(
    generator: GillGenerator, prompts: Sequence[list[Segment]], options: GenerationOptions, name: str
) -> list[Reply]:
    replies: list[Reply] = []
    for start in tqdm(range(0, len(prompts), BATCH_SIZE), desc=name, unit="batch"):
        part = prompts[start : start + BATCH_SIZE]
        replies += generator.generate_batch(part, options, range(start, start + len(part)))
    return replies


def _told(reply: Reply, scene: Scene) -> dict[str, float]:
    """Marks of a description, each in 0..1."""
    return caption_marks(next((piece for piece in reply if isinstance(piece, str)), ""), scene)


def _first_image(reply: Reply) -> ImageOutput | None:
    return next((piece for piece in reply if isinstance(piece, ImageOutput)), None)


def _stored_scenes(gallery: Path) -> list[tuple[str, Scene]]:
    if not gallery.is_file():
        raise MissingFileError(f"{gallery} is not there; make it with scripts/make_flatland_gallery.py, then index it")
    with zipfile.ZipFile(gallery) as packed:
        captions: dict[str, str] = json.loads(packed.read(CAPTIONS_NAME))
    return [(name, read_caption(text)) for name, text in captions.items()]


def measure(folder: Path, count: int) -> Measures:
    """All measures of a saved model; an index is looked for in it."""
    generator = load_gill(folder).generator
    index = folder / "index"
    found = describe(generator, count) | (retrieve(generator, index, count) if index.is_dir() else {})
    return found if generator.images.drawer is None else found | draw_new(generator, count)


def _lines(found: Measures) -> Iterator[str]:
    for name, values in found.items():
        low, high = interval(values)
        yield f"{name:32}{statistics.fmean(values):7.3f}  [{low:.3f}, {high:.3f}]   n = {len(values)}"


def main(words: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a trained model, as main.py writes it")
    parser.add_argument("--n", type=int, default=256, help="requests of each kind (default: 256)")
    options = parser.parse_args(words)
    if options.n < 2:
        parser.error("--n must be at least 2")
    return carry_out("flatland_chat", lambda: _measure(options.model, options.n))


def _measure(model: Path, count: int) -> str:
    found = measure(model, count)
    return "\n".join([*_lines(found), json.dumps({name: round(statistics.fmean(v), 5) for name, v in found.items()})])


if __name__ == "__main__":
    sys.exit(main())
