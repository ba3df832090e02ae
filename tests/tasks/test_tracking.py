from __future__ import annotations

import json
import logging
import socket
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import ConfigError, StorageError
from tasks.settings import Settings
from tasks.tracking import (
    MetricPoint,
    Outbox,
    TrackedRun,
    find_or_create_run,
    flatten,
    mlflow_client,
    open_run,
)
from tests.tasks.training_data import local_settings

POINTS = [
    MetricPoint(key="train/loss", value=1 / 3, step=20, timestamp_ms=1_700_000_000_000),
    MetricPoint(key="train/loss", value=0.1 + 0.2, step=40, timestamp_ms=1_700_000_001_000),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return local_settings(tmp_path_factory.mktemp("home"))


def history(settings: Settings, run: TrackedRun, key: str = "train/loss") -> list[tuple[int, float, int]]:
    points = mlflow_client(settings).get_metric_history(run.run_id, key)
    return sorted((point.step, point.value, point.timestamp) for point in points)


def test_a_training_has_one_run_however_often_it_starts(settings: Settings) -> None:
    first = find_or_create_run(settings, "one", tags={"a": 1, "gone": None}, params={"optimisation.num_steps": 5})
    first.set_status("FAILED")
    again = find_or_create_run(settings, "one", tags={"a": 2}, params={"optimisation.num_steps": 5})
    other = find_or_create_run(settings, "two", tags={}, params={})
    assert first.run_id == again.run_id != other.run_id
    run = mlflow_client(settings).get_run(first.run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"optimisation.num_steps": "5"}
    assert run.data.tags["a"] == "2"
    assert run.data.tags["gwm.training_id"] == "one"
    assert "gone" not in run.data.tags
    assert run.info.artifact_uri.startswith(settings.artifact_root)


def test_points_sent_twice_are_there_once(settings: Settings) -> None:
    run = find_or_create_run(settings, "twice", tags={}, params={})
    run.send(POINTS[:1])
    run.send(POINTS)
    run.send([*POINTS, *POINTS])
    assert history(settings, run) == [(point.step, point.value, point.timestamp_ms) for point in POINTS]


def test_more_points_than_a_request_takes(settings: Settings) -> None:
    run = find_or_create_run(settings, "many", tags={}, params={})
    run.send([MetricPoint(key="x", value=float(step), step=step, timestamp_ms=step) for step in range(2500)])
    assert [step for step, _, _ in history(settings, run, "x")] == list(range(2500))


def test_outbox_survives_json_to_the_last_bit_and_empties_on_delivery(settings: Settings) -> None:
    outbox = Outbox(points=list(POINTS))
    outbox.add(60, {"train/loss": 1e-17, "train/gradient_norm": 5.0})
    restored = Outbox.from_json(json.loads(json.dumps(outbox.to_json())))
    assert restored.points == outbox.points
    run = find_or_create_run(settings, "outbox", tags={}, params={})
    assert restored.deliver(run)
    assert restored.points == []
    assert outbox.deliver(run)  # what a killed process would have sent
    assert [(step, value) for step, value, _ in history(settings, run)] == [(20, 1 / 3), (40, 0.1 + 0.2), (60, 1e-17)]


def test_outbox_keeps_what_could_not_be_sent(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    lost = TrackedRun(mlflow_client(settings), "0" * 32)
    outbox = Outbox(points=list(POINTS))
    assert not outbox.deliver(lost)
    assert outbox.points == POINTS
    assert "curves stay in the checkpoint" in caplog.text
    with pytest.raises(StorageError, match="MLflow could not log metrics"):
        lost.send(POINTS)


def test_pictures_and_texts_replace_earlier_ones(settings: Settings, tmp_path: Path) -> None:
    run = find_or_create_run(settings, "pictures", tags={}, params={})
    for grey in (10, 200):
        run.log_picture("pictures/step-000500.png", np.full((4, 6, 3), grey, np.uint8))
        run.log_json("experiment.json", {"grey": grey})
    client = mlflow_client(settings)
    assert [file.path for file in client.list_artifacts(run.run_id, "pictures")] == ["pictures/step-000500.png"]
    fetched = client.download_artifacts(run.run_id, "experiment.json", str(tmp_path))
    assert json.loads(Path(fetched).read_text()) == {"grey": 200}


def test_handle_by_id_reads_tags_and_ends_the_run(settings: Settings) -> None:
    run_id = find_or_create_run(settings, "handle", tags={}, params={}).run_id
    run = open_run(settings, run_id)
    run.set_tags({"gwm.note": 3})
    run.set_status("FINISHED")
    assert run.tags()["gwm.note"] == "3"
    info = mlflow_client(settings).get_run(run_id).info
    assert info.status == "FINISHED"
    assert info.end_time is not None


def test_a_deleted_experiment_says_how_to_get_it_back(settings: Settings) -> None:
    gone = settings.model_copy(update={"mlflow_experiment": "gone"})
    find_or_create_run(gone, "x", tags={}, params={})
    client = mlflow_client(gone)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(ConfigError, match="'gone' is deleted: restore it with"):
        find_or_create_run(gone, "x", tags={}, params={})


def test_mlflow_starts_quietly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    find_or_create_run(local_settings(tmp_path), "quiet", tags={}, params={})
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert logging.getLogger("alembic").level == logging.WARNING


def test_a_dead_server_and_a_missing_folder_are_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for uri, complaint in (
        (f"http://127.0.0.1:{port}", f"no MLflow server at 127.0.0.1:{port}"),
        (f"sqlite:///{tmp_path}/no/such/folder/mlflow.db", "the folder does not exist"),
    ):
        settings = local_settings(tmp_path).model_copy(update={"mlflow_tracking_uri": uri})
        with pytest.raises(StorageError, match=complaint):
            find_or_create_run(settings, "lost", tags={}, params={})


def test_flatten_joins_keys() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": (2, 3)}}, "e": None}) == {"a.b": 1, "a.c.d": (2, 3), "e": None}
