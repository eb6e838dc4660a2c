"""From the program's flags to a served page."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from demo.chat import DOCUMENTS, Settings
from demo.keeping import RateLimit
from demo.openings import Opening, flatland_openings, plain_openings
from demo.page import MAX_UPLOAD, STYLE, THEME, Offer, build_page
from gill import load_gill
from gill.models.gill import GillGenerator

_FROMAGE_IMAGES = 2  # in a reply at most, as FROMAGe's demo starts
_FLATLAND_LANGUAGE = "flatland/language"  # where the language model of every model trained in Flatland lies


def serve(options: argparse.Namespace) -> None:
    """Load the model and serve until interrupted, to this machine alone.

    Raises:
        MissingCheckpointError, CheckpointError, ConfigError: as `gill.load_gill`.
        OSError: the port is taken.
    """
    generator = load_gill(
        options.model,
        load_ret_embs=not options.no_retrieval,
        device=options.device,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        quantization=options.quantization,
        search=options.search,
        image_folders=options.image_folder,
        allow_network=options.allow_network,
    ).generator
    with tempfile.TemporaryDirectory(prefix="gill-demo-") as name:
        offer = offer_of(generator, options.model.resolve(), Path(name).resolve())
        page = build_page(generator, offer, RateLimit(options.messages_per_minute, 60))
        page.launch(
            server_name="127.0.0.1",
            server_port=options.port,
            share=False,
            max_file_size=MAX_UPLOAD,
            theme=THEME,
            css=STYLE,
            footer_links=[],
            inbrowser=options.open,
            ssr_mode=False,
        )


def offer_of(generator: GillGenerator, model: Path, folder: Path) -> Offer:
    """What a page offers with this model; pictures of examples are drawn into `folder`."""
    is_flatland = Path(generator.model.config.language).as_posix().endswith(_FLATLAND_LANGUAGE)
    index = generator.images.index
    can_draw = generator.images.drawer is not None
    openings: list[Opening] = flatland_openings(folder) if is_flatland else plain_openings()
    abilities = [
        "reads pictures and words",
        "draws nothing" if not can_draw else "draws",
        "retrieves nothing" if index is None else f"retrieves from {index.num_images:,} pictures",
        "decides between the two" if generator.images.decision is not None else "",
    ]
    return Offer(
        name=model.parent.name if model.name == "model" else model.name,
        about=", ".join(ability for ability in abilities if ability) + ".",
        folder=folder,
        defaults=Settings(
            num_images=1 if can_draw else _FROMAGE_IMAGES, form=DOCUMENTS if is_flatland else Settings.form
        ),
        can_draw=can_draw,
        can_retrieve=index is not None,
        examples=openings,
    )
