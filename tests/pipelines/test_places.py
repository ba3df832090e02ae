"""Where results go, and under which name, is tried before the work; the demo keeps to its own folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines import demo
from pipelines.evaluate import require_writable
from pipelines.train import require_model_name
from tasks.errors import ConfigError, StorageError


def test_places_for_scores_are_made_and_left_empty(tmp_path: Path) -> None:
    require_writable(None, None)
    require_writable(str(tmp_path / "a" / "scores.json"), str(tmp_path / "report"))
    assert list((tmp_path / "a").iterdir()) == list((tmp_path / "report").iterdir()) == []


def test_places_that_can_not_take_the_scores_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="name a file"):
        require_writable(str(tmp_path), None)
    with pytest.raises(StorageError, match="is not writable"):
        require_writable(str(tmp_path / "file" / "scores.json"), None)
    with pytest.raises(StorageError, match="is not writable"):
        require_writable(None, str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["", " ", "site/birds", "models:/birds", "bird's"])
def test_names_that_the_registry_would_refuse_are_told(name: str) -> None:
    with pytest.raises(ConfigError, match="expected letters"):
        require_model_name(name)


def test_usual_names_are_taken() -> None:
    for name in (None, "birds", "site-7_birds.v2", "v"):
        require_model_name(name)


def test_the_demo_stays_at_home_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dict(os.environ).items():  # so that all of it is put back afterwards
        monkeypatch.setenv(name, value)
    for name in demo.ELSEWHERE:
        monkeypatch.setenv(name, "http://elsewhere:1")
    settings = demo.at_home_in(tmp_path)
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"
    assert settings.runs_root == str(tmp_path / "home" / "runs")
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "home" / "prefect")
    assert "PREFECT_API_URL" not in os.environ
