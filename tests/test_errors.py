"""Every error of ours is also the standard error it refines."""

import pytest

from gill import errors
from gill.errors import GillError, UnknownNameError

OURS = [value for value in vars(errors).values() if isinstance(value, type) and value is not GillError]


@pytest.mark.parametrize("error", OURS)
def test_each_refines_a_standard_error(error: type[Exception]) -> None:
    assert issubclass(error, GillError)
    assert [base for base in error.__mro__ if base.__module__ == "builtins"][:-3] != []


def test_an_unknown_name_reads_plainly() -> None:
    assert str(UnknownNameError("no such 'thing'")) == "no such 'thing'"
