"""What a model trained in Flatland can do on held-out scenes: RUN/report.json and RUN/samples.png.

    python evals/flatland_report.py runs/flatland

Galleries hold the pictures of distinct scenes of the split `test`, which no frozen part and no training has seen; a
picture that the context itself shows is no candidate. In `story_r1` every picture has a twin in the gallery that
differs in colours alone, which only the earlier pictures tell; `story_any_r1` is among any stories' last pictures.
Pictures are read by the judge; GILL and the diffusion model alone draw from the same captions with the same seeds. A
report that is there is shown, not written again.

Shape legend: N = queries and gallery, E = retrieval width, L x C = conditioning sequence.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops
from scripts.command import carry_out

define_missing_torchvision_ops()

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from gill.config import from_dict
from gill.data import STORY_FORMS, story_context
from gill.errors import CheckpointError, MissingCheckpointError
from gill.files import write_json
from gill.flatland import Scene, Story, compare, dialogue, dialogue_text, distinct_scenes, draw, read_picture, story
from gill.flatland import random_caption as any_caption
from gill.flatland.captions import caption as canonical_caption
from gill.flatland.world import item_rng
from gill.metrics import ranks_of_hits, share_interval
from gill.models import find_family
from gill.models.gill import GillIllustrator, load_weights
from gill.training import PanelRow, draw_panel
from gill.types import Batch, CaptionRecord, Segment

SPLIT, BATCH_SIZE, REPORT_SEED = "test", 32, 1
DIALOGUE_ROUNDS = (1, 5, 10)
MARKS = ("place", "cells", "shape", "colour", "shape_colour_cell")
NUM_SAMPLES = 8


@dataclass(frozen=True)
class Query:
    """A text or context, the scene it leads to, and the scenes it shows already."""

    scene: Scene
    caption: str
    context: tuple[Segment, ...] = ()
    shown: tuple[Scene, ...] = ()


class Reader:
    """A trained model, its encoder, and what it makes of queries.

    Raises:
        MissingCheckpointError: the run has no finished model.
    """

    def __init__(self, run: Path) -> None:
        settings = run / "config.json"
        if not settings.is_file() or not (run / "model").is_dir():
            raise MissingCheckpointError(f"{run} holds no finished training; run main.py --preset flatland first")
        config = json.loads(settings.read_text(encoding="utf-8"))
        family = find_family(config["family"])
        model = from_dict(type(family.presets[config["preset"]].model), config["model"])
        build: Callable[..., Any] = family.build
        self.task, self.encoder = build(model, "cpu", config["recipe"]["max_tokens"], config["run"]["seed"])
        load_weights(run / "model", self.task.model)
        self.task.train(False)
        run_settings = config["run"]
        self.illustrator = GillIllustrator(
            self.task.model,
            self.encoder.tokenizer,
            num_inference_steps=run_settings["num_inference_steps"],
            guidance_scale=run_settings["guidance_scale"],
        )

    def embed(self, queries: Sequence[Query]) -> tuple[Tensor, Tensor]:
        """float[N, E] of the texts and of the pictures of their scenes."""
        found = [self.task.embed(batch) for batch in self._batches(queries)]
        return torch.cat([each.text for each in found]), torch.cat([each.image for each in found])

    @torch.no_grad()
    def conditioning(self, queries: Sequence[Query]) -> tuple[Tensor, Tensor]:
        """float[N, L, C] as GILL maps it, and as the diffusion model's own text encoder makes it of the caption."""
        mapped, own = [], []
        for batch in self._batches(queries):
            mapped.append(self.task.evaluate(batch).conditioning)
            own.append(self.task.model.conditioning_targets(batch))
        return torch.cat(mapped), torch.cat(own)

    def draw(self, conditioning: Tensor, name: str) -> list[Image.Image]:
        """A picture a row, row i from seed i.

        Raises:
            CheckpointError: there is no diffusion model to draw with.
        """
        drawn: list[Image.Image] = []
        for start in tqdm(range(0, len(conditioning), BATCH_SIZE), desc=name, unit="batch"):
            part = conditioning[start : start + BATCH_SIZE]
            pictures = self.illustrator.draw(part, range(start, start + len(part)))
            drawn += [picture for picture in pictures if picture is not None]
        if len(drawn) != len(conditioning):
            raise CheckpointError(f"{self.task.model.config.diffusion} is no whole diffusion pipeline; build it first")
        return drawn

    def _batches(self, queries: Sequence[Query]) -> list[Batch]:
        samples = []
        for number, query in enumerate(queries):
            record = CaptionRecord(query.caption, Path(f"{number}.png"), query.context, "flatland/test", number + 1)
            pictures = tuple(part.image for part in query.context if part.image is not None)
            samples.append(self.encoder.encode(record, draw(query.scene), pictures))
        return [Batch.from_samples(samples[at : at + BATCH_SIZE]) for at in range(0, len(samples), BATCH_SIZE)]


def caption_queries(count: int) -> list[Query]:
    """Captions in any form of distinct scenes."""
    rng = item_rng(REPORT_SEED, SPLIT, "report-caption", 0)
    return [Query(scene, any_caption(rng, scene)) for scene in distinct_scenes(SPLIT, count, REPORT_SEED)]


@lru_cache
def twin_stories(count: int) -> list[Story]:
    """Stories in pairs whose last scenes differ in colours alone: what the texts tell fits both."""
    first: dict[Scene, Story] = {}
    twins: dict[Scene, Story] = {}
    for index in itertools.count():
        told = story(SPLIT, index, REPORT_SEED)
        outline = _without_colours(told.scenes[-1])
        if first.setdefault(outline, told).scenes[-1].content() != told.scenes[-1].content():
            twins.setdefault(outline, told)
        if 2 * len(twins) >= count:
            return [each for outline in twins for each in (first[outline], twins[outline])][:count]
    raise AssertionError("unreachable")


@lru_cache
def any_stories(count: int) -> list[Story]:
    """Stories whose last scenes are distinct."""
    found: dict[Scene, Story] = {}
    for index in itertools.count():
        told = story(SPLIT, index, REPORT_SEED)
        found.setdefault(told.scenes[-1].content(), told)
        if len(found) == count:
            return list(found.values())
    raise AssertionError("unreachable")


def _without_colours(scene: Scene) -> Scene:
    return replace(scene.content(), things=tuple(replace(thing, colour="") for thing in scene.content().things))


def story_queries(stories: Sequence[Story], form: str) -> list[Query]:
    """The last scenes of stories that are told in one of `STORY_FORMS`."""
    return [
        Query(told.scenes[-1], canonical_caption(told.scenes[-1]), story_context(told, form), told.scenes[:-1])
        for told in stories
    ]


def dialogue_queries(count: int, num_rounds: int) -> list[Query]:
    """Dialogues about distinct scenes, the first rounds of each."""
    queries: dict[Scene, Query] = {}
    index = 0
    while len(queries) < count:
        asked = dialogue(SPLIT, index, REPORT_SEED)
        context = (Segment(text=dialogue_text(asked.rounds[:num_rounds])),)
        queries.setdefault(asked.scene.content(), Query(asked.scene, canonical_caption(asked.scene), context))
        index += 1
    return list(queries.values())


def first_hits(text_NE: Tensor, image_NE: Tensor, queries: Sequence[Query]) -> list[float]:
    """1 for each query whose own picture beats every other candidate, else 0; a tie is no hit."""
    scores = text_NE @ image_NE.T
    contents = [query.scene.content() for query in queries]
    for row, query in enumerate(queries):
        shown = {scene.content() for scene in query.shown}
        for column, content in enumerate(contents):
            if content in shown and column != row:
                scores[row, column] = -math.inf
    is_own = torch.eye(len(queries), dtype=torch.bool)
    return (ranks_of_hits(scores, is_own) == 0).double().tolist()


def measure_retrieval(reader: Reader, count: int) -> dict[str, list[float]]:
    """Hits by measure; names as in the report, levels separated by a dot."""
    asked = {f"t2i_r1_{count}": caption_queries(count)}
    asked |= {f"story_r1_{count}.{form}": story_queries(twin_stories(count), form) for form in STORY_FORMS}
    asked |= {f"story_any_r1_{count}.{form}": story_queries(any_stories(count), form) for form in STORY_FORMS}
    asked |= {f"dialog_r1_{count}.{rounds}": dialogue_queries(count, rounds) for rounds in DIALOGUE_ROUNDS}
    return {name: first_hits(*reader.embed(queries), queries) for name, queries in asked.items()}


def measure_drawing(reader: Reader, count: int) -> tuple[dict[str, list[float]], Image.Image]:
    """The judge's marks by measure, and the sample grid."""
    queries = caption_queries(count)
    mapped, own = reader.conditioning(queries)
    drawn = {"generated": reader.draw(mapped, "GILL draws")}
    drawn["generated_from_true_caption"] = reader.draw(own, "the diffusion model draws")
    found: dict[str, list[float]] = {}
    for name, pictures in drawn.items():
        marks = [compare(read_picture(p), query.scene) for p, query in zip(pictures, queries, strict=True)]
        found |= {f"{name}.{mark}": [getattr(each, mark) for each in marks] for mark in MARKS}
    return found, _sheet(reader, queries[:NUM_SAMPLES], drawn)


def _sheet(reader: Reader, queries: Sequence[Query], drawn: dict[str, list[Image.Image]]) -> Image.Image:
    """Captions and stories with what is fetched for them and drawn from them."""
    stories = story_queries(any_stories(NUM_SAMPLES), STORY_FORMS[-1])
    told = reader.draw(reader.conditioning(stories)[0], "GILL draws stories")
    rows = []
    for name, group in (("caption", list(queries)), ("story", stories)):
        text, image = reader.embed(group)
        best = (text @ image.T).argmax(1).tolist()
        for number, query in enumerate(group):
            words = query.caption if name == "caption" else _told(query)
            pictures = {"true": draw(query.scene), "fetched": draw(group[best[number]].scene)}
            pictures["GILL draws"] = drawn["generated"][number] if name == "caption" else told[number]
            alone = drawn["generated_from_true_caption"][number] if name == "caption" else None
            rows.append(PanelRow({**pictures, "diffusion alone": alone}, f"{name}: {words}"))
    return draw_panel(rows)


def _told(query: Query) -> str:
    return " ".join("(picture)" if part.text is None else part.text for part in query.context)


def interval(values: Sequence[float]) -> list[float]:
    """95 % interval of the mean; everything, for a single value."""
    low, high = share_interval(values) if len(values) > 1 else (0.0, 1.0)
    return [round(low, 4), round(high, 4)]


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` -> `{"a": {"b": 1}}`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        *levels, last = name.split(".")
        place = result
        for level in levels:
            place = place.setdefault(level, {})
        place[last] = value
    return result


def report(run: Path, count: int) -> dict[str, Any]:
    """Measure, and write `report.json` and `samples.png` into the run folder."""
    began = time.time()
    reader = Reader(run)
    found = measure_retrieval(reader, count)
    marks, sheet = measure_drawing(reader, count)
    found |= marks
    meta = {
        "n": count,
        "split": SPLIT,
        "seed": REPORT_SEED,
        "seconds": round(time.time() - began, 1),
        "intervals_95": nested({name: interval(values) for name, values in found.items()}),
    }
    result = {**nested({name: round(statistics.fmean(values), 6) for name, values in found.items()}), "meta": meta}
    sheet.save(run / "samples.png")
    write_json(run / "report.json", result)
    return result


def main(words: list[str] | None = None) -> int:
    """Write the report of a run, or show the one that is there; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of main.py --preset flatland")
    parser.add_argument("--count", type=int, default=256, help="queries and gallery of each measure")
    parser.add_argument("--retrieval-only", action="store_true", help="print the retrieval measures, write nothing")
    options = parser.parse_args(words)
    return carry_out("flatland_report", lambda: _answer(options.run, options.count, options.retrieval_only))


def _answer(run: Path, count: int, is_retrieval_only: bool) -> str:
    path, note = run / "report.json", ""
    if is_retrieval_only:
        found = measure_retrieval(Reader(run), count)
        result = nested({name: statistics.fmean(values) for name, values in found.items()})
    elif path.is_file():
        note = f"{path} is there already; remove it to measure again\n"
        result = json.loads(path.read_text(encoding="utf-8"))
    else:
        result = report(run, count)
    return note + json.dumps({name: value for name, value in result.items() if name != "meta"}, indent=2)


if __name__ == "__main__":
    sys.exit(main())
