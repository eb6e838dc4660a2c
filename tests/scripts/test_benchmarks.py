"""Parts of the benchmark at toy shapes: they compare the same work, and refuse to compare other work."""

import pytest
import torch

from gill.models.gill import GillReader
from scripts import benchmark
from scripts.benchmarks import illustrating, ranking
from scripts.benchmarks.measure import BenchmarkError, single_thread


def test_answers_score_the_same_alone_and_together() -> None:
    results = ranking.ranking_bench(is_tiny=True)
    assert set(results) == {"rank_cpu_ratio", "rank_cpu_seconds"}


def test_answers_that_differ_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = GillReader.continuation_log_likelihoods

    def worse_together(self: GillReader, prompts: object, answers: list[list[str]]) -> list[list[torch.Tensor]]:
        (found,) = score(self, prompts, answers)  # type: ignore[arg-type]
        return [[scores - int(len(found) > 1) for scores in found]]

    monkeypatch.setattr(GillReader, "continuation_log_likelihoods", worse_together)
    assert benchmark.main(["--parts", "ranking", "--tiny"]) == 1
    assert "scored together and alone differ" in capsys.readouterr().err


def test_stories_end_the_same_alone_and_together() -> None:
    results = illustrating.illustrating_bench(is_tiny=True)
    assert set(illustrating.BARS) < set(results)


def test_pictures_that_differ_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = illustrating.plain_conditioning
    monkeypatch.setattr(illustrating, "plain_conditioning", lambda *given: plain(*given) * 1.01)
    with pytest.raises(BenchmarkError, match="conditioning differs by"):
        illustrating.illustrating_bench(is_tiny=True)


def test_threads_come_back() -> None:
    torch.set_num_threads(2)
    try:
        with single_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
