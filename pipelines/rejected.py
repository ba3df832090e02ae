"""What ``gwm rejected`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tasks.catalog import dataset_exists
from tasks.dead_letters import parse_reasons, read_rejected
from tasks.errors import DatasetError


def describe_rejected(uri: str, reasons: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return a row per dead letter of a dataset, newest first, of these reasons only if any are given.

    Raises InputError for a reason that is not of the closed list, DatasetError when there is no dataset.
    """
    wanted = parse_reasons(reasons or ("all",))
    letters = read_rejected(uri)
    if not letters and not dataset_exists(uri):
        raise DatasetError(f"no dataset at {uri}: create it with gwm ingest")
    return [
        {
            "id": letter.video_id,
            "source": letter.source,
            "stage": letter.stage,
            "reason": letter.reason,
            "attempts": letter.attempts,
            "first_seen": letter.first_seen.isoformat(timespec="seconds"),
            "last_seen": letter.last_seen.isoformat(timespec="seconds"),
            "detail": letter.detail,
        }
        for letter in letters
        if letter.reason in wanted
    ]


def count_reasons(rows: Sequence[dict[str, Any]]) -> str:
    """Say how many rows of ``describe_rejected`` there are of each reason, the most frequent first."""
    return ", ".join(f"{number} {reason}" for reason, number in Counter(row["reason"] for row in rows).most_common())
