"""An ingest in a process of its own that kills itself, as ``kill -9`` would, at the n-th step of the project's code.

A step is a call of a function, its return, or a call out of the project's code (a system call, a library) and its
return: so a death can lie between any two lines that matter, on a fast machine and on a busy one. Stages that work
beside each other share the count. ``where`` keeps to the steps of some modules, such as those that make things visible.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import psutil

from tasks import ingest_worker
from tasks.decode import Frame
from tasks.footage import FootageItem
from tasks.identity import Recipe
from tasks.ingest import prepare_ingest, run_ingest
from tasks.settings import Settings

TASKS = str(Path(ingest_worker.__file__).parent) + os.sep
_LOOK_SECONDS = 0.01
MAKES_VISIBLE = ("shards", "spool", "publish", "delta_log", "ledger", "delta", "dead_letters", "storage")

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.tasks.killed_ingest_warm"])


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to ingest, and when to die. fail: clips that the machine is to blame for, this time."""

    sources: tuple[str, ...]
    dataset: str
    recipe: Recipe
    batch_videos: int = 2
    fail: tuple[str, ...] = ()
    die_at: int | None = None
    where: tuple[str, ...] = ()
    report: str | None = None
    settings: Settings = field(default_factory=lambda: Settings(ingest_actors=0))


@dataclass(frozen=True, kw_only=True)
class Started:
    """An ingest on its way. Its end is seen by its process id: that works however it ends."""

    process: ForkServerProcess
    outcome: Path

    def kill(self) -> None:
        """End it now."""
        self.process.kill()

    def wait(self) -> int:
        """Its exit code: 0 when it came to its end, 1 for an error, -9 for a death."""
        while self.process.pid is not None and _is_alive(self.process.pid):
            time.sleep(_LOOK_SECONDS)
        return int(self.outcome.read_text()) if self.outcome.exists() else -signal.SIGKILL


def start(job: Job) -> Started:
    """Begin an ingest; a few milliseconds after this its process is on its way."""
    outcome = Path(tempfile.mkdtemp(prefix="gwm-killed-")) / "outcome"
    process = _processes.Process(target=_run, args=(job, dict(os.environ), outcome), daemon=True)
    process.start()
    return Started(process=process, outcome=outcome)


def run(job: Job) -> int:
    """Ingest to the end or to the death; the exit code."""
    return start(job).wait()


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _run(job: Job, environment: dict[str, str], outcome: Path) -> None:
    os.environ.update(environment)
    ingest_worker.iterate_frames = _read_frames  # type: ignore[assignment]  # confining costs a second a process
    _fail_for(job.fail)
    steps = _Steps(job)
    threading.setprofile(steps)
    sys.setprofile(steps)
    try:
        plan = prepare_ingest(list(job.sources), job.dataset, job.recipe)
        run_ingest(plan, job.dataset, job.settings, batch_videos=job.batch_videos)
    except BaseException:
        sys.setprofile(None)
        outcome.write_text("1")
        raise
    sys.setprofile(None)
    if job.report is not None:
        Path(job.report).write_text(json.dumps(steps.num_steps))
    outcome.write_text("0")


class _Steps:
    """Counts steps, and dies at the one it was told."""

    def __init__(self, job: Job) -> None:
        self.num_steps = 0
        self._die_at = job.die_at
        self._files = tuple(f"{TASKS}{name}.py" for name in job.where) or (TASKS,)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code.co_filename.startswith(self._files):
            self.num_steps += 1
            if self.num_steps == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def _read_frames(item: FootageItem, *options: object) -> Iterator[Frame]:
    for index, path in enumerate(sorted(Path(item.uri).iterdir())):
        image = cv2.imread(str(path))
        yield Frame(index=index, time_seconds=index / 24, image=image[..., ::-1], source_name=path.name)


def _fail_for(clips: tuple[str, ...]) -> None:
    usual = ingest_worker.IngestWorker.run

    def run(self: ingest_worker.IngestWorker, video: Any) -> Any:
        if Path(video.source).name in clips:
            raise MemoryError("not enough of it, this time")
        return usual(self, video)

    ingest_worker.IngestWorker.run = run  # type: ignore[method-assign]
