"""The parts of `scripts/benchmark.py`."""

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()
