"""Progress for people: a live bar on a terminal, a line now and then in a log or a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

LINE_SECONDS = 10.0  # in logs and pipes


class ConsoleProgress:
    """Context manager; call it with (done, total, note) as often as you like, from any thread."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._last_line = time.monotonic()
        self._latest = (0, 0, "")

    def __enter__(self) -> ConsoleProgress:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=self._console)
            self._bar.start()
            self._bar_task = self._bar.add_task(self._description, total=None, note="")
        return self

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Tell that ``done`` of ``total`` units are finished."""
        self._latest = (done, total, note)
        if self._bar is not None:
            self._bar.update(self._bar_task, completed=done, total=total, note=note)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._print_line()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._latest[1]:
            self._print_line()

    def _print_line(self) -> None:
        done, total, note = self._latest
        sys.stderr.write(f"{self._description}: {done}/{total} {note}".rstrip() + "\n")
        sys.stderr.flush()
        self._last_line = time.monotonic()
