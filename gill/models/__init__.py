"""The model families, imported when asked for."""

from __future__ import annotations

import importlib
from typing import Any

from gill.config import require_known
from gill.types import Family

_FAMILIES = {"gill": "gill.models.gill"}
_OFFERED = dict.fromkeys(("Fromage", "Gill", "load_fromage", "load_gill"), "gill.models.gill")


def find_family(name: str) -> Family:
    """A family by name.

    Raises:
        UnknownNameError: no such family.
    """
    require_known("model family", name, _FAMILIES)
    return importlib.import_module(_FAMILIES[name]).FAMILY


def find_preset_family(preset: str) -> Family:
    """The family that has a preset of this name.

    Raises:
        UnknownNameError: none has; the message names the nearest.
    """
    owners = {known: family for family in map(find_family, _FAMILIES) for known in family.presets}
    require_known("preset", preset, owners)
    return owners[preset]


def __getattr__(name: str) -> Any:
    """The families' classes and loaders, which bring their libraries with them."""
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_OFFERED[name]), name)
