"""How much of an ingest may be refused before it counts as failed."""

from __future__ import annotations

from tasks.errors import InputError

DEFAULT_PERCENT = 50.0
"""More refused than taken points at us rather than at the footage: the wrong folder, a codec that is missing, a limit
that is too tight. Crawled sets of videos with a few percent that can not be read stay far below."""

FEWEST_JUDGED = 10
"""Runs that tried less are not judged unless a percentage was asked for: one broken arrival is all of a small run."""


def over_budget(num_ingested: int, num_rejected: int, max_percent: float | None = None) -> str | None:
    """Say by how much an ingest is over its budget, None when it is not. What was skipped does not count.

    max_percent: of the footage that was tried in this run, 0 to 100; None is DEFAULT_PERCENT of at least FEWEST_JUDGED.
    """
    if max_percent is not None and not 0 <= max_percent <= 100:
        raise InputError(f"max_rejected={max_percent}: expected a percentage from 0 to 100")
    num_tried = num_ingested + num_rejected
    if num_tried == 0 or (max_percent is None and num_tried < FEWEST_JUDGED):
        return None
    allowed = DEFAULT_PERCENT if max_percent is None else max_percent
    percent = 100.0 * num_rejected / num_tried
    if percent <= allowed:
        return None
    return (
        f"{num_rejected} of {num_tried} pieces of footage were refused, {percent:.1f} %, more than the {allowed:g} % "
        "allowed; the others are in the dataset, and gwm rejected shows what was refused and why"
    )
