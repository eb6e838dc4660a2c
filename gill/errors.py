"""The errors this project raises on purpose.

Each also derives from the standard error it refines, so callers may catch either. A message says what was wanted, what
came and what to do about it.
"""

import struct
import zlib

# What `json.loads` and decoding raise for a file that is no JSON; RecursionError for one that is nested without end.
NOT_JSON = (ValueError, RecursionError)

# What Pillow raises for files that are not what they say: SyntaxError for broken PNG chunks, the others deeper down.
NOT_A_PICTURE = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


class GillError(Exception):
    """Base of everything this project raises on purpose."""


class ConfigError(GillError, ValueError):
    """A setting, preset, flag or backbone choice that cannot work."""


class ShapeError(GillError, ValueError):
    """Tensors whose shapes or lengths do not fit together."""


class DataError(GillError, ValueError):
    """A data file, row, image or stored target that cannot be used; the message names file and line."""


class MissingFileError(DataError, FileNotFoundError):
    """A file of the data that is not there."""


class CheckpointError(GillError, ValueError):
    """A weights file that is missing parts, does not fit the model, or would have to execute code to be read."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A weights file or folder that is not there."""


class TrainingError(GillError, RuntimeError):
    """A training that went wrong: a loss that is not finite, a model that did not learn what it must."""


class FetchError(GillError, OSError):
    """A picture that could not be fetched: not there, refused, too large, too slow, or no picture."""


class DistributedError(GillError, RuntimeError):
    """A process group that cannot be formed, or ranks that disagree."""


class GenerationError(GillError, ValueError):
    """A prompt or a generation option that cannot be served."""


class UnknownNameError(ConfigError, KeyError):
    """A name that no registry knows."""

    def __str__(self) -> str:
        """The plain message; KeyError would show its repr."""
        return str(self.args[0]) if self.args else ""
