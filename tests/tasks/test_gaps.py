"""Frame gaps as they are written on the command line."""

from __future__ import annotations

import pytest

from tasks.errors import InputError
from tasks.gaps import parse_gaps


@pytest.mark.parametrize(
    ("text", "gaps"), [("davis", (1, -1, 2, -2)), ("fbms", (3, -3, 6, -6)), ("1,-1", (1, -1)), ("5", (5,))]
)
def test_presets_and_lists_are_read(text: str, gaps: tuple[int, ...]) -> None:
    assert parse_gaps(text) == gaps


@pytest.mark.parametrize("text", ["", "kinetics", "1,0", "1,1", "1,x", "1.5"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected davis, segtrack, fbms"):
        parse_gaps(text)
