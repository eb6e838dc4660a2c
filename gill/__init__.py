"""GILL: a frozen language model that sees images, fetches them and draws new ones.

    model = gill.Gill.from_pretrained("checkpoints/gill_flatland")  # gill.load_gill() is the same
    model.generate_for_images_and_texts([picture, "A picture of"], num_words=16)

Importing this package is cheap and needs nothing installed: `gill.flatland` runs with numpy and Pillow alone. Rooms
that need torch import it themselves, and so does what is listed here, once it is asked for; docs/DESIGN.md has the map.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Fromage", "Gill", "load_fromage", "load_gill"]


def __getattr__(name: str) -> Any:
    """The classes and loaders of `gill.models`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("gill.models"), name)
