"""Scores of a model as it is and after adaptation to each sequence, side by side (GWM, Table 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.storage import location


def beside_adapted(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in which every score has its counterpart after adaptation in the next column.

    A score is what is a number with a fraction, or missing; the rows of both are of the same things in the same order.
    """
    rows = []
    for first, second in zip(before, after, strict=True):
        row: dict[str, Any] = {}
        for column, value in first.items():
            row[column] = value
            if value is None or isinstance(value, float):
                row[f"{column}, adapted"] = second[column]
        rows.append(row)
    return rows


def join_reports(file: str, adapted_file: str, adaptations: Mapping[str, Any]) -> None:
    """Put the report in ``adapted_file`` into the one in ``file``, under ``adapted``, and remove it.

    adaptations: what adaptation did to the model, by sequence.
    """
    place, other = location(file), location(adapted_file)
    adapted = {**json.loads(other.read_bytes()), "adaptation": dict(adaptations)}
    place.write_bytes(json.dumps({**json.loads(place.read_bytes()), "adapted": adapted}, indent=1).encode())
    other.delete()
