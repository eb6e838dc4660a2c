"""Only what should train, trains; and what the recipe does after each update."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gill.errors import ConfigError
from gill.models.gill import GillTask, build, find_preset
from gill.models.gill.whitening import with_plain_map
from gill.parameters import frozen_hashes, trainable_parameters, trainable_state
from tests.models.gill.tiny_gill import tiny_batch, tiny_task


def train(task: GillTask, num_steps: int = 2) -> torch.optim.Optimizer:
    """A few steps of the original's optimiser, in training mode."""
    task.train()
    optimizer = torch.optim.AdamW(trainable_parameters(task).values(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.01)
    for step in range(num_steps):
        optimizer.zero_grad()
        task(tiny_batch(task.model, is_paired=step % 2 == 1, context_at=(0,))).total.backward()
        optimizer.step()
        task.after_update()
    return optimizer


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_frozen_bytes_are_equal_before_and_after_training(family: str) -> None:
    task = tiny_task(family, dtype="float32")
    frozen, trained = frozen_hashes(task), trainable_state(task)
    train(task)
    assert frozen_hashes(task) == frozen
    assert len(frozen) > 50
    assert all(not torch.equal(trained[name], value) for name, value in trainable_state(task).items())


def test_the_optimiser_holds_nothing_else() -> None:
    task = tiny_task(dtype="float32")
    optimizer = train(task, num_steps=1)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in trainable_parameters(task).values()}
    state_size = sum(state["exp_avg"].numel() for state in optimizer.state.values())
    assert state_size == sum(parameter.numel() for parameter in trainable_parameters(task).values())
    assert task.model.language.table.numel() > state_size / 10  # the whole table would show


def test_frozen_parts_stay_in_eval_mode() -> None:
    task = tiny_task(dtype="float32")
    task.train()
    assert task.training
    assert not any(m.training for part in (task.model.language, task.model.vision) for m in part.modules())


@pytest.mark.parametrize("family", ["opt", "gpt-neox"])
def test_img_rows_keep_the_mean_norm_of_the_rows_beside_them(family: str) -> None:
    task = tiny_task(family, dtype="float32")
    train(task, num_steps=1)
    model, words = task.model, task.model.vocabulary.num_words
    wanted = model.language.table[:words].norm(dim=1).mean()
    torch.testing.assert_close(model.img_tokens.input_rows.norm(dim=1), wanted.expand(4), rtol=1e-5, atol=0)
    beside_output = model.language.head.weight[:words].norm(dim=1).mean()
    torch.testing.assert_close(model.img_tokens.output_rows.norm(dim=1), beside_output.expand(4), rtol=1e-5, atol=0)


def test_rescaling_can_be_left_out() -> None:
    task = tiny_task(dtype="float32", rescales_img_rows=False)
    before = task.model.img_tokens.input_rows.detach().clone()
    task.after_update()
    assert torch.equal(task.model.img_tokens.input_rows, before)


def test_new_img_rows_differ_from_each_other() -> None:
    rows = tiny_task(dtype="float32").model.img_tokens.input_rows.detach()
    assert 0.01 < rows.std() < 0.03
    assert torch.pdist(rows).min() > 0.05


def test_an_untied_head_gets_rows_of_its_own() -> None:
    untied, tied = tiny_task("llama").model.img_tokens, tiny_task("opt").model.img_tokens
    assert untied.output_rows is not untied.input_rows
    assert tied.output_rows is tied.input_rows


def test_the_seed_decides_what_trains_starts_from() -> None:
    first, second = (trainable_state(tiny_task(dtype="float32")) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dropout_behind_the_heads_acts_in_training_only() -> None:
    task = tiny_task(dtype="float32", text_dropout=0.5, image_dropout=0.5)
    batch = tiny_batch(task.model)
    assert torch.equal(task.eval()(batch).total, task(batch).total)
    assert not torch.equal(task.train()(batch).total, task(batch).total)


def test_img_rows_may_start_from_words() -> None:
    """[IMG1] ... get the words' embeddings; [IMG0] and the rest start as without words."""
    config = find_preset("debug").model
    plain, _ = build(config)
    started, encoder = build(replace(config, img_words="ab"))
    ids = encoder.tokenizer.words("ab")
    rows, table = started.model.img_tokens.input_rows, started.model.language.table
    assert torch.equal(rows[1 : 1 + len(ids)], table[ids])
    others = [0, *range(1 + len(ids), len(rows))]
    assert torch.equal(rows[others], plain.model.img_tokens.input_rows[others])
    with pytest.raises(
        ConfigError,
        match=r"img_words are \d tokens of this .*, there is room for 3; add tokens, or leave words out",
    ):
        build(replace(config, img_words="abcdefgh"))


def test_visual_tokens_may_start_as_words() -> None:
    """Whatever the picture, the first visual tokens are the words' embeddings; the rest start as without words."""
    config = find_preset("debug").model
    plain, _ = build(config)
    started, encoder = build(replace(config, visual_words="a"))
    (word,) = encoder.tokenizer.words("a")
    features = torch.randn(3, plain.model.visual_prefix.linear.in_features)
    tokens, random = started.model.visual_prefix(features), plain.model.visual_prefix(features)
    assert torch.equal(tokens[:, 0], started.model.language.table[word].expand(3, -1))
    torch.testing.assert_close(tokens[:, 1], random[:, 1])
    with pytest.raises(ConfigError, match="visual_words are 3 tokens of this language model, there is room for 2"):
        build(replace(config, visual_words="abc"))


def test_whitened_features_are_a_linear_map_all_the_same(tmp_path: Path) -> None:
    """A model with whitening gives the visual tokens of the plain map that it is exported as, and does not train it."""
    config = find_preset("debug").model
    width = build(config)[0].model.visual_prefix.linear.in_features
    half = torch.randn(width, width, generator=torch.Generator().manual_seed(0)) / width
    save_file({"whitening": (half + half.T).contiguous()}, tmp_path / "w.safetensors")
    model = build(replace(config, whitening=str(tmp_path / "w.safetensors")))[0].model
    state = trainable_state(model)
    assert not any("whitening" in name for name in state)
    plain = with_plain_map(state, str(tmp_path / "w.safetensors"))
    features = torch.randn(3, width)
    wanted = features @ plain["visual_prefix.linear.weight"].T + plain["visual_prefix.linear.bias"]
    torch.testing.assert_close(model.visual_prefix(features).flatten(1), wanted)
    assert not torch.allclose(wanted, features @ state["visual_prefix.linear.weight"].T, atol=1e-3)
