"""How far a job is: on the terminal, in a log, and as a Prefect progress artifact.

Tasks call ``progress(done, total, note)`` as often as they like; what is shown is thinned out here.
"""

from __future__ import annotations

import contextvars
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

ARTIFACT_SECONDS = 5.0  # one HTTP request to the Prefect server each
LINE_SECONDS = 10.0  # in logs and pipes


class Progress:
    """Context manager that shows the progress of one Prefect task.

    ``key`` names the artifact; lower-case letters, digits and dashes.
    """

    def __init__(self, description: str, *, key: str) -> None:
        self._description = description
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        self._artifact = cast(UUID, create_progress_artifact(0.0, key=key, description=description))
        self._last_artifact = self._last_line = time.monotonic()
        self._latest = (0, 0, "")
        # Training reports from a thread, which would not know which Prefect server this task belongs to.
        self._context = contextvars.copy_context()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[note]}"),
            )
            self._bar = Bar(*columns, console=self._console)
            self._bar.start()
            self._bar_task = self._bar.add_task(self._description, total=None, note="")
        return self

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Tell that ``done`` of ``total`` units are finished."""
        self._latest = (done, total, note)
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar_task, completed=done, total=total, note=note)
        elif now - self._last_line >= LINE_SECONDS:
            self._print_line(now)
        if now - self._last_artifact >= ARTIFACT_SECONDS:
            self._update_artifact(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._latest[1]:
            self._print_line(time.monotonic())
        if kind is None:
            self._update_artifact(time.monotonic(), finished=True)

    def _print_line(self, now: float) -> None:
        done, total, note = self._latest
        sys.stderr.write(f"{self._description}: {done}/{total} {note}".rstrip() + "\n")
        sys.stderr.flush()
        self._last_line = now

    def _update_artifact(self, now: float, *, finished: bool = False) -> None:
        done, total, _ = self._latest
        percent = 100.0 if finished else 100.0 * done / max(total, 1)
        self._context.copy().run(update_progress_artifact, self._artifact, progress=percent)
        self._last_artifact = now


def publish_table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """Leave a table with the flow run: what was done, skipped or rejected, and why."""
    create_table_artifact([dict(row) for row in rows], key=key, description=description)
