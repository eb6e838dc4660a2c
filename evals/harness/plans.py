"""What `make reproduce` trains and asks for each table: in Flatland, nothing tuned per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from evals.harness.published import LOSSES, MAPPERS, NUM_TOKENS
from evals.harness.tasks import TASKS
from gill.config import require_known
from gill.mappers import MapperSizes, build_mapper
from gill.models.gill import find_preset
from gill.parameters import count_trainable

_CAPTION = (
    "( a big red star at the top left and a small blue ring at the bottom right of the"  # what [IMG] rows start from
)
SHORT_STEPS = 400  # of a training for one row of an ablation
_SHORT = ("--epochs", "1", "--steps-per-epoch", str(SHORT_STEPS), "--save-freq", "100")
# Of Flatland's frozen parts: width of the language model, and the conditioning sequence.
_HIDDEN, _LENGTH, _WIDTH = 192, 40, 192
_PRESET = find_preset("flatland").model


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        flags: of `main.py`, beside the preset and the seed.
        published: what the paper reports of it, in the measure of the table; None where it reports nothing.
        training: its name, where tables share it; empty: the label.
    """

    label: str
    flags: tuple[str, ...] = ()
    published: float | None = None
    training: str = ""


@dataclass(frozen=True)
class Plan:
    """One table, or several that share their models.

    Attributes:
        tasks: contexts asked of every seed, by task. first_seed_tasks: of the first seed alone.
        baselines: systems asked beside, with the tasks they suit: (system, label, model, tasks).
    """

    title: str
    variants: tuple[Variant, ...]
    tasks: Mapping[str, Sequence[str]]
    first_seed_tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    baselines: tuple[tuple[str, str, str, tuple[str, ...]], ...] = ()
    has_decision: bool = False
    has_ablation: bool = False


_DRAWN = {name: TASKS[name].contexts for name in ("vist-generation", "visdial-generation")}
_FOUND = {name: TASKS[name].contexts for name in ("vist-retrieval", "visdial-retrieval")}
# Contexts that the papers compare, each of which tells what the one before it tells and more.
GROWING = {
    **dict.fromkeys(("vist-generation", "vist-retrieval"), ("1cap", "5cap", "5cap4img")),
    **dict.fromkeys(("visdial-generation", "visdial-retrieval"), ("1", "5", "10")),
}
DIFFUSION, CLIP = "checkpoints/flatland/diffusion", "checkpoints/flatland/clip"
_ABLATED = {"vist-retrieval": ("5cap4img",)}, {"vist-generation": ("5cap4img",)}


def _mapper_variants() -> tuple[Variant, ...]:
    """Every form at the preset's width, and the small ones again as large as the GILLMapper."""
    short, width = _short(20), _PRESET.mapper_width  # 20 shares of the sequence are even
    found = [
        Variant(f"{kind}, width {width}", ("--text-fc-mode", kind, *short), MAPPERS[kind])
        for kind in ("linear", "mlp", "transformer_encoder", "gill_mapper")
    ]
    goal = mapper_parameters("gill_mapper", width)
    widths = range(_PRESET.mapper_heads, 2048, _PRESET.mapper_heads)
    for kind in ("mlp", "transformer_encoder"):
        wide = min(widths, key=lambda each: abs(mapper_parameters(kind, each) - goal))
        found.append(Variant(f"{kind}, width {wide}", ("--text-fc-mode", kind, *short, f"mapper_width={wide}")))
    return tuple(found)


def _first_words(count: int) -> str:
    return " ".join(_CAPTION.split()[:count])


def mapper_parameters(kind: str, width: int) -> int:
    """Numbers that train of a mapper between Flatland's parts."""
    sizes = MapperSizes(_HIDDEN, 20, _LENGTH, _WIDTH, width, _PRESET.mapper_layers, _PRESET.mapper_heads)
    with torch.device("meta"):
        return count_trainable(build_mapper(kind, sizes))


def _token_variants() -> tuple[Variant, ...]:
    return tuple(Variant(_of(count), _short(count), NUM_TOKENS[count]) for count in (1, 2, 4, 8))


def _loss_variants() -> tuple[Variant, ...]:
    """With the paper's eight tokens."""
    return (
        Variant("with the retrieval loss", _short(8), LOSSES["with"], _of(8)),
        Variant("without", (*_short(8), "--set", "contrastive_weight=0"), LOSSES["without"]),
    )


def _of(count: int) -> str:
    return f"{count} [IMG]"


def _short(count: int) -> tuple[str, ...]:
    """Flags of a short training with so many tokens; further settings may follow."""
    return ("--num-tokens", str(count), *_SHORT, "--set", f"img_words={_first_words(count - 1)}")


def find_plan(name: str) -> Plan:
    """A table by name.

    Raises:
        UnknownNameError: no such table.
    """
    require_known("table", name, TABLES)
    if name == "main":
        return Plan(
            "Contexts, rounds, retrieval, decision and captions",
            (Variant("GILL"),),
            {**_DRAWN, **_FOUND, "captioning": ("picture",)},
            baselines=(
                ("diffusion", "diffusion alone", DIFFUSION, tuple(_DRAWN)),
                ("clip", "frozen CLIP", CLIP, tuple(_FOUND)),
                ("chance", "chance", "", (*_DRAWN, *_FOUND, "captioning")),
            ),
            has_decision=True,
        )
    variants = {"mappers": _mapper_variants, "tokens": _token_variants, "losses": _loss_variants}
    titles = {"mappers": "Mappers", "tokens": "Number of [IMG] tokens", "losses": "The retrieval loss"}
    return Plan(titles[name], variants[name](), *_ABLATED, has_ablation=True)


TABLES = ("main", "mappers", "tokens", "losses")
