"""Let torchvision's wheel from the package index import beside a CPU-only torch.

That wheel is built for CUDA. Beside a CPU-only torch its compiled library cannot load, the operators declared in it do
not exist, and `import torchvision` fails when it attaches shape functions to two of them, although nothing that we use
(transforms, grids of pictures) needs compiled code. transformers and open_clip then fail too: they look for an
installed torchvision, and a broken one is worse than none. Declaring the two operators first is enough.

Call it before the first import of transformers, diffusers, open_clip or torchvision: in the `__init__.py` of each room
that needs one of them, and at the top of programs that import them directly. It does nothing where torchvision imports
by itself. Not mended: `torchvision.ops.nms` and reading files with `torchvision.io`.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.library import Library

_MISSING_OPS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Library] = []  # torch forgets a declaration when its Library is collected


def define_missing_torchvision_ops() -> bool:
    """Make `import torchvision` work; may be called any number of times.

    Returns:
        Whether operators had to be declared. False where torchvision imports by itself, or is not installed.

    Raises:
        RuntimeError: torchvision is broken in some other way.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        return False  # transformers works without torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        _forget_half_imported()
        _declare_ops()
        importlib.import_module("torchvision")
        return True
    return False


def _forget_half_imported() -> None:
    """Drop what the failed import left behind, so that the next one starts afresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_ops() -> None:
    """Give the missing operators a signature and no implementation: calling one says so."""
    from torch.library import Library  # only here: the package must import where torch is not installed

    library = Library("torchvision", "DEF")
    for name in _MISSING_OPS:
        library.define(name + _SIGNATURE)
    _declared.append(library)
