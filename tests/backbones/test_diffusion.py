"""Drawing from conditioning sequences, with random tiny pipelines of Stable Diffusion and of Stable Diffusion XL."""

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gill.backbones import (
    SCHEDULERS,
    DiffusionDrawer,
    Sampling,
    load_conditioning_encoder,
    load_conditioning_tokenizer,
    load_drawer,
    pack_pooled,
    tiny_conditioning_encoder,
    tiny_conditioning_tokenizer,
    tiny_drawer,
    tiny_pipeline,
    unpack_pooled,
    write_sampling,
)
from gill.backbones.diffusion import read_sampling
from gill.errors import ConfigError, GenerationError, ShapeError, UnknownNameError
from gill.models.gill import find_preset, load_model

KINDS = ("sd", "sdxl")
CAPTIONS = ["a cat", "two dogs", "a red ball on the beach and more than fits"]


def largest_gap(one: Sequence[Image.Image | None], other: Sequence[Image.Image | None]) -> int:
    """Largest difference of two rows of pictures, in grey levels."""
    pairs = zip(one, other, strict=True)
    return max(int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max()) for a, b in pairs)


def random_sequences(drawer: DiffusionDrawer, count: int) -> Tensor:
    return torch.randn(count, *drawer.conditioning_shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_sequence_is_what_the_pipeline_draws_of_the_prompt(kind: str) -> None:
    drawer = tiny_drawer(kind)
    drawn = drawer.draw(drawer.encode(CAPTIONS), [3, 4, 5], num_inference_steps=3, guidance_scale=4.0)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4, 5)]
    wanted = tiny_pipeline(kind)(CAPTIONS, generator=generators, num_inference_steps=3, guidance_scale=4.0).images
    assert largest_gap(drawn, wanted) <= 1
    assert drawer.picture_size == (16, 16) and drawn[0] is not None and drawn[0].size == (16, 16)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers and numpy 2
@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS])
def test_a_picture_is_the_same_alone_and_in_any_batch(scheduler: str | None, saved: dict[str, Path]) -> None:
    drawer = load_drawer(str(saved["sd"]), scheduler=scheduler, pictures_at_once=3)
    sequences, seeds = random_sequences(drawer, 5), [11, 12, 13, 14, 15]
    together = drawer.draw(sequences, seeds, num_inference_steps=4)
    alone = [drawer.draw(sequences[i : i + 1], seeds[i : i + 1], num_inference_steps=4)[0] for i in range(5)]
    assert largest_gap(together, alone) <= 1
    assert largest_gap(together[:1], drawer.draw(sequences[:1], [12], num_inference_steps=4)) > 5
    assert largest_gap(together[:1], drawer.draw(sequences[1:2], [11], num_inference_steps=4)) > 1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers and numpy 2
def test_threads_draw_one_after_the_other(saved: dict[str, Path]) -> None:
    """A user who resets the demo leaves a drawing behind that still runs when the next one is asked for."""
    drawer = load_drawer(str(saved["sd"]), scheduler="dpm-solver")
    sequences = random_sequences(drawer, 2)
    wanted = [drawer.draw(sequences[i : i + 1], [i], num_inference_steps=3 + i) for i in (0, 1)]
    found: list[list[Image.Image | None]] = []
    other = threading.Thread(target=lambda: found.append(drawer.draw(sequences[1:], [1], num_inference_steps=4)))

    def interrupt(done: int, total: int) -> None:
        if done == 1:
            other.start()
            other.join(timeout=0.5)

    first = drawer.draw(sequences[:1], [0], num_inference_steps=3, progress=interrupt)
    other.join()
    assert largest_gap(first, wanted[0]) == largest_gap(found[0], wanted[1]) == 0


def test_a_scheduler_by_name_is_set_up_as_the_pipelines_own(saved: dict[str, Path]) -> None:
    for name, kind in SCHEDULERS.items():
        scheduler = load_drawer(str(saved["sd"]), scheduler=name).pipeline.scheduler
        assert type(scheduler).__name__ == kind
        assert (scheduler.config.beta_end, scheduler.config.num_train_timesteps) == (0.012, 500)


def test_the_folder_says_how_it_wants_to_be_sampled(saved: dict[str, Path]) -> None:
    drawer = load_drawer(str(saved["sd"]))
    assert drawer.sampling == Sampling(3, 2.5)
    sequences = random_sequences(drawer, 1)
    steps: list[tuple[int, int]] = []
    by_default = drawer.draw(sequences, [7], progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert largest_gap(by_default, drawer.draw(sequences, [7], 3, 2.5)) == 0
    assert largest_gap(by_default, drawer.draw(sequences, [7], 3, 9.0)) > 0
    assert load_drawer(str(saved["sdxl"])).sampling == Sampling(50, 5.0)  # what its class says


def test_progress_counts_the_steps_of_every_part() -> None:
    drawer = DiffusionDrawer(tiny_pipeline(), pictures_at_once=2)
    steps: list[tuple[int, int]] = []
    drawer.draw(random_sequences(drawer, 5), range(5), 2, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 6) for done in range(1, 7)]


def test_small_pictures_are_drawn_together_and_large_ones_are_not() -> None:
    pipeline = tiny_pipeline()
    assert DiffusionDrawer(pipeline).pictures_at_once == 32
    for latents, wanted in ((256, 8), ((512, 512), 2), (2048, 1)):  # times 2 a side
        pipeline.unet.register_to_config(sample_size=latents)
        assert DiffusionDrawer(pipeline).pictures_at_once == wanted


def test_the_unconditional_embedding_is_computed_once() -> None:
    drawer = DiffusionDrawer(tiny_pipeline(), pictures_at_once=1)
    calls: list[int] = []
    drawer.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    sequences = random_sequences(drawer, 3)
    first = len(calls)
    drawer.draw(sequences, range(3), 1)
    drawer.draw(sequences, range(3), 1)
    assert first > 0 and len(calls) == first


def test_a_withheld_picture_is_none_and_the_others_stay() -> None:
    drawer = tiny_drawer()
    plain = drawer.draw(random_sequences(drawer, 3), range(3))

    def withholds_the_second(images: Any, clip_input: Tensor) -> tuple[Any, list[bool]]:
        images[1] = 0
        return images, [False, True, False]

    drawer.pipeline.safety_checker = withholds_the_second
    drawer.pipeline.feature_extractor = lambda images, return_tensors: _Pixels(torch.zeros(len(images), 3, 8, 8))
    drawn = drawer.draw(random_sequences(drawer, 3), range(3))
    assert drawn[1] is None
    assert largest_gap([drawn[0], drawn[2]], [plain[0], plain[2]]) == 0


class _Pixels:
    def __init__(self, pixel_values: Tensor) -> None:
        self.pixel_values = pixel_values

    def to(self, device: torch.device) -> "_Pixels":
        return self


def test_the_tiny_pipeline_draws_from_the_tiny_targets() -> None:
    targets = tiny_conditioning_encoder()(tiny_conditioning_tokenizer()(CAPTIONS))
    torch.testing.assert_close(tiny_drawer().encode(CAPTIONS), targets)


def test_targets_of_xl_are_its_sequence_and_then_its_pooled_vector(saved: dict[str, Path]) -> None:
    folder, drawer = str(saved["sdxl"]), tiny_drawer("sdxl")
    encoder, tokenizer = load_conditioning_encoder(folder, "cpu", torch.float32), load_conditioning_tokenizer(folder)
    targets = encoder(tokenizer(CAPTIONS))
    assert (encoder.length, encoder.width) == drawer.conditioning_shape == (13, 24)
    torch.testing.assert_close(targets, drawer.encode(CAPTIONS))
    sequence, _, pooled, _ = tiny_pipeline("sdxl").encode_prompt(
        CAPTIONS, device="cpu", do_classifier_free_guidance=True
    )
    torch.testing.assert_close(targets[:, :12], sequence)
    torch.testing.assert_close(targets[:, 12, :20], pooled)
    assert not targets[:, 12, 20:].any()


def test_a_model_with_xl_maps_what_xl_draws_from(saved: dict[str, Path]) -> None:
    config = dataclasses.replace(find_preset("debug").model, diffusion=str(saved["sdxl"]))
    model, _ = load_model(config)
    mapped = model.map_conditioning(torch.randn(2, config.num_img_tokens, model.language.hidden_width)).detach()
    drawer = load_drawer(str(saved["sdxl"]))
    drawn = drawer.draw(mapped, [1, 2], num_inference_steps=2)
    changed = mapped.clone()
    changed[:, -1, :20] += 3  # the pooled vector alone
    assert largest_gap(drawn, drawer.draw(changed, [1, 2], num_inference_steps=2)) > 0
    changed = mapped.clone()
    changed[:, -1, 20:] += 3  # what fills up its row
    assert largest_gap(drawn, drawer.draw(changed, [1, 2], num_inference_steps=2)) == 0


def test_a_pooled_vector_rides_in_the_last_rows() -> None:
    sequence, pooled = torch.arange(12.0).view(2, 2, 3), torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    packed = pack_pooled(sequence, pooled)
    assert packed[1].tolist() == [[6, 7, 8], [9, 10, 11], [5, 6, 7], [8, 0, 0]]
    found = unpack_pooled(packed, 4)
    assert torch.equal(found[0], sequence) and torch.equal(found[1], pooled)
    with pytest.raises(ShapeError, match="one pooled vector"):
        pack_pooled(sequence, pooled[:1])


def test_what_cannot_be_drawn_is_refused() -> None:
    drawer = tiny_drawer()
    with pytest.raises(ShapeError, match=r"\(2, 12, 16\) numbers, got \(2, 12, 15\)"):
        drawer.draw(torch.zeros(2, 12, 15), [0, 1])
    with pytest.raises(ShapeError, match="1 pictures"):
        drawer.draw(torch.zeros(2, 12, 16), [0])
    with pytest.raises(GenerationError, match="at least 1"):
        drawer.draw(torch.zeros(1, 12, 16), [0], num_inference_steps=0)


def test_what_cannot_be_loaded_says_what_to_give(saved: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="local folder or hub name"):
        load_drawer(str(tmp_path / "nowhere"))
    with pytest.raises(UnknownNameError, match="dpm-solver"):
        load_drawer(str(saved["sd"]), scheduler="dpm")

    class Editor:
        unet = vae = None

        def __call__(self, image: Any, prompt_embeds: Any, negative_prompt_embeds: Any, generator: Any) -> None: ...

    with pytest.raises(ConfigError, match="has no callback_on_step_end; use Stable Diffusion"):
        DiffusionDrawer(Editor())


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"num_inference_steps": 3}', '{"num_inference_steps": 0, "guidance_scale": 1}']
)
def test_a_broken_sampling_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "sampling.json").write_text(text)
    with pytest.raises(ConfigError, match=r"sampling.json must hold num_inference_steps"):
        read_sampling(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of both tiny pipelines; the first says how it is sampled and has a schedule of its own."""
    from diffusers import DDIMScheduler

    folders = {}
    for kind in KINDS:
        folders[kind] = tmp_path_factory.mktemp(kind)
        pipeline = tiny_pipeline(kind)
        if kind == "sd":
            pipeline.scheduler = DDIMScheduler(
                beta_end=0.012, num_train_timesteps=500, clip_sample=False, steps_offset=1
            )
        pipeline.save_pretrained(folders[kind])
    write_sampling(folders["sd"], Sampling(3, 2.5))
    return folders
