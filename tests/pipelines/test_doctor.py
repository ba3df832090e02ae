"""What the doctor finds: on this machine, and where something is wrong."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from pipelines import doctor
from pipelines.cli import app
from tasks.optical_flow import DEFAULT_WEIGHTS
from tasks.settings import Settings
from tasks.storage import Location, location


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_nothing_is_broken_where_the_tests_run(settings: Settings) -> None:
    findings = doctor.examine(settings, offline=True)
    assert [finding for finding in findings if finding.status == "fail"] == []
    assert {finding.area for finding in findings} == {
        *("python", "packages", "accelerators", "machine", "video", "weights", "storage", "ports")
    }


def test_a_place_that_can_not_be_written_is_broken(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    findings = doctor.examine(settings, places=(str(tmp_path / "file"),), offline=True)
    (broken,) = [finding for finding in findings if finding.status == "fail"]
    assert broken.area == "storage"
    assert "is not writable" in broken.detail


def test_an_object_store_is_written_to_and_raced_for(settings: Settings, s3_root: str) -> None:
    settings = settings.model_copy(update={"mlflow_artifacts_uri": f"{s3_root}/mlflow"})
    findings = doctor.examine(settings, places=(s3_root,), offline=True)
    assert [(found.name, found.status) for found in findings if found.area == "storage"] == [
        *(("home", "ok"), ("runs", "ok"), ("given", "ok"), ("artifacts", "ok"), ("given, commits", "ok"))
    ]
    assert location(s3_root).list() == ()


def test_a_store_that_is_set_up_wrong_is_told_by_name(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    (broken,) = [
        finding
        for finding in doctor.examine(settings, places=("s3://bucket/data",), offline=True)
        if finding.status == "fail"
    ]
    assert "AWS_ENDPOINT_URL" in broken.detail


def test_a_store_that_loses_commits_is_told(settings: Settings, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def looks_too_early(place: Location, data: bytes) -> bool:
        was_there = place.exists()
        time.sleep(0.2)
        place.write_bytes(data)
        return not was_there

    monkeypatch.setattr(Location, "write_new", looks_too_early)
    (broken,) = [
        finding for finding in doctor.examine(settings, places=(s3_root,), offline=True) if finding.status == "fail"
    ]
    assert "writers at once were told that they are first" in broken.detail


@pytest.mark.parametrize(
    ("requirement", "status", "detail"),
    [
        ("numpy>=2", "ok", ""),
        ("numpy<1", "fail", "needs <1: run make setup"),
        ("no-such-package-at-all", "fail", "missing"),
    ],
)
def test_packages_are_held_to_what_is_required(requirement: str, status: str, detail: str) -> None:
    finding = doctor._package(Requirement(requirement))
    assert finding.status == status
    assert detail in finding.detail


def test_weights_that_are_cached_need_no_network(tmp_path: Path) -> None:
    file, url = tmp_path / "weights.pth", "http://127.0.0.1:1/weights.pth"
    offline = doctor._weights_file("raft", file, url, True, "--estimator dis")
    assert (offline.status, offline.detail) == (
        "warn",
        f"not looked for (--offline); put the file at {file} or use --estimator dis",
    )
    assert "not reachable" in doctor._weights_file("raft", file, url, False, "--estimator dis").detail
    file.touch()
    assert doctor._weights_file("raft", file, url, True, "--estimator dis").status == "ok"


def test_every_weights_file_that_defaults_ask_for_is_looked_for(settings: Settings) -> None:
    found = {finding.name for finding in doctor.examine(settings, offline=True) if finding.area == "weights"}
    assert found >= {"dis", "dino-vit-b8-timm", *DEFAULT_WEIGHTS.values()}


def test_a_taken_port_is_a_warning(settings: Settings) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        finding = doctor._port(settings, "mlflow", listener.getsockname()[1])
    assert finding.status == "warn"
    assert "--mlflow-port" in finding.detail


def test_the_command_fails_when_something_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert CliRunner().invoke(app, ["doctor", "--offline"]).exit_code == 0
    result = CliRunner().invoke(app, ["doctor", "--offline", "--place", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "1 broken" in result.output
