"""A table of the paper as a flow: rows that run, rows that are read, rows that fail, and what is left for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipelines.ablate import ablate_gwm
from pipelines.cli import app
from pipelines.commands.ablate import pairs
from tasks.errors import AblationError, ConfigError
from tasks.storage import location
from tests.pipelines.killed import kill_at_a_checkpoint
from tests.tasks.training_data import write_dataset

STEPS = ["optimisation.num_steps=4"]


@pytest.mark.usefixtures("prefect_server")
def test_rows_are_run_once_and_a_failed_one_does_not_lose_the_others(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "0")
    monkeypatch.setenv("GWM_RAY_CPUS", "1")
    common: dict[str, Any] = {
        "root": str(rendered),
        "dataset": write_dataset(tmp_path / "dataset", num_frames=(5, 4)),
        "benchmark": "rendered",
        "experiment": "debug",
        "overrides": STEPS,
        "out": str(tmp_path / "tables"),
    }
    with pytest.raises(AblationError, match="1 of 2 rows failed: arflow") as failure:
        ablate_gwm("flow-sources", rows=["dis", "arflow"], **common)
    dis, arflow = failure.value.table
    assert dis["outcome"] == "done"
    assert arflow["outcome"].startswith("failed: ")
    assert "holds optical flow by dis, expected arflow" in arflow["outcome"]
    assert arflow["J label-free"] is None

    # K=3 with these settings is the training that the row dis was: read, not run.
    result = ablate_gwm("segments", rows=["k2", "k3"], json_file=str(tmp_path / "copy.json"), **common)
    assert [row["outcome"] for row in result["rows"]] == ["done", "reused"]
    assert result["rows"][1]["J label-free"] == dis["J label-free"]
    assert [row["J paper"] for row in result["rows"]] == [None, None]  # nothing is published on rendered footage
    for row in result["rows"]:
        assert 0 <= row["J label-free"] <= row["J oracle per clip"] <= row["J oracle per frame"] <= 1

    document = json.loads((tmp_path / "copy.json").read_text())
    assert document == json.loads(Path(result["json"]).read_text())
    assert [row["overrides"][-1] for row in document["rows"]] == ["method.num_segments=2", "method.num_segments=3"]
    rows, _, rules = Path(result["markdown"]).read_text().partition("### Rules for the foreground")
    assert rows.count("\n| K=") == 2
    assert rules.count("\n| K=") == 2 * 2  # rows, sequences
    assert Path(result["page"]).read_text().startswith("<!")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_row_that_was_killed_goes_on_by_the_same_command(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GWM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GWM_TRAIN_WORKERS", "0")
    monkeypatch.setenv("GWM_TRAIN_THREADS", "1")
    monkeypatch.setenv("GWM_RAY_CPUS", "1")
    dataset = write_dataset(tmp_path / "dataset", num_frames=(5, 4))
    runs, out = tmp_path / "home/runs", tmp_path / "out"
    arguments = ["ablate", "segments", "--rows", "k2", "--base", "debug", "--benchmark", "rendered", "--out", str(out)]
    arguments += ["--root", str(rendered), "--dataset", dataset, "--set", "optimisation.num_steps=120"]
    arguments += ["--set", "recording.checkpoint_every_steps=4", "--set", "recording.num_checkpoints_kept=40"]

    killed_at = kill_at_a_checkpoint(arguments, location(runs), tmp_path / "killed.log")
    assert 4 <= killed_at < 120
    assert not (out / "segments-rendered.json").exists()

    continued = CliRunner().invoke(app, arguments)
    assert continued.exit_code == 0, continued.output
    (result,) = [json.loads(file.read_text()) for file in runs.glob("*/result.json")]
    assert (result["resumed_from_step"], result["step"]) == (killed_at, 120)
    (row,) = json.loads((out / "segments-rendered.json").read_text())["rows"]
    assert row["status"] == "done"
    assert 0 <= row["J"]["label-free"] <= 1


@pytest.mark.usefixtures("prefect_server")
def test_what_a_table_varies_can_not_be_fixed(rendered: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"table segments varies method.motion_model, method.num_segments itself"):
        ablate_gwm(
            "segments", str(rendered), benchmark="rendered", out=str(tmp_path), overrides=["method.num_segments=3"]
        )


def test_datasets_by_estimator_are_told_apart() -> None:
    assert pairs(["arflow=./a", "raft-large=s3://b/c=d"]) == {"arflow": "./a", "raft-large": "s3://b/c=d"}
    with pytest.raises(typer.BadParameter, match="expected ESTIMATOR=URI"):
        pairs(["arflow"])
