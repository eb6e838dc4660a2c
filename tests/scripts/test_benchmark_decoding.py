"""The decoding benchmark compares the same words, and refuses to compare others."""

import pytest

from scripts.benchmarks import decoding
from scripts.benchmarks.measure import BenchmarkError


def test_the_plain_loop_and_the_cached_one_say_the_same() -> None:
    results = decoding.decoding_bench(is_tiny=True)
    assert set(decoding.BARS) < set(results)
    assert all(value > 0 for value in results.values())


def test_the_prompts_are_those_of_the_bar() -> None:
    full = decoding.FULL_SCALE
    assert (full.long_prompt, full.num_words) == (256, 32)
    assert (len(full.prompts), min(full.prompts), max(full.prompts)) == (16, 16, 64)


def test_different_words_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "plain_decode", lambda model, prompt, num_words: [0] * num_words)
    with pytest.raises(BenchmarkError, match="said different things"):
        decoding.decoding_bench(is_tiny=True)
