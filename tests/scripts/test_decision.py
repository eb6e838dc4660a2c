"""Votes to decisions, pictures of prompts, and the head that is trained to choose."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gill.backbones import tiny_drawer
from gill.flatland.writer import parts
from gill.metrics import macro_scores
from gill.models.gill import find_preset, load_decision, load_model, load_trained, read_decision, save_model
from gill.models.gill.sequence import text_rows
from gill.types import Batch, CaptionRecord, Sample
from scripts import generate_sd_p2_images
from scripts.decision.head import HeadRecipe, Split, best_temperature, split_prompts, train_head
from scripts.decision.report import coin_f1, measure
from scripts.decision.states import img_states
from scripts.decision.votes import agreed_choice, read_decisions
from scripts.generate_sd_p2_images import main as generate
from scripts.process_p2_annotations import main as process
from scripts.train_decision_model import main as train

HEADER = "Prompt\tCategory\tChallenge\tNote\tDecisions\n"


@pytest.mark.parametrize(
    ("votes", "wanted"),
    [
        ("gen,gen,gen,gen,ret", "gen"),
        ("gen,gen,gen,ret,same", "gen"),
        ("gen,gen,gen,ret,ret", "same"),
        ("ret,ret,ret,same,same", "ret"),
        ("ret,ret,same,same,same", "same"),
        ("gen,gen,ret,ret,same", "same"),
        ("ret,same,ret,ret", "ret"),  # four votes, as two rows of the released file have
        ("same,same,same,same,same", "same"),
    ],
)
def test_a_side_wins_with_four_votes_or_three_against_one(votes: str, wanted: str) -> None:
    assert agreed_choice(votes.split(",")) == wanted


def test_votes_become_decisions_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = 'a "cat"\tA\tB\t\tgen,gen,gen,gen,gen\na dog\tA\tB\tnote\tret,ret,ret,gen,gen\n'
    (tmp_path / "votes.tsv").write_text(HEADER + rows)
    assert process([str(tmp_path / "votes.tsv"), str(tmp_path / "out" / "decisions.tsv")]) == 0
    lines = (tmp_path / "out" / "decisions.tsv").read_text().splitlines()
    assert lines[0] == HEADER.replace("Decisions", "Decision").strip("\n")
    assert lines[1:] == ['a "cat"\tA\tB\t\tgen', "a dog\tA\tB\tnote\tsame"]
    assert "1 gen, 0 ret, 1 same; 100%" in capsys.readouterr().out


def test_flatlands_votes_mean_what_is_stored(tmp_path: Path) -> None:
    part = parts(tmp_path / "world", 1000, 0)[-1]
    part.finish([part.write(index) for index in range(part.count)])
    assert process([str(tmp_path / "world/data/PartiPromptsAllDecisions.tsv"), str(tmp_path / "decisions.tsv")]) == 0
    rows = [row for row in read_decisions(tmp_path / "decisions.tsv") if row.cells["Decision"] != "same"]
    meant = {"Stored": "ret", "New": "gen"}
    right = [row.cells["Decision"] == meant[row.cells["Category"]] for row in rows]
    assert len(rows) > 80 and sum(right) / len(right) > 0.97


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Prompt\tVotes\na\tgen\n", "wanted Decisions too"),
        (HEADER, "a header and no prompts"),
        (HEADER + "a cat\tA\tB\tgen\n", "votes.tsv:2: 4 cells for 5 columns"),
        (HEADER + "a cat\tA\tB\t\tgen,maybe\n", "votes.tsv:2: unknown vote 'maybe'"),
        (HEADER + " \tA\tB\t\tgen\n", "votes.tsv:2: the prompt is empty"),
        (None, "votes.tsv is missing"),
    ],
)
def test_a_bad_table_is_named(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "votes.tsv").write_text(text)
    assert process([str(tmp_path / "votes.tsv"), str(tmp_path / "decisions.tsv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "decisions.tsv").exists()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_a_stopped_drawing_is_continued_and_each_picture_has_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.tsv").write_text("Prompt\n" + "".join(f"picture {number}\n" for number in range(5)))
    out, asked = tmp_path / "pictures", []

    class Stopping:
        """Draws two pictures at a time and is stopped in the second part."""

        pictures_at_once = 2

        def __init__(self, num_parts: int) -> None:
            self.drawer, self.num_parts = tiny_drawer(), num_parts
            self.encode = self.drawer.encode

        def draw(self, sequences: torch.Tensor, seeds: list[int], *sampling: object) -> list[Image.Image | None]:
            asked.append(seeds)
            if len(asked) > self.num_parts:
                raise KeyboardInterrupt
            drawn = self.drawer.draw(sequences, seeds)
            return [None if seed == 4007 else image for seed, image in zip(seeds, drawn, strict=True)]

    words = [str(tmp_path / "prompts.tsv"), str(out), "--diffusion-model=tiny", "--seed=7"]
    monkeypatch.setattr(generate_sd_p2_images, "tiny_drawer", lambda: Stopping(1))
    with pytest.raises(KeyboardInterrupt):
        generate(words)
    assert [path.name for path in sorted(out.glob("0*"))] == ["00000-0.png", "00001-0.png"]
    monkeypatch.setattr(generate_sd_p2_images, "tiny_drawer", lambda: Stopping(9))
    asked.clear()
    assert generate(words) == 0 == generate(words)
    assert asked == [[2007, 3007], [4007]]  # what was there is kept, also what was withheld
    assert (out / "00004-0.withheld").is_file() and not (out / "00004-0.png").exists()
    drawer = tiny_drawer()
    alone = drawer.draw(drawer.encode(["picture 3"]), [3007])[0]
    assert np.abs(np.asarray(alone).astype(int) - pixels(out / "00003-0.png")).max() <= 1


def test_pictures_drawn_another_way_want_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.tsv").write_text("Prompt\na cat\n")
    words = [str(tmp_path / "prompts.tsv"), str(tmp_path / "out"), "--diffusion-model=tiny"]
    assert generate(words) == 0
    assert generate([*words, "--seed=3", "--steps=4"]) == 2
    assert "steps None, now 4, seed 1337, now 3; choose another folder" in capsys.readouterr().err
    assert generate([*words, "--num-images=2"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["00000-0.png", "00000-1.png"]


def cloud(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes that one feature of many tells apart, far from the origin and in another unit."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    states = torch.randn(count, 6, generator=generator)
    states[:, 2] += 4.0 * labels
    return 100 * states + 1000, labels


def test_a_head_learns_what_a_line_tells_apart() -> None:
    states, labels = cloud(300, seed=0)
    split = Split(torch.arange(200), torch.arange(200, 250), torch.arange(250, 300))
    head, losses = train_head(states, labels, split, HeadRecipe(learning_rate=0.05, num_steps=200))
    with torch.no_grad():
        probabilities = head(states[250:]).softmax(1)  # the saved head reads raw states
    scores = measure(probabilities, labels[250:])
    assert scores["f1"]["value"] > 0.93  # two normals four deviations apart: .977 is the best there is
    assert scores["gain_over_constant"]["low"] > 0.4
    assert losses[-1] < losses[0] and not head.training


def test_a_coin_scores_what_a_thousand_coins_do() -> None:
    true = torch.tensor([0] * 201 + [1] * 110)
    coins = torch.randint(2, (1000, len(true)), generator=torch.Generator().manual_seed(0))
    tossed = sum(macro_scores(coin, true, 2)["f1"] for coin in coins) / len(coins)
    assert coin_f1(true) == pytest.approx(tossed, abs=0.005)


def test_a_head_stops_when_validation_does_not_get_better() -> None:
    states, _ = cloud(60, seed=1)
    noise = torch.randint(2, (60,), generator=torch.Generator().manual_seed(2))
    split = Split(torch.arange(30), torch.arange(30, 60), torch.arange(30, 60))
    _, losses = train_head(states, noise, split, HeadRecipe(learning_rate=0.1, num_steps=500, patience=7))
    assert len(losses) < 500
    assert losses.index(min(losses)) == len(losses) - 8


def test_balanced_classes_find_the_rare_one() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(400) % 20 == 0).long()
    states = torch.randn(400, 3, generator=generator) + labels[:, None]
    split = Split(torch.arange(200), torch.arange(200, 300), torch.arange(300, 400))
    found = []
    for is_balanced in (True, False):
        recipe = HeadRecipe(learning_rate=0.05, num_steps=150, balances_classes=is_balanced)
        head, _ = train_head(states, labels, split, recipe)
        found.append(float(head(states[300:][labels[300:] == 1]).argmax(1).double().mean()))
    assert found[0] > found[1]


def test_the_best_temperature_undoes_a_wrong_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 2, generator=generator)
    labels = (torch.rand(4000, generator=generator) < logits.softmax(1)[:, 1]).long()
    assert best_temperature(5 * logits, labels) == pytest.approx(5, rel=0.15)


def test_equal_prompts_stay_on_one_side() -> None:
    prompts = [f"prompt {number % 40}" for number in range(120)]
    for num_first in (None, 80):
        split = split_prompts(prompts, 0, num_first)
        sides = [{prompts[place] for place in places} for places in (split.train, split.validation, split.test)]
        assert sum(map(len, sides)) == len(set().union(*sides))
    parted = split_prompts([f"prompt {number}" for number in range(100)], 0, 66)
    assert parted.test.tolist() == list(range(66, 100))
    assert len(parted.train) + len(parted.validation) == 66 and len(parted.validation) > 3


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random model."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, load_model(find_preset("debug").model)[0])
    return folder


def test_states_are_those_of_training(model_folder: Path) -> None:
    model, tokenizer = load_trained(model_folder)
    prompts = ["a cat", "a very big dog", "x"]
    texts = [torch.tensor([tokenizer.bos_id, *tokenizer.words(prompt)]) for prompt in prompts]
    image = torch.zeros(model.retrieval_heads.image.in_features)
    samples = [Sample(text, image, (), None, None, CaptionRecord("x", Path("x.png"))) for text in texts]
    rows = text_rows(Batch.from_samples(samples), model.vocabulary, joins=False, drops_second_bos=False)
    with torch.no_grad():
        wanted = model.hidden(rows, None).live_at(rows.img_places(model.vocabulary)[:, 0])
    torch.testing.assert_close(img_states(model, tokenizer, prompts), wanted)


def test_the_whole_road_writes_a_head_that_loads(model_folder: Path, tmp_path: Path) -> None:
    lines = [
        f"{'cats' if number % 2 else 'a dog'} {number}\tA\tB\t\t{'gen' if number % 2 else 'ret'}"
        for number in range(60)
    ]
    (tmp_path / "decisions.tsv").write_text(
        HEADER.replace("Decisions", "Decision") + "\n".join(lines) + "\nno\tA\tB\t\tsame\n"
    )
    work, released = tmp_path / "work", tmp_path / "released" / "decision_model.pth.tar"
    words = [str(tmp_path / "decisions.tsv"), str(model_folder), f"--work={work}", "--lr=0.05", "--steps=60"]
    assert train([*words, f"--released={released}"]) == 0
    report = json.loads((work / "report.json").read_text())
    assert report["num_train"] + report["num_validation"] + report["num_generate"] + report["num_retrieve"] == 60
    assert report["f1"]["low"] <= report["f1"]["value"] <= report["f1"]["high"]
    assert (work / "reliability.png").stat().st_size > 1000
    head = load_decision(model_folder, load_trained(model_folder)[0].img_tokens.input_rows)
    states = load_file(work / "states.safetensors")["states"]
    assert states.shape == (60, head.linear.in_features)
    assert torch.equal(read_decision(released)(states), head(states))
    before = (work / "states.safetensors").stat().st_mtime_ns
    assert train(words) == 0
    assert (work / "states.safetensors").stat().st_mtime_ns == before


def test_what_cannot_be_trained_on_is_named(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.tsv"
    for text, message in (
        (HEADER + "a\tA\tB\t\tgen,gen\n", "make decisions of them with scripts/process_p2_annotations.py"),
        ("Prompt\tDecision\na\tmaybe\n", "table.tsv:2: unknown decision 'maybe'"),
        ("Prompt\tDecision\na\tgen\nb\tret\n", "give more decisions"),
    ):
        path.write_text(text)
        assert train([str(path), str(model_folder), f"--work={tmp_path}"]) == 2
        assert message in capsys.readouterr().err
