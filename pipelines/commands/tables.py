"""Rows of plain values as a table on the terminal, as tab-separated lines in a pipe; whole values as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.errors import printable


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
        table.add_row(*(Text(_text(row[column])) for column in columns))  # Text: a name may look like markup
    Console().print(table)


def print_json(value: Any) -> None:
    """Print a dataclass, or plain values, as JSON; times as ISO 8601."""
    print(json.dumps(value, indent=2, default=_plain))  # noqa: T201


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return value.model_dump(mode="json")  # pydantic: recipes


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value))
