"""Background servers: started, recorded, found again, and exactly those stopped. Real processes throughout."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipelines import local_stack, services
from pipelines.services import ServiceRecord
from tasks.errors import ServiceError
from tasks.settings import Settings

# A server whose child ignores SIGTERM, as a draining worker does.
STUBBORN = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
process.stdout.readline()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_server_is_started_found_and_stopped(settings: Settings, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    command = services.python_module("http.server", str(free_port), "--bind", "127.0.0.1")
    record = services.start("prefect", command, url=url, env={}, settings=settings)
    services.wait_until(lambda: services.answers(url) is not None, record, settings)
    assert services.running_url("prefect", settings) == url
    assert not services.port_is_free(free_port)
    assert local_stack.down(settings) == ["prefect"]
    assert not psutil.pid_exists(record.pid) or psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE
    assert services.port_is_free(free_port)
    assert services.running_url("prefect", settings) is None
    assert local_stack.down(settings) == []


def test_stopping_ends_children_that_ignore_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "TERMINATE_SECONDS", 0.5)
    record = services.start("worker", [sys.executable, "-c", STUBBORN], url="", env={}, settings=settings)
    log = services.services_folder(settings) / "worker.log"
    services.wait_until(lambda: "ready" in log.read_text(), record, settings)
    process = record.process()
    assert process is not None
    (child,) = process.children()
    assert services.stop(record, settings)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_reused_process_id_is_left_alone(settings: Settings, stranger: subprocess.Popen[bytes]) -> None:
    created = psutil.Process(stranger.pid).create_time()
    theirs = ServiceRecord(name="mlflow", pid=stranger.pid, created=created - 3600, url="http://127.0.0.1:1")
    assert theirs.process() is None
    assert replace(theirs, created=created).process() is not None
    assert not services.stop(theirs, settings)
    assert stranger.poll() is None


def test_a_server_that_dies_is_told_with_its_log(settings: Settings) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no room at the inn')"]
    record = services.start("mlflow", command, url="http://127.0.0.1:1", env={}, settings=settings)
    with pytest.raises(ServiceError, match=r"ended while starting:\n.*no room at the inn"):
        services.wait_until(lambda: False, record, settings)


def test_a_server_that_never_answers_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "START_TIMEOUT_SECONDS", 0.5)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    record = services.start("prefect", command, url="http://127.0.0.1:1", env={}, settings=settings)
    with pytest.raises(ServiceError, match="did not answer at http"):
        services.wait_until(lambda: services.answers(record.url) is not None, record, settings)
    services.stop(record, settings)


def test_a_taken_port_is_told_with_the_way_round(settings: Settings, free_port: int, tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").touch()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port))
        listener.listen()
        with pytest.raises(ServiceError, match=rf"port {free_port} .* is taken .* --prefect-port"):
            local_stack.up(settings, project_root=tmp_path, prefect_port=free_port)


def test_up_needs_a_checkout(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"no prefect\.yaml"):
        local_stack.up(settings, project_root=tmp_path)


def test_schedules_look_into_home_unless_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_stack.watched_places(settings)["GWM_FOOTAGE"] == str(settings.home_path / "footage")
    assert (settings.home_path / "footage").is_dir()
    monkeypatch.setenv("GWM_FOOTAGE", "s3://bucket/raw")
    assert local_stack.watched_places(settings)["GWM_FOOTAGE"] == "s3://bucket/raw"


def test_retraining_fits_the_machine_unless_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_only = settings.model_copy(update={"device": "cpu"})
    assert local_stack.watched_places(cpu_only)["GWM_EXPERIMENT"] == "gwm_unet_davis16"
    monkeypatch.setenv("GWM_EXPERIMENT", "debug")
    assert local_stack.watched_places(cpu_only)["GWM_EXPERIMENT"] == "debug"


def test_records_are_plain_json(settings: Settings) -> None:
    record = services.start("mlflow", [sys.executable, "-c", ""], url="u", env={}, settings=settings)
    stored = json.loads((services.services_folder(settings) / "mlflow.json").read_text())
    assert stored == {"name": "mlflow", "pid": record.pid, "created": record.created, "url": "u"}
    os.waitpid(record.pid, 0)
