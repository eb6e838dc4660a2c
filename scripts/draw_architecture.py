"""Draw the architecture of a model with the sizes that its own parts have, as an .svg file.

    python scripts/draw_architecture.py docs/img/architecture.svg                       # OPT-6.7B and CLIP ViT-L/14
    python scripts/draw_architecture.py flatland.svg --model checkpoints/gill_flatland  # any saved model

The paper's models are built on the meta device: shapes without weights. Every number of the figure is read from a part
that was built.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch
from torch import nn

from gill.files import write_text
from gill.mappers import DecisionHead
from gill.models.gill import GillModel
from gill.models.gill.trained import load_trained
from gill.parameters import count_trainable
from scripts.benchmarks.setting import build_model
from scripts.command import carry_out
from scripts.plan_scale import LANGUAGES, shapes

WIDTH, HEIGHT, BOX_WIDTH, BOX_HEIGHT = 1000, 490, 178, 54
COLUMNS = (42, 232, 422, 612, 802)
OUTPUTS, MAPS, LANGUAGE, INPUTS, SOURCES = 16, 116, 216, 316, 416  # tops of the rows
MARGIN = 20  # where the vision tower's feature goes round the language model
FROZEN, TRAINED, PLAIN = "#dbe7f3", "#fde3c4", "#ffffff"


@dataclass
class Sheet:
    """An SVG page that is drawn on."""

    parts: list[str] = field(default_factory=list)

    def box(self, column: int, y: float, colour: str, *lines: str, last: int | None = None) -> None:
        """A box over one column, or as far as the last one: a bold first line, plain ones below it."""
        x, width = COLUMNS[column], BOX_WIDTH + (0 if last is None else COLUMNS[last] - COLUMNS[column])
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="6" fill="{colour}" stroke="#5b6770"/>'
        )
        top = y + BOX_HEIGHT / 2 - 8 * (len(lines) - 1) + 4
        for number, line in enumerate(lines):
            weight = "normal" if number else "bold"
            place = f'x="{x + width / 2:g}" y="{top + 16 * number:g}" text-anchor="middle" font-weight="{weight}"'
            self.parts.append(f"<text {place}>{escape(line)}</text>")

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through points with a head at its end."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="#5b6770" marker-end="url(#head)"/>')

    def up(self, column: int, row: float, to: float) -> None:
        """An arrow from the top of a box to the bottom of the one above it."""
        middle = COLUMNS[column] + BOX_WIDTH / 2
        self.arrow((middle, row), (middle, to + BOX_HEIGHT))

    def __str__(self) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
                'font-size="12">',
                '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
                'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#5b6770"/></marker></defs>',
                f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def main(words: list[str] | None = None) -> int:
    """Write the figure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="FILE.svg")
    known = f"{', '.join(LANGUAGES)}, or the folder of a saved model (default: opt-6.7b)"
    parser.add_argument("--model", default="opt-6.7b", help=known)
    options = parser.parse_args(words)
    return carry_out("draw_architecture", lambda: _write(options.out, options.model))


def _write(out: Path, name: str) -> str:
    model = model_of(name)
    text = draw_architecture(model)
    write_text(out, text)
    return f"{out}: {count_trainable(model):,} numbers train"


def model_of(name: str) -> GillModel:
    """One of `LANGUAGES` with CLIP ViT-L/14 and the paper's maps on the meta device, or a saved model.

    Raises:
        MissingCheckpointError: neither a known name nor the folder of a model.
    """
    if name not in LANGUAGES:
        return load_trained(Path(name), has_targets=False)[0]
    with torch.device("meta"):
        return build_model(shapes(name))


def draw_architecture(model: GillModel) -> str:
    """The figure as SVG text."""
    sheet = Sheet()
    _draw_language(sheet, model)
    _draw_inputs(sheet, model)
    _draw_outputs(sheet, model)
    return str(sheet)


def told(count: int) -> str:
    """A count in three digits: 6.66 B, 98.9 M, 32.8 k."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _draw_language(sheet: Sheet, model: GillModel) -> None:
    """The language model, and what the colours mean."""
    language, num_trained, num_all = model.language, count_trainable(model), _count(model)
    sizes = f"{len(language.layers)} layers of width {language.hidden_width}"
    sheet.box(0, LANGUAGE, FROZEN, f"language model: {told(_count(language))}", sizes, last=4)
    sheet.box(4, INPUTS, TRAINED, f"trained: {told(num_trained)}", f"{num_trained / num_all:.2%} of these weights")
    sheet.box(4, SOURCES, FROZEN, f"frozen: {told(num_all - num_trained)}", "without the diffusion model")


def _draw_inputs(sheet: Sheet, model: GillModel) -> None:
    """Below the language model: what it reads."""
    vision, prefix, rows = model.vision, model.visual_prefix, model.img_tokens.input_rows
    assert vision is not None
    (num_rows, width), names = rows.shape, model.config.img_token_names
    sizes = f"{prefix.linear.in_features} to {prefix.num_visual_tokens} x {width}"
    sheet.box(0, INPUTS, TRAINED, f"visual prefix: {told(_count(prefix))}", sizes)
    sheet.box(1, INPUTS, FROZEN, "word table", f"{model.vocabulary.num_words} x {width}")
    sheet.box(2, INPUTS, TRAINED, f"[IMG] rows: {told(rows.numel())}", f"{num_rows} x {width}")
    sheet.box(0, SOURCES, FROZEN, f"vision tower: {told(_count(vision))}", f"a picture to {vision.feature_width}")
    sheet.box(1, SOURCES, PLAIN, "text")
    sheet.box(2, SOURCES, PLAIN, "an image belongs here", " ... ".join(names[:: max(num_rows - 1, 1)]))
    for column in range(3):
        sheet.up(column, SOURCES, INPUTS)
        sheet.up(column, INPUTS, LANGUAGE)


def _draw_outputs(sheet: Sheet, model: GillModel) -> None:
    """Above the language model: what its hidden states become."""
    heads, num_rows = model.retrieval_heads, len(model.img_tokens.input_rows)
    sizes = [f"{head.in_features} to {head.out_features}" for head in (heads.image, heads.text)]
    sheet.box(0, MAPS, TRAINED, f"image head: {told(_count(heads.image))}", sizes[0])
    sheet.box(1, MAPS, TRAINED, f"text head: {told(_count(heads.text))}", f"first state: {sizes[1]}")
    sheet.box(0, OUTPUTS, PLAIN, "fetch", f"cosine in {heads.image.out_features} dimensions", last=1)
    tower = (COLUMNS[0], SOURCES + BOX_HEIGHT / 2)
    head = (COLUMNS[0], MAPS + BOX_HEIGHT / 2)
    sheet.arrow(tower, (MARGIN, tower[1]), (MARGIN, head[1]), head)
    sheet.box(2, MAPS, FROZEN, "word head", f"{model.vocabulary.num_words} words + {num_rows} [IMG] rows")
    sheet.box(2, OUTPUTS, PLAIN, "say", f"a word, or {model.config.img_token_names[0]}")
    if model.mapper is not None:
        _draw_drawing(sheet, model)
    for column in range(3 if model.mapper is None else 5):
        sheet.up(column, MAPS, OUTPUTS)
        if column:  # the image head reads the vision tower
            sheet.up(column, LANGUAGE, MAPS)


def _draw_drawing(sheet: Sheet, model: GillModel) -> None:
    """What a model without a mapper, FROMAGe, does not have."""
    config, mapper = model.config, model.mapper
    assert mapper is not None
    shape = f"{config.conditioning_length} x {config.conditioning_width}"
    name = config.mapper.replace("_", " ")
    sheet.box(3, MAPS, TRAINED, f"{name}: {told(_count(mapper))}", f"{config.num_img_tokens} states to {shape}")
    sheet.box(3, OUTPUTS, FROZEN, "draw", f"conditioned on {shape}")
    with torch.device("meta"):
        decision = DecisionHead(model.language.hidden_width)
    sizes = f"first state: {decision.linear.in_features} to {decision.linear.out_features}"
    sheet.box(4, MAPS, TRAINED, f"decision head: {told(_count(decision))}", sizes)
    sheet.box(4, OUTPUTS, PLAIN, "fetch or draw?", "trained last, on votes")


if __name__ == "__main__":
    sys.exit(main())
