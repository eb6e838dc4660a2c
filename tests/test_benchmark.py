"""The benchmark compares the same thing, and its counts (never its times) already hold at toy shapes."""

import json
from functools import cache

import pytest
import torch
from torch import nn

from gill.training import count_flops
from scripts import benchmark
from scripts.benchmarks import training
from scripts.benchmarks.measure import BenchmarkError, Product, matmul_rate, saved_bytes
from scripts.benchmarks.setting import FULL, TINY
from scripts.benchmarks.training import TrainingBench


@cache
def tiny_bench() -> TrainingBench:
    """Both steps at toy shapes."""
    return training.prepare(TINY)


def test_the_captions_are_those_of_the_bar() -> None:
    assert len(FULL.caption_lengths) == 16
    assert (min(FULL.caption_lengths), max(FULL.caption_lengths), sum(FULL.caption_lengths)) == (8, 19, 217)


def test_the_plain_gradients_are_ours() -> None:
    """Halving the work must not change the step: every gradient, [IMG] rows and mapper included, is the same."""
    bench = training.prepare(TINY)
    model, plain = bench.setting.task.model, bench.plain
    bench.setting.task(bench.setting.stored).total.backward()
    plain().backward()
    pairs = {
        "visual prefix": (model.visual_prefix.linear.weight, plain.visual_embeddings.weight),
        "text head": (model.retrieval_heads.text.weight, plain.text_head.weight),
        "image head": (model.retrieval_heads.image.weight, plain.image_head.weight),
        "temperature": (model.logit_scale, plain.logit_scale),
        **{name: (model.mapper.get_parameter(name), p) for name, p in plain.mapper.named_parameters()},  # type: ignore[union-attr]
    }
    for name, (ours, theirs) in pairs.items():
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
    img_rows = plain.table.grad[plain.num_words :]  # type: ignore[index]
    torch.testing.assert_close(model.img_tokens.input_rows.grad, img_rows, rtol=1e-3, atol=1e-5)


def test_the_plain_update_moves_img_rows_and_decays_the_table() -> None:
    """The original's weight decay acts on the whole table although the gradient of the words is masked."""
    bench = training.prepare(TINY)
    before = bench.plain.table.detach().clone()
    bench.steps[training.PLAIN]()
    after, num_words = bench.plain.table.detach(), bench.plain.num_words
    torch.testing.assert_close(after[:num_words], before[:num_words] * (1 - 1e-3 * 0.01))
    assert not torch.allclose(after[num_words:], before[num_words:], rtol=1e-2)
    norms = after.norm(dim=-1)
    torch.testing.assert_close(norms[num_words:], norms[:num_words].mean().expand(8))


def test_our_step_does_a_fraction_of_the_work_and_keeps_a_fraction_of_the_memory() -> None:
    counts = training.count_work(tiny_bench())
    assert counts["plain_tflop"] > 6 * counts["ours_stored_tflop"]
    assert counts["plain_tflop"] > 6 * counts["ours_stored_paired_tflop"]
    assert counts["plain_tflop"] > 2.9 * counts["ours_tower_tflop"]
    assert counts["train_activation_ratio"] > 4


def test_the_timed_products_are_nearly_all_of_the_plain_step() -> None:
    listed = sum(p.count * p.flops for p in training.plain_products(tiny_bench().setting))
    counted = count_flops(tiny_bench().steps[training.PLAIN])
    assert 0.7 * counted < listed < counted


def test_steps_that_disagree_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.PlainGill, "forward", lambda self: torch.tensor(1.0))
    with pytest.raises(BenchmarkError, match=r"the plain loss is 1\.000000, ours are"):
        training.prepare(TINY)


def test_a_slow_baseline_fails_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "FULL", TINY)
    monkeypatch.setattr(training, "matmul_rate", lambda products: 1e15)
    assert benchmark.main(["--parts", "training"]) == 1
    error = capsys.readouterr().err
    assert "of the matmul rate, 75% is wanted for a fair comparison" in error


def test_the_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--parts", "training", "--tiny"]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(training.BARS) < set(results)
    wanted = {"train_cpu_ratio_paper", "matmul_gflops", "plain_share_of_peak", "ours_share_of_peak"}
    assert wanted | {f"{name}_tflop" for name in tiny_bench().steps} < set(results)
    assert all(value > 0 for value in results.values())


def test_flops_of_attention_on_the_cpu_are_counted() -> None:
    query = torch.randn(1, 2, 5, 8, requires_grad=True)  # 2 heads, 5 tokens, 8 wide
    products = 2 * 2 * 5 * 5 * 8  # one product of scores or values

    def attend() -> None:
        nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()

    assert count_flops(attend) == (2 + 5) * products  # backward computes the scores again


def test_saved_bytes_count_each_storage_once_and_no_parameters() -> None:
    layer = nn.Linear(10, 20)
    states = torch.randn(3, 10, requires_grad=True)
    # The linear layer keeps its input (and its weight, a parameter); both products keep the layer's output.
    assert saved_bytes(lambda: layer(states).square().sum(), layer) == 4 * (3 * 10 + 3 * 20)
    assert saved_bytes(lambda: (states * states.T.T).sum(), layer) == 4 * 3 * 10


def test_the_matmul_rate_weighs_products_by_their_count(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {10: 1.0, 20: 4.0}
    monkeypatch.setattr("scripts.benchmarks.measure._seconds_of_product", lambda product: seconds[product.rows])
    # 3 x 2*10*5*5 operations in 3 s and 2 x 2*20*5*5 in 8 s
    assert matmul_rate([Product(3, 10, 5, 5), Product(2, 20, 5, 5)]) == (3 * 500 + 2 * 1000) / 11


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--parts", "trainnig"])
    assert "invalid choice: 'trainnig'" in capsys.readouterr().err
