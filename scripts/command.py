"""How every program here ends: it prints what it did, or what the user can do about an error."""

import sys
from collections.abc import Callable

from gill.errors import GillError

ERROR_STATUS = 2  # as argparse


def carry_out(program: str, work: Callable[[], str]) -> int:
    """Do the work and print what it says; returns the exit status.

    Args:
        program: named before an error.
        work: does it all and tells the result in a line; a `GillError` of it, or the system's own error, is printed
            instead.
    """
    try:
        print(work())
    except (GillError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return ERROR_STATUS
    return 0
