"""Commands that are killed as a machine's power would end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prefect.settings import PREFECT_API_URL

from tasks.checkpoint import list_checkpoint_steps
from tasks.storage import Location
from tests.tasks.test_pool import wait_until

ROOT = Path(__file__).resolve().parents[2]


def kill_at_a_checkpoint(arguments: Sequence[str], runs: Location, log: Path) -> int:
    """Start ``gwm`` with these arguments, kill it once ``runs`` has a checkpoint, and return the step of the last one.

    It runs against the Prefect server of the tests; what it prints goes to ``log``.
    """
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}

    def steps() -> list[int]:
        return [step for run in runs.list_folders() for step in list_checkpoint_steps(run / "checkpoints")]

    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        wait_until(lambda: bool(steps()) or process.poll() is not None, seconds=240)  # on a busy machine
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, log.read_text()
    time.sleep(1)  # a server may still be writing what reached it
    return max(steps())
