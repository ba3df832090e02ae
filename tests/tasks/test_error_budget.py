from __future__ import annotations

import pytest

from tasks.error_budget import DEFAULT_PERCENT, FEWEST_JUDGED, over_budget
from tasks.errors import InputError


@pytest.mark.parametrize(
    ("ingested", "rejected", "percent", "over"),
    [
        (0, 0, 0.0, False),  # nothing was tried
        (99, 1, 1.0, False),
        (98, 2, 1.0, True),
        (9, 1, 0.0, True),
        (0, 5, 100.0, False),
        (0, 1, 50.0, True),  # asked for, so judged whatever the number
        (0, FEWEST_JUDGED - 1, None, False),
        (0, FEWEST_JUDGED, None, True),
        (5, 5, None, False),
        (4, 6, None, True),
    ],
)
def test_a_run_is_over_its_budget_above_the_percentage(
    ingested: int, rejected: int, percent: float | None, over: bool
) -> None:
    assert (over_budget(ingested, rejected, percent) is not None) is over


def test_it_says_how_much_and_what_to_do() -> None:
    told = over_budget(4, 6)
    assert told is not None
    assert told.startswith(f"6 of 10 pieces of footage were refused, 60.0 %, more than the {DEFAULT_PERCENT:g} %")
    assert "gwm rejected" in told


@pytest.mark.parametrize("percent", [-1.0, 101.0, float("nan")])
def test_a_percentage_is_from_0_to_100(percent: float) -> None:
    with pytest.raises(InputError, match="from 0 to 100"):
        over_budget(1, 1, percent)
