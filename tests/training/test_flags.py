"""Every flag of the originals, in their own spellings, and what each sets."""

import dataclasses
import shlex

import pytest

from gill.errors import ConfigError, UnknownNameError
from gill.models.gill import DEFAULT_DIFFUSION
from gill.training import parse_command

GILL_README = """--dist-url "tcp://127.0.0.1:8123" --dist-backend 'nccl' --multiprocessing-distributed
    --world-size 1 --rank 0
    --dataset=cc3m  --val-dataset=cc3m --exp-name='gill_exp' --image-dir='data/'  --log-base-dir='runs/'
    --precision='bf16'  --print-freq=100"""
FROMAGE_README = """--dataset=cc3m  --val-dataset=cc3m
    --opt-version='facebook/opt-6.7b' --visual-model='openai/clip-vit-large-patch14'
    --exp_name='fromage_exp' --image-dir='data/'  --log-base-dir='runs/'
    --batch-size=180  --val-batch-size=100  --learning-rate=0.0003 --precision='bf16'  --print-freq=100"""
EVERY_GILL_FLAG = """--opt-version facebook/opt-125m --visual-model openai/clip-vit-base-patch32 --num-tokens 4
    --num-clip-tokens 50 -d cc3m --val-dataset cc3m --dataset-dir here --image-dir there --log-base-dir logs
    --exp-name run -j 3 --epochs 7 --steps_per_epoch 11 --start-epoch 2 --val_steps_per_epoch 5 -b 64
    --val-batch-size 16 --lr 0.01 --lr-warmup-steps 9 --lr_schedule_step_size 3 --lr_schedule_gamma 0.5
    --grad-accumulation-steps 2 --grad-clip 0.5 --precision fp32 --cap-loss-scale 2 --ret-loss-scale 3
    --gen-loss-scale 5 --concat-captions-prob 0.25 --input-prompt "A picture of" --image-size 224 --ret-emb-dim 128
    --gen-emb-dim 512 --text-fc-mode linear --ret-text-fc-mode linear --max-len 40 --n-visual-tokens 2 --beta1 0.8
    --beta2 0.9 --wd 0.1 -p 4 --resume ckpt -e --world-size 2 --rank 1 --dist-url tcp://host:1 --dist-backend gloo
    --seed 6 --gpu 1 --multiprocessing-distributed"""


def test_gills_readme_command_is_the_papers_recipe() -> None:
    command = parse_command(shlex.split(GILL_README))
    assert (command.preset, command.folder) == ("gill-opt-6.7b", "runs//gill_exp")
    assert (command.model.frozen_dtype, command.run.print_freq, command.data.train) == ("bfloat16", 100, "cc3m")
    # No diffusion model: its targets are stored, in Stable Diffusion 1.5's shape, which still draws.
    model = command.model
    assert model.diffusion == DEFAULT_DIFFUSION and model.stored_target_shape == (77, 768)
    recipe = command.recipe
    assert (recipe.learning_rate, recipe.weight_decay, recipe.warmup_steps, recipe.batch_size) == (
        1e-3,
        0.01,
        2000,
        200,
    )
    launch = command.launch
    assert (launch.is_spawned, launch.world_size, launch.rank, launch.dist_backend) == (True, 1, 0, "nccl")


def test_fromages_readme_command_needs_its_preset_only() -> None:
    command = parse_command([*shlex.split(FROMAGE_README), "--preset", "fromage"])
    assert command.folder == "runs//fromage_exp"
    assert not command.model.has_mapper and command.model.num_img_tokens == 1
    assert (command.recipe.batch_size, command.recipe.learning_rate, command.run.val_batch_size) == (180, 3e-4, 100)


def test_every_flag_of_gill_sets_something() -> None:
    command = parse_command(shlex.split(EVERY_GILL_FLAG))
    model, recipe, run, data, launch = command.model, command.recipe, command.run, command.data, command.launch
    assert (model.language, model.vision, model.num_img_tokens) == (
        "facebook/opt-125m",
        "openai/clip-vit-base-patch32",
        4,
    )
    assert (model.conditioning_length, model.conditioning_width, model.retrieval_width) == (50, 512, 128)
    assert (model.mapper, model.num_visual_tokens, model.frozen_dtype) == ("linear", 2, "float32")
    # The original ran the text pass twice, with half of each scale on its next-token loss.
    assert (model.captioning_weight, model.contrastive_weight, model.conditioning_weight) == (2, 3, 5)
    assert model.text_weight == 0.5 * 3 + 0.5 * 5
    assert (recipe.num_epochs, recipe.steps_per_epoch, recipe.batch_size, recipe.max_tokens) == (7, 11, 64, 40)
    assert (recipe.learning_rate, recipe.warmup_steps, recipe.decay_epochs, recipe.decay_factor) == (0.01, 9, 3, 0.5)
    assert (recipe.grad_clip, recipe.betas, recipe.weight_decay, recipe.pair_probability) == (
        0.5,
        (0.8, 0.9),
        0.1,
        0.25,
    )
    assert (run.num_workers, run.start_epoch, run.val_steps, run.val_batch_size, run.num_micro_batches) == (
        3,
        2,
        5,
        16,
        2,
    )
    assert (run.seed, run.print_freq, run.input_prompt) == (6, 4, "A picture of")
    assert (data.train, data.val, data.dataset_dir, data.image_dir) == ("cc3m", "cc3m", "here", "there")
    assert (command.folder, command.resume, model.image_size, command.is_evaluation) == (
        "logs/run",
        "ckpt",
        224,
        True,
    )
    assert (launch.world_size, launch.rank, launch.dist_url, launch.gpu) == (2, 1, "tcp://host:1", 1)


def test_fromages_own_flags() -> None:
    words = "--preset fromage --shared-emb-dim 64 --image_embed_dropout_prob 0.1 --text_embed_dropout_prob 0.2"
    command = parse_command([*words.split(), "--concat-for-ret", "--text-emb-layers", "-1", "--ret-loss-scale", "2"])
    model = command.model
    assert (model.retrieval_width, model.image_dropout, model.text_dropout, model.joins_text) == (64, 0.1, 0.2, True)
    assert (model.contrastive_weight, model.text_weight) == (2, 2)


def test_dashes_and_underscores_are_the_same() -> None:
    for flag in ("--steps_per_epoch=3", "--steps-per-epoch=3"):
        assert parse_command(["--preset", "debug", flag]).recipe.steps_per_epoch == 3
    assert parse_command(["--preset=debug", "--exp_name=my_run"]).folder == "runs/my_run"


def test_any_setting_can_be_set() -> None:
    words = [
        "--preset",
        "debug",
        "--set",
        "mapper=mlp",
        "steps_per_epoch=9",
        "--set",
        "num_captions=0",
        "contexts=mixed",
    ]
    command = parse_command(words)
    assert (command.model.mapper, command.recipe.steps_per_epoch) == ("mlp", 9)
    assert (command.run.num_captions, command.data.contexts) == (0, "mixed")
    with pytest.raises(UnknownNameError, match="did you mean 'mapper'"):
        parse_command(["--preset", "debug", "--set", "maper=mlp"])


def test_a_named_diffusion_model_is_used() -> None:
    command = parse_command(["--diffusion-model", "some/model"])
    assert (command.model.diffusion, command.model.conditioning_length) == ("some/model", None)


def test_miniature_presets_keep_their_own_parts() -> None:
    command = parse_command(["--preset", "flatland"])
    assert command.data.train == command.data.val == "flatland" and command.data.contexts == "mixed"
    assert command.model.diffusion.endswith("diffusion")
    assert parse_command(["--preset", "flatland", "--contexts", "none"]).data.contexts == "none"


def test_own_pictures_need_no_stored_targets_where_the_diffusion_model_is_at_hand() -> None:
    flatland, paper = (
        parse_command(["--preset", name, "--dataset", "mine.tsv"]) for name in ("flatland", "gill-opt-6.7b")
    )
    assert flatland.model.diffusion == "checkpoints/flatland/diffusion" and flatland.model.stored_target_shape is None
    assert paper.model.diffusion == DEFAULT_DIFFUSION and paper.model.stored_target_shape == (77, 768)
    assert parse_command(["--dataset", "mine.tsv", "--diffusion-model", "sd"]).model.diffusion == "sd"


@pytest.mark.parametrize("words", [["--steps", "3"], ["--no_such_flag"], ["--lrr=1"]])
def test_an_unknown_flag_names_the_nearest(words: list[str]) -> None:
    with pytest.raises(UnknownNameError, match="unknown flag"):
        parse_command(["--preset", "debug", *words])


def test_settings_share_nothing_that_can_change() -> None:
    command = parse_command(["--preset", "debug"])
    for settings in (command.model, command.recipe, command.run, command.data):
        hash(settings)  # of all fields: a list or a dict has none
        with pytest.raises(dataclasses.FrozenInstanceError):
            settings.seed = 3  # type: ignore[misc, union-attr]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_micro_batches must be at least 1"):
        parse_command(["--preset", "debug", "--grad-accumulation-steps", "0"])
    with pytest.raises(ConfigError, match="max_bad_fraction"):
        parse_command(["--preset", "debug", "--max-bad-fraction", "2"])
