"""A sample of scripts/check_resume.py: ended anywhere and continued, a run comes out the same, byte for byte."""

import signal
from pathlib import Path

import pytest

from scripts.check_resume import draw_points
from scripts.faults.kill import PARTS, Point, count_calls, kill_and_continue

POINTS = (
    Point("saving", 0.45),
    Point("accumulating", 0.7),
    Point("epoch edge", 0.5, signal.SIGTERM),
    Point("anywhere", 0.6, num_processes=2),
    Point("saving", 0.97, num_processes=2),  # the final export: the other process must not end with status 0
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point.part} of {point.num_processes}")
def test_a_run_that_was_ended_continues_to_the_same_bytes(tmp_path: Path, point: Point) -> None:
    undisturbed = tmp_path / "undisturbed"
    num_calls = count_calls(undisturbed, point.part, point.num_processes)
    assert num_calls > 100
    assert kill_and_continue(point, num_calls, tmp_path / "ended", undisturbed) is None


def test_points_are_of_every_part_signal_and_size() -> None:
    points = draw_points(100, seed=0)
    kinds = {(point.part, point.number, point.num_processes) for point in points}
    assert len(points) == 100 and len(kinds) == len(PARTS) * 2 * 2
    assert points == draw_points(100, seed=0) != draw_points(100, seed=1)
