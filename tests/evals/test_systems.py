"""What a system says, apart from what it is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from evals.harness.items import Item
from evals.harness.runs import read_run
from evals.harness.systems import GillSystem, first_sentence
from gill.types import Segment
from tests.evals.benchmark_files import by_chance, write_captions


@pytest.mark.parametrize(("stop_words", "said"), [("", "a dog ."), ("a", "a dog . The dog")])
def test_a_model_without_an_end_says_one_sentence(stop_words: str, said: str) -> None:
    """A released model learned no end of a caption."""
    assert first_sentence("a wall of 2.5 m. The wall is") == "a wall of 2.5 m."
    assert first_sentence("no full stop") == "no full stop"
    system = GillSystem.__new__(GillSystem)
    config = SimpleNamespace(stop_words=stop_words)
    system.generator = SimpleNamespace(  # type: ignore[assignment]
        model=SimpleNamespace(config=config), generate_batch=lambda prompts, *_: [[" a dog . The dog"]] * len(prompts)
    )
    assert system.describe([Item("1", (Segment(text="a"),))], [0], 48) == [said]


def test_chance_says_what_is_right_elsewhere(tmp_path: Path) -> None:
    data = write_captions(tmp_path / "data")
    for seed in "12":
        by_chance("captioning", data, tmp_path / seed, "--seed", seed)
    one, two = (read_run(tmp_path / seed).answered for seed in "12")
    right = {text for line in one for text in line["references"]}
    assert {line["output"] for line in one} <= right
    assert [line["output"] for line in one] != [line["output"] for line in two]
