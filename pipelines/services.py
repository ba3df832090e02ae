"""The local servers of ``gwm up``: Prefect's server and worker and MLflow's server, all on loopback.

Each one leaves a record (process id, start time, address) under ``GWM_HOME/services``; ``gwm down`` ends
exactly those processes and their children. A record whose process is gone, or whose id now belongs to another
process, is only forgotten.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tasks.errors import ServiceError
from tasks.settings import Settings

LOOPBACK = "127.0.0.1"
WORK_POOL = "local-process"
START_TIMEOUT_SECONDS = 120.0  # a fresh Prefect database takes 8 s on a free machine, a minute on a busy one
TERMINATE_SECONDS = 10.0  # a Prefect worker drains on SIGTERM and may not end by itself


@dataclass(frozen=True, kw_only=True)
class ServiceRecord:
    """One started server: who it is, so that nobody else is ever stopped, and where it answers."""

    name: str
    pid: int
    created: float  # seconds since the epoch, from the operating system: tells a reused process id
    url: str

    def process(self) -> psutil.Process | None:
        """Return the running process, or None when it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def services_folder(settings: Settings) -> Path:
    """Return the folder of records and logs."""
    folder = settings.home_path / "services"
    folder.mkdir(exist_ok=True)
    return folder


def records(settings: Settings) -> dict[str, ServiceRecord]:
    """Return the recorded services by name, running or not."""
    paths = sorted(services_folder(settings).glob("*.json"))
    return {path.stem: ServiceRecord(**json.loads(path.read_text())) for path in paths}


def running_url(name: str, settings: Settings) -> str | None:
    """Return the address of a service that ``start`` left running, or None."""
    record = records(settings).get(name)
    return record.url if record and record.process() else None


def start(name: str, command: Sequence[str], *, url: str, env: Mapping[str, str], settings: Settings) -> ServiceRecord:
    """Start a server in the background with its output in ``services/NAME.log``, and record it."""
    folder = services_folder(settings)
    # Not subprocess.Popen: the server outlives this process on purpose, and Popen objects warn about that.
    pid = os.posix_spawn(
        command[0],
        list(command),
        {**os.environ, **env},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(folder / f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    record = ServiceRecord(name=name, pid=pid, created=psutil.Process(pid).create_time(), url=url)
    temporary = folder / f"{name}.{pid}.tmp"
    temporary.write_text(json.dumps(asdict(record)))
    temporary.replace(folder / f"{name}.json")
    return record


def stop(record: ServiceRecord, settings: Settings) -> bool:
    """End one service and its children: terminate, wait, kill. Return whether it was running."""
    process = record.process()
    if process is not None:
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=TERMINATE_SECONDS)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive, timeout=TERMINATE_SECONDS)
    (services_folder(settings) / f"{record.name}.json").unlink(missing_ok=True)
    return process is not None


def wait_until(ready: Callable[[], bool], record: ServiceRecord, settings: Settings) -> None:
    """Wait for a started service; raises ServiceError with its log's end when it ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if ready():
            return
        if record.process() is None:
            raise ServiceError(f"{record.name} ended while starting:\n{_log_tail(record.name, settings)}")
        time.sleep(0.3)
    raise ServiceError(
        f"{record.name} did not answer at {record.url} within {START_TIMEOUT_SECONDS:.0f} s:\n"
        f"{_log_tail(record.name, settings)}"
    )


def answers(url: str, body: bytes | None = None) -> bytes | None:
    """Return what an HTTP address answers with status 200, or None. Loopback only: proxies are passed by."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=5) as response:
            return response.read() if response.status == 200 else None
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def python_module(*arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", *arguments]


def _log_tail(name: str, settings: Settings, num_lines: int = 15) -> str:
    path = services_folder(settings) / f"{name}.log"
    return "\n".join(path.read_text(errors="replace").splitlines()[-num_lines:]) if path.exists() else "(no log)"
