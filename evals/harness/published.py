"""Rows of the papers' tables, beside which ours are printed.

Only numbers whose source was checked are here: GILL (arXiv:2305.17216), FROMAGe (arXiv:2301.13823) and the stored
outputs of FROMAGe's notebooks. They were measured on photographs with models of 6.7 B parameters: beside those of
Flatland they show which way a trend goes, not how high a score is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What a paper reports of one system.

    Attributes:
        label: as in our tables where there is one of the same kind, else the paper's name.
        contexts: scores by context and measure.
    """

    task: str
    label: str
    source: str
    contexts: Mapping[str, Mapping[str, float]]


def _pictures(
    contexts: Sequence[str], similarities: Sequence[float], distances: Sequence[float]
) -> dict[str, dict[str, float]]:
    rows = zip(contexts, similarities, distances, strict=False)
    return {context: {"clip_similarity": similarity, "lpips": distance} for context, similarity, distance in rows}


def _recalls(contexts: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    names = ("r@1", "r@5", "r@10")
    return {
        context: {name: round(value / 100, 3) for name, value in zip(names, row, strict=True)}
        for context, row in zip(contexts, rows, strict=True)
    }


_STORIES, _ROUNDS = ("1cap", "5cap", "5cap4img"), ("1", "5", "10")
PUBLISHED = (
    *(
        Published("vist-generation", label, "GILL, table 1", _pictures(_STORIES, similarities, distances))
        for label, similarities, distances in (
            ("GILL", (0.581, 0.612, 0.641), (0.702, 0.696, 0.693)),
            ("Stable Diffusion 1.5", (0.592, 0.598), (0.703, 0.704)),
            ("GLIDE", (0.582, 0.591), (0.753, 0.745)),
        )
    ),
    *(
        Published("visdial-generation", label, "GILL", _pictures(_ROUNDS, similarities, distances))
        for label, similarities, distances in (
            ("GILL", (0.528, 0.621, 0.645), (0.742, 0.718, 0.714)),
            ("Stable Diffusion 1.5", (0.552, 0.629, 0.622), (0.742, 0.722, 0.723)),
            ("GLIDE", (0.562, 0.595, 0.587), (0.800, 0.794, 0.799)),
        )
    ),
    Published("cc3m-generation", "GILL", "GILL, ablation of mappers", {"caption": {"fid": 15.31}}),
    Published("cc3m-generation", "Stable Diffusion 1.5", "GILL, ablation of mappers", {"caption": {"fid": 13.94}}),
    Published("coco-generation", "GILL", "as LaVIT quotes it", {"caption": {"fid": 12.2}}),
    Published("vist-retrieval", "GILL", "GILL, table 5", _recalls(("5cap4img",), ((20.3, 45.0, 53.7),))),
    Published(
        "vist-retrieval",
        "FROMAGe",
        "FROMAGe, table 1",
        _recalls(_STORIES, ((11.3, 24.6, 32.1), (10.8, 23.8, 31.7), (18.2, 42.7, 51.8))),
    ),
    Published(
        "vist-retrieval",
        "CLIP ViT-L/14",
        "FROMAGe, table 1",
        _recalls(_STORIES[:2], ((11.9, 25.5, 32.2), (5.9, 19.5, 28.0))),
    ),
    Published("vist-retrieval", "CLIP ViT-L/14", "GILL, table 5", _recalls(("5cap4img",), ((8.8, 22.3, 29.8),))),
    Published(
        "visdial-retrieval",
        "FROMAGe",
        "FROMAGe; it ranks the dialogues of each picture",
        _recalls(("10",), ((20.8, 44.9, 56.0),)),
    ),
    Published(
        "visdial-ranking",
        "FROMAGe",
        "stored output of its notebook; its scores are off by one token",
        {
            "each-round": {
                "ndcg": 0.166,
                "mrr": 0.220,
                "r@1": 0.176,
                "r@5": 0.200,
                "r@10": 0.244,
                "r@20": 0.483,
            }
        },
    ),
)
# Ablations of GILL: CLIP similarity of the last picture of VIST stories, five texts and four pictures.
MAPPERS = {"linear": 0.500, "mlp": 0.502, "transformer_encoder": 0.605, "gill_mapper": 0.641}
NUM_TOKENS = {1: 0.631, 2: 0.629, 4: 0.642, 8: 0.641}
LOSSES = {"without": 0.636, "with": 0.641}


def published_rows(task: str, context: str, measure: str) -> list[tuple[str, float]]:
    """(name with source, score) of what the papers report."""
    return [
        (each.label if each.source == each.label else f"{each.label} ({each.source})", each.contexts[context][measure])
        for each in PUBLISHED
        if each.task == task and measure in each.contexts.get(context, {})
    ]
