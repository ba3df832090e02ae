"""What a training run tells: windows of averaged numbers to the curves, progress to whoever watches, pictures."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from tasks.config import ExperimentConfig
from tasks.errors import StorageError
from tasks.pictures import Picture
from tasks.run_folder import TrainingProgress
from tasks.tracking import Outbox, TrackedRun
from tasks.train_step import SkipCounter, StepOutcome

logger = logging.getLogger(__name__)


class Recorder:
    """Averages the steps of a logging window and passes them on; silent on all workers but rank 0.

    tracked: the MLflow run; None on other workers.
    state: ``to_json`` of the checkpoint that training continues from.
    """

    def __init__(
        self,
        *,
        experiment: ExperimentConfig,
        start_step: int,
        state: Mapping[str, Any] | None,
        tracked: TrackedRun | None,
        on_progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        state = state or {}
        self._every = experiment.recording.log_every_steps
        self._num_steps = experiment.optimisation.num_steps
        self._start_step = start_step
        self._tracked = tracked
        self._on_progress = on_progress
        self._sums: dict[str, float] = dict(state.get("window_sums", {}))
        self._count: int = state.get("window_count", 0)
        self._latest: dict[str, float] = dict(state.get("latest", {}))
        self._outbox = Outbox.from_json(state.get("outbox", []))
        self._started = time.monotonic()

    def add(self, outcome: StepOutcome, skips: SkipCounter) -> None:
        """Take note of a step; at the end of a window put its means into the outbox and report progress."""
        if not outcome.skipped:
            self._count += 1
            for key, value in _averaged_values(outcome).items():
                self._sums[key] = self._sums.get(key, 0.0) + value
        done = outcome.step + 1
        if done % self._every == 0 or done == self._num_steps:
            self._close_window(done, outcome, skips)

    def deliver(self) -> None:
        """Send the curves that a published checkpoint covers."""
        if self._tracked is not None:
            self._outbox.deliver(self._tracked)

    def log_picture(self, name: str, picture: Picture) -> None:
        """Store a picture with the run; a store that does not answer costs the picture, not the training."""
        if self._tracked is None:
            return
        try:
            self._tracked.log_picture(name, picture)
        except StorageError as error:
            logger.warning("no picture at %s: %s", name, error)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the checkpoint."""
        return {
            "window_sums": self._sums,
            "window_count": self._count,
            "latest": self._latest,
            "outbox": self._outbox.to_json(),
        }

    def _close_window(self, done: int, outcome: StepOutcome, skips: SkipCounter) -> None:
        if self._count:
            self._latest = {key: value / self._count for key, value in self._sums.items()}
        self._sums, self._count = {}, 0
        self._latest["train/skipped_steps"] = float(skips.total)
        if self._tracked is None:
            return
        pace = (done - self._start_step) / max(time.monotonic() - self._started, 1e-9)
        also = {"train/learning_rate": outcome.learning_rate, "train/steps_per_second": pace}
        self._outbox.add(done, {**self._latest, **also})
        if self._on_progress is not None:
            self._on_progress(
                TrainingProgress(
                    step=done,
                    num_steps=self._num_steps,
                    loss=self._latest.get("train/loss", math.nan),
                    steps_per_second=pace,
                    eta_seconds=(self._num_steps - done) / pace,
                    worker_pid=os.getpid(),
                )
            )


def _averaged_values(outcome: StepOutcome) -> dict[str, float]:
    parts = {f"train/{name}": value for name, value in outcome.parts.items()}
    return {"train/loss": outcome.loss, **parts, "train/gradient_norm": outcome.gradient_norm}
