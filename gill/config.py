"""Frozen settings: dataclasses, `key=value` overrides, JSON there and back.

A setting is a field of a frozen dataclass whose type is bool, int, float, str, a tuple of one of these, or any of them
`| None`. Unknown names are refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gill.errors import ConfigError, UnknownNameError

Settings = TypeVar("Settings")

DECAYS = ("step", "linear")
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Defaults are GILL's (Koh et al. 2023, `main.py` of the original).

    Attributes:
        learning_rate: peak, reached after the warm-up.
        betas, eps, weight_decay: AdamW; the decay touches only what trains.
        token_rate: factor on the rate of the rows of new tokens; tuning inputs of a frozen network wants more than
            tuning maps behind it (Lester et al. 2021, arXiv:2104.08691).
        warmup_steps: linear from 0, in optimiser steps.
        decay: "step" multiplies the rate by `decay_factor` every `decay_epochs` epochs; "linear" goes down to 0.
        grad_clip: maximum Euclidean norm over all that trains.
        num_epochs, steps_per_epoch: length of the run in optimiser steps.
        batch_size: pairs per optimiser step, over all processes and accumulation steps.
        pair_probability: how often a batch is read as joined neighbours.
        max_tokens: longest text in tokens, beginning of sequence and [IMG] tokens included.
    """

    learning_rate: float = 1e-3
    token_rate: float = 1.0
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 2000
    decay: str = "step"
    decay_epochs: int = 5
    decay_factor: float = 0.1
    grad_clip: float = 1.0
    num_epochs: int = 10
    steps_per_epoch: int = 2000
    batch_size: int = 200
    pair_probability: float = 0.5
    max_tokens: int = 32

    def __post_init__(self) -> None:
        require_in_range("pair_probability", self.pair_probability, 0, 1)
        require_known("decay", self.decay, DECAYS)
        counts = ("num_epochs", "steps_per_epoch", "batch_size", "max_tokens", "decay_epochs")
        for name in ("learning_rate", "token_rate", "grad_clip", *counts):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")

    def learning_rate_factor(self, step: int) -> float:
        """Factor on `learning_rate` for the 0-based optimiser `step`: linear warm-up, then the decay.

        The decay counts from the end of the warm-up, as in the original's chained schedulers.
        """
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.decay == "linear":
            num_steps = self.num_epochs * self.steps_per_epoch
            return max(num_steps - step, 0) / max(num_steps - self.warmup_steps, 1)
        return self.decay_factor ** ((step - self.warmup_steps) // (self.decay_epochs * self.steps_per_epoch))


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Split `key=value` words of a command line.

    Raises:
        ConfigError: a word without `=`, or a key given twice.
    """
    pairs: dict[str, str] = {}
    for word in assignments:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set wants key=value, got {word!r}")
        if key.strip() in pairs:
            raise ConfigError(f"--set {key.strip()} is given twice; keep one")
        pairs[key.strip()] = value.strip()
    return pairs


def override(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy of `settings` with some fields replaced; strings are read as the field's type.

    Raises:
        UnknownNameError: no such field; the message names the nearest.
        ConfigError: a value that the field's type cannot hold.
    """
    kinds = typing.get_type_hints(type(settings))
    known = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    for name in values:
        require_known("setting", name, known)
    return dataclasses.replace(settings, **{n: read_value(n, v, kinds[n]) for n, v in values.items()})  # type: ignore[type-var]


def override_each(several: Sequence[Any], values: Mapping[str, Any]) -> list[Any]:
    """Route each value to the settings objects that have a field of that name.

    Raises:
        UnknownNameError: a name that none of them has.
    """
    fields = [{field.name for field in dataclasses.fields(settings)} for settings in several]
    for name in values:
        require_known("setting", name, set().union(*fields))
    return [
        override(one, {n: v for n, v in values.items() if n in own}) for one, own in zip(several, fields, strict=True)
    ]


def read_value(name: str, value: Any, kind: Any) -> Any:
    """Read `value` as the type `kind`; strings are parsed, anything else is checked.

    Raises:
        ConfigError: it cannot be read so.
    """
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if typing.get_origin(kind) is tuple:
        items = [item.strip() for item in value.split(",")] if isinstance(value, str) else list(value)
        return tuple(read_value(name, item, typing.get_args(kind)[0]) for item in items)
    try:
        return _read_scalar(value, kind)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} wants {getattr(kind, '__name__', kind)}, got {value!r}") from error


def _read_scalar(value: Any, kind: type) -> Any:
    if kind is bool:
        word = str(value).lower()
        if word not in _TRUE + _FALSE:
            raise ValueError(word)
        return word in _TRUE
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return kind(value)


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name outside `known`, naming the nearest.

    Raises:
        UnknownNameError: it is not known.
    """
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnknownNameError(f"unknown {what} {name!r}; {hint}known: {', '.join(names)}")


def require_in_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside [low, high].

    Raises:
        ConfigError: it is outside.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie in [{low}, {high}], got {value}")


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain values for JSON; tuples become lists."""
    values = dataclasses.asdict(settings)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def from_dict(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build settings of `kind` from JSON values; fields left out keep their defaults.

    Raises:
        UnknownNameError, ConfigError: as `override`.
    """
    hints = typing.get_type_hints(kind)
    for name in values:
        require_known("setting", name, [field.name for field in dataclasses.fields(kind)])  # type: ignore[arg-type]
    return kind(**{name: read_value(name, value, hints[name]) for name, value in values.items()})
