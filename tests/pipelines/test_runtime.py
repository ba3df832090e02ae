"""Environment, settings, progress and retries: what every flow stands on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect import flow, task

from pipelines import console, services
from pipelines.console import ConsoleProgress
from pipelines.retries import NOT_FOR_BAD_INPUT
from pipelines.runtime import environment_defaults, load_settings, prepare_environment, project_version
from tasks.devices import own_device
from tasks.errors import ConfigError, StorageError
from tasks.settings import Settings
from tests.architecture import ROOT

ATTEMPTS: list[str] = []


@task(retries=2, retry_delay_seconds=0, **NOT_FOR_BAD_INPUT)
def fails(error: str) -> None:
    ATTEMPTS.append(error)
    raise {"storage": StorageError("the bucket is away"), "config": ConfigError("misspelt")}[error]


@flow
def failing(error: str) -> None:
    fails(error)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("error", "kind", "attempts"), [("storage", StorageError, 3), ("config", ConfigError, 1)])
def test_only_what_may_pass_is_tried_again(error: str, kind: type[Exception], attempts: int) -> None:
    ATTEMPTS.clear()
    with pytest.raises(kind):
        failing(error)
    assert len(ATTEMPTS) == attempts


def test_what_is_set_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "mine")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    prepare_environment(Settings(home=tmp_path))
    assert os.environ["PREFECT_HOME"] == "mine"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_debug_shows_prefects_log(tmp_path: Path) -> None:
    level = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
    assert level in environment_defaults(Settings(home=tmp_path))
    assert level not in environment_defaults(Settings(home=tmp_path), debug=True)


def test_a_server_that_is_up_is_used(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert "PREFECT_API_URL" not in environment_defaults(settings)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    record = services.start("prefect", command, url="http://127.0.0.1:1/api", env={}, settings=settings)
    assert environment_defaults(settings)["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    services.stop(record, settings)
    assert not psutil.pid_exists(record.pid)
    assert "PREFECT_API_URL" not in environment_defaults(settings)


def test_preparing_imports_nothing_that_reads_the_environment() -> None:
    code = """
import sys
from pipelines.runtime import load_settings, prepare_environment
prepare_environment(load_settings())
assert not {"prefect", "ray", "mlflow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_settings_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "many")
    with pytest.raises(ConfigError, match="GWM_TRAIN_WORKERS='many'"):
        load_settings()


def test_the_version_is_that_of_the_project() -> None:
    assert f'version = "{project_version()}"' in (ROOT / "pyproject.toml").read_text()


def test_a_gpu_that_is_demanded_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert own_device(Settings(device="auto")) == "cpu"
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        own_device(Settings(device="cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert own_device(Settings(device="auto")) == "cuda"
    assert own_device(Settings(device="cpu")) == "cpu"


def test_pipes_get_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.05)
    with ConsoleProgress("ingest") as progress:
        for done in range(1, 41):
            progress(done, 40, f"clip {done}")
            time.sleep(0.005)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "ingest: 40/40 clip 40"
    assert 2 <= len(lines) <= 10
