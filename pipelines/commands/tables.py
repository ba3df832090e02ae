"""Rows of plain values as a table on the terminal, as tab-separated lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Print rows that share their keys; nothing when there are none."""
    if not rows:
        return
    columns = list(rows[0])
    if not sys.stdout.isatty():
        print("\t".join(columns))  # noqa: T201 - this is what the command is for
        for row in rows:
            print("\t".join(_text(row[column]) for column in columns))  # noqa: T201
        return
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    Console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
