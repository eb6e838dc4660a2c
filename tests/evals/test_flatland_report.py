"""Galleries and arithmetic of the Flatland report."""

import json
from pathlib import Path

import pytest
import torch

from evals.flatland_report import (
    Query,
    Reader,
    any_stories,
    caption_queries,
    dialogue_queries,
    first_hits,
    interval,
    main,
    nested,
    report,
    story_queries,
    twin_stories,
)
from gill.data import STORY_FORMS
from gill.flatland import draw, split_of
from main import main as train


def test_galleries_are_distinct_and_held_out() -> None:
    stories = [story_queries(told, "5cap4img") for told in (any_stories(40), twin_stories(40))]
    groups = [caption_queries(40), *stories, dialogue_queries(40, 5)]
    for queries in groups:
        assert len({query.scene.content() for query in queries}) == 40
        assert {split_of(query.scene) for query in queries} == {"test"}


def test_forms_ask_for_the_same_pictures() -> None:
    told = any_stories(10)
    forms = [[query.scene for query in story_queries(told, form)] for form in STORY_FORMS]
    assert forms[0] == forms[1] == forms[2]
    shown = [[part.image is not None for part in story_queries(told, form)[0].context] for form in STORY_FORMS]
    assert [sum(each) for each in shown] == [0, 0, 4]


def test_twins_differ_in_colours_alone() -> None:
    last = [told.scenes[-1] for told in twin_stories(8)]
    for one, two in zip(last[::2], last[1::2], strict=True):
        outlines = [(each.place, [(t.shape, t.size, t.cell) for t in each.things]) for each in (one, two)]
        colours = [[t.colour for t in each.things] for each in (one, two)]
        assert outlines[0] == outlines[1] and colours[0] != colours[1]


def test_a_picture_of_the_context_is_no_candidate_and_a_tie_is_no_hit() -> None:
    one, two, three = (query.scene for query in caption_queries(3))
    image = torch.eye(3)
    text = torch.tensor([[0.5, 0.9, 0.0], [0.0, 1.0, 0.0], [0.7, 0.0, 0.7]])
    plain = [Query(scene, "") for scene in (one, two, three)]
    assert first_hits(text, image, plain) == [0, 1, 0]
    assert first_hits(text, image, [Query(one, "", shown=(two,)), *plain[1:]]) == [1, 1, 0]


def test_names_become_levels() -> None:
    assert nested({"a": 1, "b.c": 2, "b.d": 3}) == {"a": 1, "b": {"c": 2, "d": 3}}
    assert interval([0.0, 1.0] * 50) == pytest.approx([0.4015, 0.5985])


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "run main.py --preset flatland first" in capsys.readouterr().err


def test_a_report_of_a_perfect_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model is read back; what it says and draws is replaced by the truth."""
    words = ["--preset=debug", f"--log-base-dir={tmp_path}", "--exp-name=run", "--val-steps-per-epoch=1"]
    assert train([*words, "--val-batch-size=4"]) == 0
    reader = Reader(tmp_path / "run")
    text, image = reader.embed(caption_queries(3))
    assert text.shape == image.shape == (3, 16)
    assert torch.allclose(text.norm(dim=1), torch.ones(3), atol=1e-5)
    mapped, own = reader.conditioning(caption_queries(3))
    assert mapped.shape == own.shape == (3, 12, 16)

    monkeypatch.setattr(Reader, "embed", lambda self, queries: (torch.eye(len(queries)), torch.eye(len(queries))))
    monkeypatch.setattr(Reader, "conditioning", lambda self, queries: (queries, queries))
    monkeypatch.setattr(Reader, "draw", lambda self, queries, name: [draw(query.scene) for query in queries])
    found = report(tmp_path / "run", 4)
    levels = dict.fromkeys(STORY_FORMS, 1.0)
    assert found["t2i_r1_4"] == 1 and found["story_r1_4"] == found["story_any_r1_4"] == levels
    assert found["dialog_r1_4"] == {"1": 1.0, "5": 1.0, "10": 1.0}
    marks = {"place": 1.0, "cells": 1.0, "shape": 1.0, "colour": 1.0, "shape_colour_cell": 1.0}
    assert found["generated"] == found["generated_from_true_caption"] == marks
    assert found["meta"]["n"] == 4
    assert found["meta"]["intervals_95"]["t2i_r1_4"] == [0.5101, 1]  # Wilson: 4 / (4 + 1.96^2)
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == found
    assert (tmp_path / "run" / "samples.png").is_file()


def test_a_report_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"t2i_r1_256": 0.9, "meta": {}}')
    assert main([str(tmp_path)]) == 0
    assert "is there already" in capsys.readouterr().out
