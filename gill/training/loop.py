"""The training loop: read, step, log, validate, save, for any task.

A run is a function of its settings. It can be killed at any moment: started again, it continues from its newest
checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

from gill.config import Recipe
from gill.data import REPORT_NAME, BadSamples, BatchOrder, Share, Source, training_steps
from gill.distributed import World, any_process, ask_main, barrier, broadcast_parameters, sum_counts
from gill.errors import TrainingError
from gill.parameters import parameter_table
from gill.training.checkpoint import Checkpoints, ModelFiles, Progress
from gill.training.guards import FrozenWatch, name_pairs
from gill.training.ledger import count_flops, ledger_text
from gill.training.panels import validation_panel
from gill.training.runlog import RunLog, parameter_text
from gill.training.settings import RunSettings
from gill.training.step import build_optimizer, forward_backward, trainable, update
from gill.training.validation import Validation, Validator
from gill.types import Batch, Family, Illustrator, SampleEncoder, TrainingTask

# What decides which weights are the best: the original's choice first, for families without retrieval the loss.
_BEST_BY = "t2i_r@1"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Everything a training needs.

    Attributes:
        family: of the task; saves it and reads it back. folder: of the run.
        resume_from: a checkpoint folder to start from while the run has none of its own.
        illustrator: for captions and drawn pictures in validation; None shows neither.
    """

    family: Family
    task: TrainingTask
    encoder: SampleEncoder
    train: Source
    val: Source
    recipe: Recipe
    run: RunSettings
    folder: Path
    world: World
    device: torch.device
    resume_from: Path | None = None
    illustrator: Illustrator | None = None


class Outcome(Enum):
    """How a call of `fit` ended."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by a signal, after saving
    NOTHING_LEFT = "nothing left"  # the run was complete already


def fit(job: Job) -> Outcome:
    """Train until the recipe's last step, or until a signal.

    Raises:
        ConfigError: settings that cannot work; DataError: data that cannot be used; TrainingError: a loss that is not
        finite; CheckpointError: a checkpoint that does not fit.
    """
    return _Run(job).train()


def evaluate(job: Job) -> dict[str, float]:
    """Score the validation set with the newest checkpoint's weights (the task's own, without one); writes no log."""
    run = _Run(job)
    if run.start is None and job.world.is_main:
        _log.warning("%s holds no checkpoint: what is scored are the weights a training would start from", job.folder)
    return run.score().scores


def preview(job: Job) -> str:
    """What a run would do, in words: data, schedule, parameters and the shapes of its first step; nothing is run."""
    recipe, share = job.recipe, Share(job.world.rank, job.world.size, job.run.num_micro_batches)
    order = _order(job)
    first = next(training_steps(job.train, job.encoder, order, share, range(1), recipe.pair_probability))
    shapes = [f"texts {tuple(batch.text_ids.shape)}, pictures {tuple(batch.images.shape)}" for batch in first.batches]
    return "\n".join(
        [
            f"training rows {len(job.train):,}, validation rows {len(job.val):,}",
            f"{recipe.num_epochs} epochs of {recipe.steps_per_epoch} steps of {recipe.batch_size} pairs, {job.device}",
            f"first step of process {job.world.rank}: {'; '.join(shapes)}; {len(first.bad)} bad samples",
            parameter_text(parameter_table(job.task)),
        ]
    )


def _order(job: Job) -> BatchOrder:
    source = job.train
    return BatchOrder(len(source), job.recipe.batch_size, job.run.seed, source.lengths, source.group_size)


class _Run:
    """A run in progress."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.names = [name for name, _ in trainable(job.task)]
        self.optimizer = build_optimizer(job.task, job.recipe)
        files = ModelFiles(partial(job.family.save, task=job.task), partial(job.family.load, task=job.task))
        self.checkpoints = Checkpoints(job.folder, files, job.run.num_checkpoints)
        self.start: Path | None = ask_main(self.checkpoints.newest) or job.resume_from
        self.progress = self._load()
        self.total_steps = job.recipe.num_epochs * job.recipe.steps_per_epoch
        self.bad_train, self.bad_val = self._bad_samples(job.train), self._bad_samples(job.val)
        run = job.run
        self.validator = Validator(
            job.val, job.encoder, run.val_batch_size, run.val_steps, run.num_captions, run.num_workers
        )
        self.log: RunLog | None = None
        self.has_told_of_cuts = self.has_told_of_work = False

    def train(self) -> Outcome:
        """All steps that are left."""
        try:
            return self._train()
        finally:
            if self.log is not None:
                self.log.close()

    def _train(self) -> Outcome:
        if self.progress.step >= self.total_steps:
            if ask_main(lambda: not (self.job.folder / "model").exists()):
                self._export("model")
            return Outcome.NOTHING_LEFT
        self.log = RunLog(self.job.folder, self.progress.step) if self.job.world.is_main else None
        if self.progress.step == 0:
            self._validate()
        with _stop_signals() as stop, self._bar() as bar:
            for done in self._steps(bar):
                is_epoch_end = done % self.job.recipe.steps_per_epoch == 0
                if is_epoch_end:
                    self._note_best(self._validate())
                is_stopped = any_process(stop.is_set, self.job.device)
                if is_epoch_end or is_stopped or done % self.job.run.save_freq == 0:
                    self._save()
                if is_stopped and done < self.total_steps:
                    return Outcome.STOPPED
        self._export("model")
        return Outcome.FINISHED

    def score(self) -> Validation:
        """Score the validation set with the current weights."""
        job = self.job
        # Shares of a network run only together, so there every process scores everything.
        world = World() if job.run.shard_language else job.world
        return self.validator.run(job.task, world, job.device, self.bad_val, job.illustrator)

    def _validate(self) -> Validation:
        job, step = self.job, self.progress.step
        result = self.score()
        if self.log is not None:
            self.log.write(step, {f"val/{name}": score for name, score in result.scores.items()})
            panel = validation_panel(result, job.val, job.illustrator, job.run.num_panels, job.run.seed)
            if panel is not None:
                self.log.picture(step, "panel", panel)
        barrier()
        return result

    def _load(self) -> Progress:
        job = self.job
        if self.start is not None:
            return self.checkpoints.load(self.start, self.names, self.optimizer)
        broadcast_parameters([parameter for _, parameter in trainable(job.task)])
        return Progress(step=job.run.start_epoch * job.recipe.steps_per_epoch)

    def _bad_samples(self, source: Source) -> BadSamples:
        folder = self.job.folder
        is_silent = self.job.run.shard_language and not self.job.world.is_main  # it reads what the first one reads
        report = folder / REPORT_NAME if folder.is_dir() and not is_silent else None  # no folder when only evaluating
        bad = BadSamples(report, len(source), self.job.run.max_bad_fraction)
        bad.add_unusable(source.bad_rows, is_written=self.job.world.is_main)  # every process has read all rows
        return bad

    def _steps(self, bar: tqdm) -> Iterator[int]:
        """Carry out one optimiser step after the other; yields the number of steps done."""
        job, recipe = self.job, self.job.recipe
        order = _order(job)
        share = Share(job.world.rank, job.world.size, job.run.num_micro_batches)
        steps = range(self.progress.step, self.total_steps)
        watch = FrozenWatch(job.task)
        job.task.train()
        read = training_steps(job.train, job.encoder, order, share, steps, recipe.pair_probability, job.run.num_workers)
        with closing(read):  # a run that stops early lets its readers go
            for part in read:
                self.bad_train.add(part.bad, part.num_tried)
                self._tell_of_cuts(part.batches)
                torch.manual_seed((job.run.seed << 32) + part.step)  # dropout is a function of the step
                values = self._step(part.step, part.batches, share, bar)
                self.progress = replace(self.progress, step=part.step + 1)
                self._show(bar, {f"train/{name}": value for name, value in values.items()})
                if self.progress.step % job.run.frozen_check_freq == 0 or self.progress.step == self.total_steps:
                    watch.check(self.progress.step)
                yield part.step + 1

    def _step(self, step: int, batches: list[Batch], share: Share, bar: tqdm) -> dict[str, float]:
        """Gradients, then the update; the first step of a process is counted as it runs."""
        job, recipe = self.job, self.job.recipe
        values: dict[str, float] = {}

        def run() -> None:
            values.update(forward_backward(job.task, batches, share, recipe.batch_size, job.device))

        if self.has_told_of_work:
            run()
        else:
            self._tell_of_work(count_flops(run), bar)
        try:
            return {**values, **update(job.task, self.optimizer, recipe, step, values)}
        except TrainingError as error:
            raise TrainingError(f"{error}; its pairs: {name_pairs(batches)}") from error

    def _tell_of_work(self, num_flops: int, bar: tqdm) -> None:
        """Print what a step costs, once, and keep it beside the run."""
        self.has_told_of_work = True
        all_flops = sum_counts({"flops": num_flops}, self.job.device)["flops"]
        text = ledger_text(all_flops, self.total_steps, self.job.world.size)
        if self.job.world.is_main:
            bar.write(text, file=sys.stderr)
            (self.job.folder / "work.txt").write_text(text + "\n", encoding="utf-8")

    def _tell_of_cuts(self, batches: Sequence[Batch]) -> None:
        """Say once, of the first text that was too long, that such texts lose their end."""
        cut = [batch.records[row] for batch in batches for row in batch.cut_rows if batch.records]
        if not cut or self.has_told_of_cuts or not self.job.world.is_main:
            return
        self.has_told_of_cuts = True
        _log.warning(
            "%s:%d: the text is longer than --max-len %d allows and loses its end, as will others (train/cut_texts is "
            "their share); raise --max-len to read them whole",
            cut[0].source,
            cut[0].line,
            self.job.recipe.max_tokens,
        )

    def _show(self, bar: tqdm, row: dict[str, float]) -> None:
        bar.update()
        if self.log is None or self.progress.step % self.job.run.print_freq:
            return
        speed = (bar.format_dict["rate"] or 0) * self.job.recipe.batch_size
        bar.set_postfix({"loss": f"{row['train/loss']:.3f}", "images/s": f"{speed:.1f}", "bad": len(self.bad_train)})
        self.log.write(self.progress.step, row)
        self.log.watch(self.progress.step, {"speed/images_per_second": speed})

    def _bar(self) -> tqdm:
        is_quiet = not self.job.world.is_main
        return tqdm(
            total=self.total_steps,
            initial=self.progress.step,
            desc="train",
            unit="step",
            disable=is_quiet,
            smoothing=0.1,
        )

    def _note_best(self, result: Validation) -> None:
        # With a sharded network everyone scores everything, and rounding must not let them differ.
        score = ask_main(lambda: result.scores.get(_BEST_BY, -result.scores["loss"]))
        if self.progress.best_step < 0 or score > self.progress.best_score:
            self.progress = replace(self.progress, best_score=score, best_step=self.progress.step)
            self._export("best")

    def _export(self, name: str) -> None:
        if self.job.world.is_main:
            self.checkpoints.export(name)
        barrier()  # nobody may end well before the model is there

    def _save(self) -> None:
        if self.job.world.is_main:
            self.checkpoints.save(self.progress, self.names, self.optimizer)
        barrier()


class _Stop:
    """Whether a signal has asked the run to save and stop; the same one again ends it at once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    @property
    def is_set(self) -> bool:
        """Whether any has come."""
        return bool(self._seen)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number in self._seen:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._seen.add(number)


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
