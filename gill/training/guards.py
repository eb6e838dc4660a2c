"""What stops a run before it does harm: a batch that is named, and frozen weights that have moved."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gill.distributed import gather_objects
from gill.errors import TrainingError
from gill.parameters import frozen_checksums
from gill.types import Batch

_NUM_NAMED = 4


def name_pairs(batches: Sequence[Batch]) -> str:
    """File and line of the pairs of a step, over all processes; each process must call it.

    The first few and their number; neighbours of one file are named together.
    """
    own = [f"{record.source}:{record.line}" for batch in batches for record in batch.records]
    places = [place for part in gather_objects(own) for place in part]
    return ", ".join(places[:_NUM_NAMED]) + (f" and {len(places) - _NUM_NAMED} more" * (len(places) > _NUM_NAMED))


class FrozenWatch:
    """Compares what must not change with what it was.

    Args:
        model: its frozen parameters and buffers are summed up now, and at every check.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self._before = model, frozen_checksums(model)

    def check(self, step: int) -> None:
        """Compare.

        Raises:
            TrainingError: something has changed; the message names it.
        """
        now = frozen_checksums(self.model)
        moved = [name for name, before in self._before.items() if now.get(name) != before]
        if moved:
            raise TrainingError(
                f"step {step}: {len(moved)} frozen tensors have changed, the first is {moved[0]}; nothing may write to "
                "them. Go back to a checkpoint from before, and look for an optimiser or a hook that touches them"
            )
