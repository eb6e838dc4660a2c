"""How a run is carried out, apart from the model and its recipe."""

from __future__ import annotations

from dataclasses import dataclass

from gill.config import require_in_range
from gill.errors import ConfigError


@dataclass(frozen=True)
class RunSettings:
    """One run.

    Attributes:
        seed: of everything random; the same seed gives the same run.
        num_micro_batches: shares a process cuts its part of each batch into; same result, less memory.
        num_workers: loader processes for each training process.
        print_freq: a row of `metrics.jsonl` every so many steps.
        save_freq: a checkpoint every so many steps, beside those at the end of each epoch.
        num_checkpoints: so many of the last ones are kept, beside the best.
        frozen_check_freq: every so many steps the frozen parts are compared with what they were at the start.
        shard_language: every process keeps a share of the frozen language model's layers only (FSDP2), for models that
            do not fit one GPU; same result, more communication.
        val_batch_size: pairs of a validation batch.
        val_steps: validation batches; -1 reads the whole set.
        num_captions: validation pictures that are captioned in words, for BLEU.
        num_panels: rows of the picture panel of each validation.
        max_bad_fraction: share of bad samples beyond which the run stops.
        start_epoch: the schedule starts there, as after a restart by hand.
        input_prompt: what a picture is followed by when it is described in validation ("A picture of" in the original).
        num_inference_steps, guidance_scale: of the pictures drawn in validation; None takes the pipeline's own.
    """

    seed: int = 0
    num_micro_batches: int = 1
    num_workers: int = 0
    print_freq: int = 10
    save_freq: int = 500
    num_checkpoints: int = 2
    frozen_check_freq: int = 1000
    shard_language: bool = False
    val_batch_size: int = 64
    val_steps: int = -1
    num_captions: int = 64
    num_panels: int = 8
    max_bad_fraction: float = 0.01
    start_epoch: int = 0
    input_prompt: str = ""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        require_in_range("max_bad_fraction", self.max_bad_fraction, 0, 1)
        for name in (
            "num_micro_batches",
            "print_freq",
            "save_freq",
            "num_checkpoints",
            "frozen_check_freq",
            "val_batch_size",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_workers", "num_captions", "num_panels", "start_epoch", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.seed >= 2**31:
            raise ConfigError(f"seed must be below 2**31, got {self.seed}")
