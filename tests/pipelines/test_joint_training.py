"""Training on several datasets from the command line and the flow: which datasets and versions reach the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines import train as train_flow
from pipelines.cli import app
from tasks.errors import ConfigError, DatasetError
from tasks.train import TrainingResult
from tests.tasks.training_data import write_dataset


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the flow is called with from the command line."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(train_flow, "train_gwm", lambda **given: calls.append(given) or {"steps": 1})
    return calls


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--dataset", "a"], ("a", None, [], None)),
        (["--dataset", "a", "--version", "3"], ("a", 3, [], [])),
        (["--dataset", "a", "--dataset", "b", "--dataset", "c"], ("a", None, ["b", "c"], None)),
        (["--dataset", "a", "--dataset", "b", "--version", "3", "--version", "0"], ("a", 3, ["b"], [0])),
    ],
)
def test_datasets_and_versions_go_together(
    asked: list[dict[str, Any]], arguments: list[str], expected: tuple[Any, ...]
) -> None:
    result = CliRunner().invoke(app, ["train", "--experiment", "debug", *arguments])
    assert result.exit_code == 0, result.output
    (given,) = asked
    assert (given["dataset"], given["version"], given["joint"], given["joint_versions"]) == expected


def test_versions_of_some_datasets_only_are_refused(asked: list[dict[str, Any]]) -> None:
    arguments = ["train", "--experiment", "debug", "--dataset", "a", "--dataset", "b", "--version", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "1 versions for 2 datasets" in result.output
    assert asked == []
    with pytest.raises(ConfigError, match="2 versions for 1 datasets"):
        train_flow.paired(["a"], [1, 2])


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_pins_every_version_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (write_dataset(tmp_path / name, num_frames=(3,)) for name in ("first", "second"))
    calls: list[tuple[Any, ...]] = []

    def record(config: Any, dataset: str, version: int, settings: Any, **options: Any) -> TrainingResult:
        calls.append((dataset, version, options["joint"]))
        return TrainingResult(
            training_id="joint",
            run_id="r",
            model_uri="m",
            logged_model="l",
            num_steps=1,
            metrics={},
            dataset_uri=dataset,
            dataset_version=version,
            joint_datasets=[f"{uri} version {number}" for uri, number in options["joint"]],
        )

    monkeypatch.setattr(train_flow, "train", record)
    result = train_flow.train_gwm(first, "debug", joint=[second])
    assert calls == [(first, 0, [(second, 0)])]
    assert result["joint_datasets"] == f"{second} version 0"
    with pytest.raises(DatasetError, match="no dataset"):
        train_flow.train_gwm(first, "debug", joint=[str(tmp_path / "none")])
