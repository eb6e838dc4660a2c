"""Rows to batches: each process reads its share of every step, in workers or not.

In training a bad sample is replaced by the next row that can be read, so that a step has the same size everywhere;
in validation nothing is ever replaced, since the score would be that of another data set.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from gill.data.bad import BadSample
from gill.data.order import BatchOrder, is_paired_step
from gill.data.sources import Source
from gill.errors import ConfigError, DataError, GillError
from gill.types import Batch, Sample, SampleEncoder

# After so many bad rows in a row the data set, not the row, is at fault.
_MAX_REPLACEMENTS = 100
_GRACE_SECONDS = 30


@dataclass(frozen=True)
class Share:
    """The part of a global batch that one process reads: rows [rank x n, (rank + 1) x n), cut into micro-batches."""

    rank: int = 0
    num_processes: int = 1
    num_micro_batches: int = 1

    def check(self, batch_size: int, is_ever_paired: bool) -> None:
        """Refuse a batch that cannot be cut into equal shares.

        Raises:
            ConfigError: it cannot; pairs may not be split either.
        """
        parts = self.num_processes * self.num_micro_batches * (2 if is_ever_paired else 1)
        if batch_size % parts:
            raise ConfigError(
                f"the global batch of {batch_size} cannot be cut into {self.num_processes} processes x "
                f"{self.num_micro_batches} micro-batches{' of whole pairs' if is_ever_paired else ''}; "
                f"choose a multiple of {parts}"
            )

    def slices(self, batch_size: int) -> list[slice]:
        """Rows of the global batch, one slice a micro-batch."""
        size = batch_size // (self.num_processes * self.num_micro_batches)
        first = self.rank * size * self.num_micro_batches
        return [slice(first + i * size, first + (i + 1) * size) for i in range(self.num_micro_batches)]


@dataclass(frozen=True)
class StepShare:
    """What one process reads for one step, and what it found bad on the way."""

    step: int
    batches: list[Batch]
    bad: list[BadSample]

    @property
    def num_tried(self) -> int:
        """Rows that were read, good and bad."""
        return sum(len(batch) for batch in self.batches) + len(self.bad)


class _Steps(Dataset[StepShare]):
    """Steps by number."""

    def __init__(
        self, source: Source, encoder: SampleEncoder, order: BatchOrder, share: Share, pair_probability: float
    ) -> None:
        self.source, self.encoder, self.order, self.share = source, encoder, order, share
        self.pair_probability = pair_probability

    def __getitem__(self, step: int) -> StepShare:
        rows, batches = self.order.rows(step), []
        bad: list[BadSample] = []
        is_paired = is_paired_step(self.order.seed, step, self.pair_probability)
        for part in self.share.slices(len(rows)):
            samples = []
            for index in rows[part]:
                sample, found = _read_or_replace(self.source, self.encoder, int(index))
                samples.append(sample)
                bad.extend(found)
            batches.append(Batch.from_samples(samples, is_paired))
        return StepShare(step, batches, bad)


class _Rows(Dataset[Sample | BadSample]):
    """Rows by number, nothing replaced."""

    def __init__(self, source: Source, encoder: SampleEncoder) -> None:
        self.source, self.encoder = source, encoder

    def __getitem__(self, index: int) -> Sample | BadSample:
        return _read(self.source, self.encoder, index)


def training_steps(
    source: Source,
    encoder: SampleEncoder,
    order: BatchOrder,
    share: Share,
    steps: range,
    pair_probability: float = 0.0,
    num_workers: int = 0,
) -> Generator[StepShare, None, None]:
    """This process's share of each of `steps`, in order.

    Args:
        pair_probability: how often a step's rows (2i, 2i + 1) are joined; one coin a step.

    Raises:
        ConfigError: the batch cannot be cut so; DataError: a long run of rows that are all bad.
    """
    share.check(order.batch_size, pair_probability > 0)
    dataset = _Steps(source, encoder, order, share, pair_probability)
    loader = DataLoader(
        dataset, batch_size=None, sampler=steps, num_workers=num_workers, worker_init_fn=_outlive_signals
    )
    with _plain_loss_of_workers():
        yield from loader


def validation_batches(
    source: Source, encoder: SampleEncoder, rows: Sequence[int], batch_size: int, num_workers: int = 0
) -> Iterator[tuple[Batch | None, list[BadSample]]]:
    """Batches of so many of `rows` in order, what was bad left out; a batch with nothing good is None."""
    loader = DataLoader(
        _Rows(source, encoder),
        batch_size=batch_size,
        sampler=rows,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=_outlive_signals,
    )
    with _plain_loss_of_workers():
        for read in loader:
            samples = [item for item in read if isinstance(item, Sample)]
            bad = [item for item in read if isinstance(item, BadSample)]
            yield Batch.from_samples(samples) if samples else None, bad


@contextmanager
def _plain_loss_of_workers() -> Iterator[None]:
    """Say plainly that a loader process is gone.

    Raises:
        DataError: it is; torch raises its plain RuntimeError for that, or the connection breaks over which the process
            was handing a batch.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        is_broken = isinstance(error, ConnectionError | EOFError)
        if isinstance(error, GillError) or not (is_broken or "DataLoader worker" in str(error)):
            raise
        raise DataError(
            f"a process that reads data has ended ({error}); it may have run out of memory: lower --workers, then give "
            "the same command again, which continues from the last checkpoint"
        ) from error


def _outlive_signals(_: int) -> None:
    """Let the training process decide when to stop: a signal to the whole group must not kill its readers first.

    A reader that was told to end and is still there half a minute later ends by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_SECONDS))


def _read(source: Source, encoder: SampleEncoder, index: int) -> Sample | BadSample:
    try:
        example = source.read(index)
        return encoder.encode(example.record, example.image, example.context_images, example.conditioning_target)
    except DataError as error:
        return BadSample(*source.place(index), str(error))


def _read_or_replace(source: Source, encoder: SampleEncoder, index: int) -> tuple[Sample, Sequence[BadSample]]:
    bad: list[BadSample] = []
    for number in range(min(len(source), _MAX_REPLACEMENTS)):
        read = _read(source, encoder, (index + number) % len(source))
        if isinstance(read, Sample):
            return read, bad
        bad.append(read)
    raise DataError(f"{len(bad)} rows one after the other cannot be read; the last: {bad[-1].reason}")
