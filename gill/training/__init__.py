"""Training of any family: optimiser step, loop, validation, checkpoints and the record of a run."""

from gill.training.checkpoint import Checkpoints, ModelFiles, Progress, newest_checkpoint
from gill.training.datasets import FLATLAND, DataSettings, find_table, open_source
from gill.training.flags import Command, Launch, parse_command
from gill.training.guards import FrozenWatch
from gill.training.ledger import count_flops, ledger_text
from gill.training.loop import Job, Outcome, evaluate, fit, preview
from gill.training.panels import PanelRow, draw_panel, validation_panel
from gill.training.runlog import RunLog, claim_folder, describe_environment, parameter_text
from gill.training.settings import RunSettings
from gill.training.step import build_optimizer, forward_backward, trainable, update
from gill.training.validation import Validation, Validator

__all__ = [
    "FLATLAND",
    "Checkpoints",
    "Command",
    "DataSettings",
    "FrozenWatch",
    "Job",
    "Launch",
    "ModelFiles",
    "Outcome",
    "PanelRow",
    "Progress",
    "RunLog",
    "RunSettings",
    "Validation",
    "Validator",
    "build_optimizer",
    "claim_folder",
    "count_flops",
    "describe_environment",
    "draw_panel",
    "evaluate",
    "find_table",
    "fit",
    "forward_backward",
    "ledger_text",
    "newest_checkpoint",
    "open_source",
    "parameter_text",
    "parse_command",
    "preview",
    "trainable",
    "update",
    "validation_panel",
]
