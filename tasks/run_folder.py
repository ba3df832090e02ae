"""The folder of a training run: the only memory that survives a killed driver, and how its processes talk.

::

    <runs>/<training id>/
        training.json        what is being trained; written once, compared ever after
        owner.json           which attempt may write; an older one stops when it sees another name here
        progress.json        where training is, for whoever watches
        failure.json         why an attempt ended
        checkpoints/         tasks/checkpoint.py
        candidates/          models along the way that the last one is compared with, where the experiment asks for it
        candidates.json      what the comparison found
        model/               the finished model, tasks/model_package.py
        result.json          what came out; written last, so its presence says that all is done
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from tasks import errors
from tasks.errors import ConfigError, GwmError, StorageError, TrainingError
from tasks.storage import Location


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Where a training run is.

    eta_seconds: until the last step, at the pace of this attempt.
    worker_pid: process of rank 0, 0 when unknown. note: what is done now that the steps are done.
    """

    step: int
    num_steps: int
    loss: float
    steps_per_second: float
    eta_seconds: float
    worker_pid: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Names and small files of one run."""

    root: Location

    @property
    def checkpoints(self) -> Location:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def candidates(self) -> Location:
        """Folder of the models that the finished one is chosen among."""
        return self.root / "candidates"

    def candidate(self, step: int) -> Location:
        """Folder of the candidate after ``step`` updates."""
        return self.candidates / f"step-{step:06d}"

    @property
    def model(self) -> Location:
        """Folder of the finished model."""
        return self.root / "model"

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the content of ``<name>.json``, None when it is absent."""
        file = self.root / f"{name}.json"
        if not file.exists():
            return None
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise StorageError(f"{file.uri} is damaged: expected a JSON object; delete it and run again")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write ``<name>.json`` whole."""
        (self.root / f"{name}.json").write_bytes(json.dumps(content, indent=2).encode())

    def agree(self, description: dict[str, Any]) -> None:
        """Record what is trained here, or raise ConfigError when something else was begun under the same id."""
        begun = self.read("training")
        if begun is None:
            self.write("training", description)
            return
        changed = [
            f"{key} was {_get(begun, key)!r}, now {_get(description, key)!r}"
            for key in sorted(_leaves(begun) | _leaves(description))
            if _get(begun, key) != _get(description, key)
        ]
        if changed:
            raise ConfigError(
                f"training {self.root.name!r} was begun otherwise: {'; '.join(changed[:5])}. "
                "Give another training id, or the same settings to continue it"
            )

    def claim(self, attempt: str) -> None:
        """Make ``attempt`` the only one that may write from now on."""
        self.write("owner", {"attempt": attempt})

    def require_owner(self, attempt: str) -> None:
        """Raise TrainingError when another attempt has taken over, so that two never write side by side."""
        owner = (self.read("owner") or {}).get("attempt")
        if owner != attempt:
            raise TrainingError(
                f"training {self.root.name!r} was taken over by another process: this one stops. "
                "Start a training once, or give each its own training id"
            )

    def record_failure(self, attempt: str, error: GwmError) -> None:
        """Say why this attempt ends, for the driver."""
        self.write("failure", {"attempt": attempt, "error": type(error).__name__, "message": str(error)})

    def failure_of(self, attempt: str) -> GwmError | None:
        """Return the error that ended this attempt, None when there is none."""
        failure = self.read("failure")
        if failure is None or failure["attempt"] != attempt:
            return None
        kind = getattr(errors, failure["error"], TrainingError)
        return kind(failure["message"]) if kind is not errors.FootageError else TrainingError(failure["message"])

    def write_progress(self, progress: TrainingProgress) -> None:
        """Replace ``progress.json``."""
        self.write("progress", asdict(progress))

    def read_progress(self) -> TrainingProgress | None:
        """Return where training is, None before the first report."""
        content = self.read("progress")
        return TrainingProgress(**content) if content else None


class ProgressWatcher:
    """Calls back with the progress that worker processes write, from a thread, while the block lasts."""

    def __init__(
        self, run: RunFolder, on_progress: Callable[[TrainingProgress], None] | None, *, every_seconds: float = 1.0
    ) -> None:
        self._run = run
        self._on_progress = on_progress
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._seen: TrainingProgress | None = None
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> ProgressWatcher:
        if self._on_progress is not None:
            self._seen = self._run.read_progress()  # an earlier attempt's
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self._look()

    def _look(self) -> None:
        progress = None
        with suppress(StorageError):  # a store that does not answer costs a tick of the bar, no more
            progress = self._run.read_progress()
        if progress is not None and progress != self._seen and self._on_progress is not None:
            self._seen = progress
            self._on_progress(progress)


def _leaves(tree: dict[str, Any], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in tree.items():
        keys |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
    return keys


def _get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
