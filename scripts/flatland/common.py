"""What the trainings of Flatland's frozen parts share: one loop that saves, resumes, logs and draws.

A stage is a function of its seed: batch number `step` depends on (seed, step) only, so a run that was killed and
started again sees the same batches. State is written to a new file first and then renamed.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gill.errors import TrainingError
from gill.files import write_whole
from gill.flatland.judge import compare, read_picture
from gill.flatland.world import Scene

logger = logging.getLogger("flatland")
SAVE_SECONDS = 120
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class BuildContext:
    """Where a build works and with what.

    Attributes:
        work: folder of unfinished state, logs and panels, one folder a stage.
        out: folder of the finished parts, as `transformers` and `diffusers` load them.
        seed: seed of every stage.
        device: where training runs.
        scale: multiplies every number of training steps; below 1 for a rehearsal.
    """

    work: Path
    out: Path
    seed: int
    device: torch.device
    scale: float = 1.0

    def steps(self, full: int) -> int:
        """Training steps of a stage at this scale, at least 2."""
        return max(2, round(full * self.scale))


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: linear up over `warmup` steps, then a half cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def warmup_linear(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: linear up over `warmup` steps, flat, then linear to 0 over the last 30 %."""
    return min(1.0, (step + 1) / warmup, (steps - step) / max(1, 0.3 * steps))


@dataclass
class Training(Generic[M]):
    """One resumable training run.

    Attributes:
        name: of the stage; names its folder under the work folder.
        module: what is trained.
        loss: step -> named losses; the entry "loss" is minimised.
        steps: optimiser steps in all.
        learning_rate: peak of AdamW's learning rate.
        schedule: (step, steps, warmup) -> factor on the learning rate.
        ema_decay: of the average of weights; 0 keeps none.
        panel: draws sample pictures of the averaged module and marks them, every `panel_steps`.
    """

    name: str
    module: M
    loss: Callable[[int], dict[str, Tensor]]
    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup: int = 100
    schedule: Callable[[int, int, int], float] = warmup_cosine
    ema_decay: float = 0.0
    panel: Callable[[M], tuple[Image.Image, dict[str, float]]] | None = None
    panel_steps: int = 500
    history: list[dict[str, float]] = field(default_factory=list)

    def run(self, context: BuildContext) -> M:
        """Train to the end, from the last saved state if there is one.

        Returns:
            the module, with averaged weights where `ema_decay` is set.

        Raises:
            TrainingError: when the loss is not finite; the last saved state stays.
        """
        folder = context.work / self.name
        folder.mkdir(parents=True, exist_ok=True)
        self._prepare(folder)
        writer = SummaryWriter(str(folder / "tensorboard"))
        saved = time.monotonic()
        bar = tqdm(range(self.start, self.steps), initial=self.start, total=self.steps, desc=self.name, mininterval=2)
        for step in bar:
            self._log(self._step(step), step, writer, bar)
            if self.panel and (step + 1) % self.panel_steps == 0:
                self._draw(folder, step + 1, writer)
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save(folder, step + 1)
                saved = time.monotonic()
        if self.start < self.steps:
            self._save(folder, self.steps)
        writer.close()
        return self._averaged().eval()

    def _averaged(self) -> M:
        return cast(M, self.ema.module) if self.ema else self.module

    def _prepare(self, folder: Path) -> None:
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=self.learning_rate, betas=(0.9, 0.98), weight_decay=self.weight_decay
        )
        average = torch.optim.swa_utils.get_ema_multi_avg_fn(self.ema_decay) if self.ema_decay else None
        self.ema = (
            torch.optim.swa_utils.AveragedModel(self.module, multi_avg_fn=average, use_buffers=True)
            if average
            else None
        )
        self.seconds, self.start = 0.0, 0
        path = folder / "state.pt"
        if path.exists():
            self._load(path)

    def _step(self, step: int) -> dict[str, float]:
        began = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self.schedule(step, self.steps, self.warmup)
        self.module.train()
        losses = self.loss(step)
        if not torch.isfinite(losses["loss"]):
            raise TrainingError(
                f"{self.name}: the loss of step {step} is {losses['loss'].item()}; lower the learning rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        if self.ema:
            self.ema.update_parameters(self.module)
        self.seconds += time.monotonic() - began
        return {name: value.item() for name, value in losses.items()}

    def _log(self, losses: dict[str, float], step: int, writer: SummaryWriter, bar: tqdm) -> None:
        self.history.append(losses)
        if (step + 1) % 20 and step + 1 < self.steps:
            return
        recent = self.history[-20:]
        means = {name: sum(row[name] for row in recent) / len(recent) for name in losses}
        for name, value in means.items():
            writer.add_scalar(f"{self.name}/{name}", value, step + 1)
        bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()})

    def _draw(self, folder: Path, step: int, writer: SummaryWriter) -> None:
        module = self._averaged().eval()
        assert self.panel is not None  # the loop asked
        with torch.no_grad():
            picture, marks = self.panel(module)
        picture.save(folder / f"panel_{step:06d}.png")
        for name, value in marks.items():
            writer.add_scalar(f"{self.name}/judge_{name}", value, step)
        logger.info("%s step %d: %s", self.name, step, ", ".join(f"{k} {v:.3f}" for k, v in marks.items()))
        writer.add_image(f"{self.name}/panel", np.asarray(picture), step, dataformats="HWC")

    def _save(self, folder: Path, step: int) -> None:
        state = {
            "step": step,
            "seconds": self.seconds,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else {},
        }
        write_whole(folder / "state.pt", lambda path: torch.save(state, path))

    def _load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.start, self.seconds = state["step"], state["seconds"]
        logger.info("%s continues at step %d of %d", self.name, self.start, self.steps)


def half_on_cpu(model: M) -> M:
    """The model itself, its weights float16 on the CPU: how parts are stored, not how they are run."""
    nn.Module.to(model, "cpu")
    nn.Module.half(model)
    return model


def mean_marks(pictures: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
    """The judge's marks of pictures against the scenes they should show, each a mean in 0..1."""
    return {name: sum(values) / len(values) for name, values in marks_of(pictures, scenes).items()}


def marks_of(pictures: np.ndarray, scenes: Sequence[Scene]) -> dict[str, list[float]]:
    """The judge's marks, one list a mark."""
    marks = [asdict(compare(read_picture(picture), scene)) for picture, scene in zip(pictures, scenes, strict=True)]
    return {name: [row[name] for row in marks] for name in marks[0]}


def to_pixels(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8[N, H, W, 3] -> float32[N, 3, H, W] in -1..1."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: Tensor) -> np.ndarray:
    """float[N, 3, H, W] in -1..1 -> uint8[N, H, W, 3]."""
    scaled = (pixels.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
