"""How far a Prefect task is, as an artifact of its flow run and on the console; and tables of what came of it.

Work calls ``progress(done, total, note)`` as often as it likes; what is sent is thinned out here.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from pipelines.console import ConsoleProgress

ARTIFACT_SECONDS = 5.0  # each is a request to the Prefect server


class Progress:
    """Context manager; ``key`` names the artifact: lower-case letters, digits and dashes."""

    def __init__(self, description: str, *, key: str) -> None:
        self._console, self._description, self._note = ConsoleProgress(description), description, ""
        self._artifact = cast(UUID, create_progress_artifact(0.0, key=key, description=description))
        self._last_artifact = time.monotonic()
        # Training reports from a thread, which would not know which Prefect server this task belongs to.
        self._context = contextvars.copy_context()

    def __enter__(self) -> Progress:
        self._console.__enter__()
        return self

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Tell that ``done`` of ``total`` units are finished; the note is read beside the bar, here and in Prefect."""
        self._console(done, total, note)
        self._note = note
        if time.monotonic() - self._last_artifact >= ARTIFACT_SECONDS:
            self._last_artifact = time.monotonic()
            self._send(100.0 * done / max(total, 1))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._console.__exit__(kind, error, trace)
        if kind is None:
            self._send(100.0)

    def _send(self, percent: float) -> None:
        description = f"{self._description}: {self._note}" if self._note else self._description
        self._context.copy().run(update_progress_artifact, self._artifact, progress=percent, description=description)


def publish_table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """Leave a table with the flow run: what was done, skipped or rejected, and why."""
    create_table_artifact([dict(row) for row in rows], key=key, description=description)
