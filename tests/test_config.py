"""Settings: overrides, refusals, JSON there and back."""

import json
from dataclasses import dataclass

import pytest

from gill.config import Recipe, from_dict, override, override_each, parse_assignments, to_dict
from gill.errors import ConfigError, UnknownNameError


@dataclass(frozen=True)
class Sample:
    """One field of each kind."""

    flag: bool = False
    count: int | None = None
    names: tuple[str, ...] = ()


def test_strings_are_read_as_the_field_type() -> None:
    changed = override(Sample(), {"flag": "yes", "count": "3", "names": "a, b"})
    assert changed == Sample(True, 3, ("a", "b"))
    assert override(changed, {"count": "none"}).count is None
    assert override(Recipe(), {"betas": "0.8,0.99"}).betas == (0.8, 0.99)


@pytest.mark.parametrize(("key", "value"), [("flag", "maybe"), ("count", "3.5"), ("count", "x")])
def test_values_the_type_cannot_hold_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} wants"):
        override(Sample(), {key: value})


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown setting 'learing_rate'; did you mean 'learning_rate'"):
        override(Recipe(), {"learing_rate": "1"})
    with pytest.raises(KeyError, match="unknown setting 'zzz'; known: "):
        override_each([Recipe(), Sample()], {"zzz": "1"})


def test_each_value_goes_to_the_settings_that_have_it() -> None:
    recipe, sample = override_each([Recipe(), Sample()], {"flag": "true", "grad_clip": "2"})
    assert (recipe.grad_clip, sample.flag) == (2.0, True)


def test_assignments_are_split_once() -> None:
    assert parse_assignments(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(ConfigError, match="wants key=value"):
        parse_assignments(["a"])
    with pytest.raises(ConfigError, match="given twice"):
        parse_assignments(["a=1", "a=2"])


def test_json_there_and_back() -> None:
    recipe = Recipe(betas=(0.5, 0.6), num_epochs=3)
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_the_rate_warms_up_and_then_falls_in_steps() -> None:
    recipe = Recipe(warmup_steps=10, decay_epochs=2, steps_per_epoch=5, decay_factor=0.1)
    assert [recipe.learning_rate_factor(step) for step in (0, 5, 10, 19)] == [0, 0.5, 1, 1]
    assert recipe.learning_rate_factor(20) == pytest.approx(0.1)
    assert recipe.learning_rate_factor(30) == pytest.approx(0.01)
    assert Recipe(warmup_steps=0).learning_rate_factor(0) == 1


def test_the_rate_may_fall_evenly_to_nothing() -> None:
    recipe = Recipe(warmup_steps=10, decay="linear", num_epochs=3, steps_per_epoch=10)
    assert [recipe.learning_rate_factor(step) for step in (5, 10, 20, 30)] == [0.5, 1, 0.5, 0]


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pair_probability must lie in \[0, 1\], got 2"):
        Recipe(pair_probability=2)
    with pytest.raises(ConfigError, match="batch_size must be above 0"):
        Recipe(batch_size=0)
    with pytest.raises(ConfigError, match="unknown decay 'liner'; did you mean 'linear'"):
        Recipe(decay="liner")
